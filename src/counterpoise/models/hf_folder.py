"""Folders as Hugging Face transformers saves networks, on disk or in the cache of the hub. No code in them is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from counterpoise.config import LARGEST_EDGE
from counterpoise.errors import MissingExtraError, ModelError
from counterpoise.errors import shown as given
from counterpoise.models import checkpoint, published, several_files
from counterpoise.models.families.base import Part
from counterpoise.models.imagenet import MEAN, STD
from counterpoise.system import documents, torchvision_guard
from counterpoise.system.files import expanded

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
INDEXES = tuple(f"{name}{several_files.ENDING}" for name in FILES)
_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Shown:
    """How a folder says that pictures are shown to its network.

    Attributes:
        edge: in pixels; None where it is not said.
        crop_share: part of the shorter side that is cut out.
        said: whether it says how pixels are normalized; else as for ImageNet.
    """

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    edge: int | None = None
    crop_share: float = 1.0
    said: bool = False


def library() -> Any:
    """The module transformers. Raises MissingExtraError where it is not installed."""
    torchvision_guard.ready()
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("A model of the family hf", "hf") from None
    return transformers


def located(name: str) -> Path | None:
    """The folder that a name is: on disk, or that of OWNER/NAME on the hub, with its description; None if neither.

    Raises ModelError where it looks like a name of the hub, is not in its cache, and cannot be fetched.
    """
    path = expanded(Path(name))
    if (path / CONFIG).is_file():
        return path
    if path.is_dir() or _ON_HUB.fullmatch(name) is None:
        return None
    try:
        found = published.from_hub(name, [CONFIG], None, f"hf/{name}")
    except ModelError as error:
        first, *_, last = str(error).splitlines()
        raise ModelError(
            f"There is no folder {name} with a {CONFIG}. {first}\n{last.replace('or bring', 'Bring')}"
        ) from None
    with suppress(ModelError):  # some have none, which is then said
        published.from_hub(name, [PROCESSOR], None, f"hf/{name}")
    return found.parent


def description(folder: Path) -> dict[str, Any]:
    """What config.json says."""
    config = _json(folder / CONFIG)
    for part in (config, config.get("vision_config")):
        if isinstance(part, Mapping) and part.get("num_channels", 3) != 3:
            raise ModelError(f"{folder / CONFIG}: num_channels is {part['num_channels']}, expected 3.")
    return config


def classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that a description gives its classes, LABEL_0 and so on where nobody gave names."""
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers writes none where they are these
    if not isinstance(labels, Mapping) or not all(re.fullmatch("[0-9]{1,9}", str(key)) for key in labels):
        raise ModelError(f"id2label gives no name for each number of a class: {labels!s:.80}.")
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes; None where nobody gave any."""
    found = classes(config)
    return None if all(re.fullmatch(r"LABEL_\d+", label) for label in found) else found


def weights(folder: Path, name: str) -> checkpoint.Weights:
    """The weights beside the description."""
    path = next((folder / file for file in (*FILES, *INDEXES) if (folder / file).is_file()), folder / FILES[0])
    if not path.is_file():
        if folder != expanded(Path(name)):  # in the hub's cache
            path = published.from_hub(name, [*FILES, *INDEXES], None, f"hf/{name}")
        else:
            raise ModelError(f"{folder} holds no weights: expected {' or '.join(FILES)} beside {CONFIG}.")
    if not path.name.endswith(several_files.ENDING):
        return checkpoint.Weights(str(path), checkpoint.read(path).state)

    def bring(file: str) -> Path:
        here = path.parent / file
        return (
            here
            if here.is_file() or folder == expanded(Path(name))
            else published.from_hub(name, [file], None, f"hf/{name}")
        )

    state = several_files.read(path, lambda file: checkpoint.read(file).held.state, bring)
    return checkpoint.Weights(str(path), state)


def read(net: nn.Module, report: Mapping[str, Any]) -> Part:
    """What transformers says that it has read of a file; layers beyond those of the network stay, so it does not fit.

    Args:
        net: with the weights of the file.
        report: of `from_pretrained`, with output_loading_info.
    """
    own: dict[str, Tensor] = net.state_dict()
    kinds = {_NUMBER.sub(".*", name): value for name, value in own.items()}
    left = sorted(report["unexpected_keys"])
    further = {name: kinds[kind] for name in left if (kind := _NUMBER.sub(".*", name)) in kinds}
    lacking = {key for key in report["missing_keys"] if not key.endswith("num_batches_tracked")}
    state = {key: value for key, value in own.items() if key not in lacking}
    return Part({**state, **further}, [name for name in left if name not in further])


def shown(folder: Path) -> Shown:
    """What preprocessor_config.json says. Raises ModelError where pictures cannot be shown like that here."""
    path = folder / PROCESSOR
    if not path.is_file():
        return Shown()
    held = _json(path)
    factor = held.get("rescale_factor", 1 / 255)
    if held.get("do_rescale", True) and not (isinstance(factor, int | float) and abs(factor * 255 - 1) <= 1e-6):
        raise ModelError(f"{path}: rescale_factor is {given(factor)}, expected 1/255.")
    mean, std = held.get("image_mean", MEAN), held.get("image_std", STD)
    for key, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, Sequence) or not all(isinstance(value, int | float) for value in values):
            raise ModelError(f"{path}: {key} is {values!r:.60}, expected three numbers.")
    if not held.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    edge, share = _size(held, path)
    return Shown(tuple(mean), tuple(std), edge, share, "image_mean" in held or not held.get("do_normalize", True))


def _size(held: Mapping[str, Any], path: Path) -> tuple[int | None, float]:
    """Edge of the square that pictures are brought to, and the share of their shorter side that is cut out for it."""
    whole = _edge(held.get("size"), path)
    if held.get("crop_size") is not None and held.get("do_center_crop", True):
        edge = _edge(held["crop_size"], path)
        return edge, min(1.0, edge / whole) if edge and whole else 1.0
    share = held.get("crop_pct")
    if isinstance(share, int | float) and 0 < share <= 1 and whole is not None and whole < 384:  # ConvNeXt's processor
        return whole, float(share)
    return whole, 1.0


def _edge(size: Any, path: Path) -> int | None:
    """256, {shortest_edge: 256} or {height: 256, width: 256} as 256."""
    if isinstance(size, Mapping):
        if size.get("height") != size.get("width"):
            raise ModelError(f"{path}: pictures of {size.get('height')} x {size.get('width')}, expected a square.")
        size = size.get("height", size.get("shortest_edge"))
    if not isinstance(size, int) or isinstance(size, bool):
        return None
    if not 1 <= size <= LARGEST_EDGE:
        raise ModelError(f"{path}: pictures of {size} pixels an edge, expected 1 to {LARGEST_EDGE:,}.")
    return size


def _json(path: Path) -> dict[str, Any]:
    try:
        values = documents.read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {documents.why_unread(error)}.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no mapping of names to values.")
    return values
