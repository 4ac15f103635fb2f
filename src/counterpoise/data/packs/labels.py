"""What the labels of others' tars mean: the classes that a file names, or those that are met in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from counterpoise.data.class_names import doubtful
from counterpoise.data.label_map import read_label_map
from counterpoise.data.packs.format import Pack
from counterpoise.data.packs.reading import PackSet
from counterpoise.data.packs.samples import kept_meaning
from counterpoise.data.sources.base import UNLABELED
from counterpoise.errors import ConfigError, DataError, nearest
from counterpoise.system.documents import read_lines, why_unread
from counterpoise.system.files import expanded


def with_meaning(pack: Pack, classes: Path | None, ignore: int | None, where: str) -> Pack:
    """Tars of scenes with what their masks mean. Raises ConfigError where that is not said, DataError for the file."""
    if classes is None:
        raise ConfigError(
            f"The tars of {where} hold masks: say what is in them, --data.options.classes FILE with a class a line."
        )
    label_map = read_label_map(expanded(classes), ignore)
    return pack.model_copy(update={"classes": list(label_map.classes), "meaning": kept_meaning(label_map, False)})


def read_classes(file: Path) -> list[str]:
    """Names, one a line. Raises DataError."""
    path = expanded(file)
    try:
        names = [line.strip() for line in read_lines(path)]
    except OSError as error:
        raise DataError(
            f"Classes file {path} cannot be read: {why_unread(error)}. Expected a name a line, the first for label 0."
        ) from None
    twice = next((name for number, name in enumerate(names) if not name or name in names[:number]), None)
    if twice is not None:
        raise DataError(f"Classes file {path} has {f'the class {twice!r} twice' if twice else 'an empty line'}.")
    return names


def name_classes(images: PackSet, names: Sequence[str], file: Path) -> None:
    """Have the classes be those of a file. Raises DataError where a label is beyond them."""
    pack, labels = images.pack, images.labels
    if pack.numbered:
        beyond = torch.nonzero(labels >= len(names)).flatten()
        if len(beyond):
            first = int(beyond[0])
            raise DataError(
                f"{len(beyond):,} labels of {images.origin} are beyond the {len(names)} classes of {file}: the first "
                f"is {int(labels[first])}, of {images.name(first)}. Expected 0 to {len(names) - 1}."
            )
    else:
        unknown = [name for name in pack.classes if name not in names]
        if unknown:
            raise DataError(
                f"Class '{unknown[0]}' of {images.origin} is not among the {len(names)} classes of {file}."
                f"{nearest(unknown[0], names)}"
            )
        # One more at the end, which UNLABELED (-1) finds.
        images.labels = torch.tensor([*(list(names).index(name) for name in pack.classes), UNLABELED])[labels]
    images.classes = tuple(names)


def without_labels(images: PackSet) -> None:
    """Leave labels alone."""
    images.labels, images.classes = torch.full_like(images.labels, UNLABELED), ()


def require_labels(images: PackSet) -> None:
    """Raises DataError where no image has a label; names of classes that may be meant otherwise are noted."""
    if not images.masked and bool((images.labels == UNLABELED).all()):
        raise DataError(
            f"{images.origin} has no labels: no sample has a .cls, or a .json with one of the fields that hold labels "
            "(--data.options.label NAME). To distill without labels: --data.options.labeled false."
        )
    if not images.masked and not images.pack.numbered:
        none = "a sample without a label has an empty one, or -1"
        images.notes += doubtful(images.pack.classes, f"the tars of {images.origin}", none=none)
