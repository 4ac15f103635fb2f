"""Weights in several files, as Hugging Face writes large ones: an index says which tensor lies in which file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from counterpoise.errors import ModelError
from counterpoise.system import documents

ENDING = ".index.json"


def read(index: Path, one: Callable[[Path], Mapping[str, Tensor]], bring: Callable[[str], Path]) -> dict[str, Tensor]:
    """All tensors of the files that an index names.

    Args:
        index: `{"weight_map": {tensor: file}}`.
        one: reads a file of tensors.
        bring: where a file lies, by its name.

    Raises:
        ModelError: the index is damaged, names a file elsewhere, or a tensor that is not in its file.
    """
    state: dict[str, Tensor] = {}
    places = _places(index)
    for name in sorted(set(places.values())):
        held = one(bring(name))
        wanted = [tensor for tensor, file in places.items() if file == name]
        if missing := [tensor for tensor in wanted if tensor not in held]:
            raise ModelError(f"{index} says that {name} holds '{missing[0]}', and it does not: copy all files anew.")
        state |= {tensor: held[tensor] for tensor in wanted}
    return state


def _places(index: Path) -> dict[str, str]:
    try:
        found = documents.read_json(index)
    except (OSError, ValueError) as error:
        raise ModelError(f"{index} cannot be read: {error}.") from None
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ModelError(f"{index} does not say which tensor is in which file: expected 'weight_map'.")
    for file in places.values():
        if file in ("", "..") or Path(file).name != file or file.endswith(ENDING):
            raise ModelError(f"{index} names {file!r:.80}, expected files of weights beside it.")
    return places
