"""What is known of the pictures of a table: from the text of a column to classes and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data.packs.labels import read_classes
from counterpoise.data.sources.base import UNLABELED
from counterpoise.data.walking import is_number, ordered
from counterpoise.errors import DataError, nearest


class Labels(NamedTuple):
    """Labels of pictures, in their order, and the names of the classes. said: how they were read."""

    labels: Tensor
    classes: tuple[str, ...]
    said: list[str]


def one_a_picture(texts: Sequence[str], training: Sequence[bool], column: str, classes: Path | None) -> Labels:
    """A class a picture, by its name; UNLABELED where there is none.

    Args:
        texts: of the column, a picture each.
        training: whether a picture is trained on. Classes are those of these pictures, in natural order.
        classes: file with a name a line, which are the classes instead, in its order.

    Raises DataError where there is a class that training lacks, or as many classes as pictures.
    """
    present = set(texts) - {""}
    if classes is None:
        names = ordered({text for text, trains in zip(texts, training, strict=True) if trains and text})
        _require_classes(texts, names, column)
        numbers = {name: number for number, name in enumerate(names)}
        said: list[str] = []
    else:
        names = read_classes(classes)
        numbers, said = _by_file(present, names, column, classes)
    if strange := sorted(present - numbers.keys()):
        raise DataError(
            f"Class '{strange[0]}' of column '{column}' is unknown to the training pictures."
            f"{nearest(strange[0], numbers)} Call both alike, or give "
            "the classes in a file, --data.options.classes FILE."
        )
    numbers[""] = UNLABELED
    return Labels(torch.tensor([numbers[text] for text in texts]), tuple(names), [*said, *_alike(names)])


def _require_classes(texts: Sequence[str], names: Sequence[str], column: str) -> None:
    labeled = sum(map(bool, texts))
    if not names:
        raise DataError(
            f"Column '{column}' has a label for no training picture. To distill without labels: "
            "--data.options.labeled false."
        )
    if len(names) == labeled > 2:
        raise DataError(
            f"Column '{column}' has another value for each of the {labeled:,} labeled pictures, such as '{names[0]}': "
            "these are no classes. Another column: --data.options.label NAME."
        )


def _by_file(present: set[str], names: Sequence[str], column: str, file: Path) -> tuple[dict[str, int], list[str]]:
    """The number of each value by a classes file: by its name, or where values are numbers, by its line."""
    if present <= set(names):
        return {name: number for number, name in enumerate(names)}, []
    if all(map(is_number, present)) and not any(map(is_number, names)):
        beyond = sorted((value for value in present if not 0 <= int(value) < len(names)), key=int)
        if beyond:
            raise DataError(
                f"Column '{column}' holds {beyond[-1]}, and {file} names {len(names)} classes: expected 0 to "
                f"{len(names) - 1}."
            )
        said = f"column '{column}' holds numbers: 0 is '{names[0]}', the first line of {file}"
        return {value: int(value) for value in present}, [said]
    strange = sorted(present - set(names))
    raise DataError(
        f"Class '{strange[0]}' of column '{column}' is not among the {len(names)} classes of {file}."
        f"{nearest(strange[0], names)}"
    )


def _alike(names: Sequence[str]) -> list[str]:
    """A word on classes that are probably one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return [f"classes '{other}' and '{name}' differ in case alone, and are two"]
    return []
