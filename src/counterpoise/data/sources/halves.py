"""What both halves of a data set must be, wherever they come from: read by a source, or handed in as sets."""

from __future__ import annotations

import torch

from counterpoise.data.class_names import alike, require_apart
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet, Splits
from counterpoise.errors import ConfigError, DataError, nearest, shown

HANDED_IN = "as it was handed in"
_AT_ONCE = 256  # masks that are looked at together


def handed_in(given: object) -> Splits:
    """Two sets as they were handed in from Python. Raises ConfigError where they are something else."""
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(one, ImageSet) for one in given):
        return Splits(*given)
    raise ConfigError(f"Data that are handed in are Splits(train, val), two sets of images; got {shown(given)}.")


def agreed(splits: Splits, where: str) -> Splits:
    """Both halves as all training relies on them, the classes of val in the order of those of train.

    Args:
        where: where the data come from, for errors.

    Raises:
        DataError: whatever a source, or who made the sets, could get wrong.
    """
    train, val = (sound(images, half, where) for half, images in zip(Splits._fields, splits, strict=True))
    for name in train.classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"Class name {name!r} cannot be written as text (UTF-8): rename its folder.") from None
    require_apart(train.classes)
    train.notes = [*train.notes, *(note for note in alike(train.classes) if note not in train.notes)]
    if sorted(train.classes) == sorted(val.classes) and (not val.masked or val.questions is not None):
        val = val.in_order(train.classes)
    if train.classes != val.classes:
        near = next((nearest(name, train.classes) for name in val.classes if name not in train.classes), "")
        raise DataError(
            f"The classes of train and val differ: {list(train.classes)[:5]} and {list(val.classes)[:5]}.{near}"
        )
    if train.multilabel != val.multilabel:
        raise DataError("One half of the data has one class an image, and the other several labels.")
    if len(train.classes) == 1 and not train.multilabel and train.questions is None:
        raise DataError(f"The data has one class only, '{train.classes[0]}'; a classifier needs at least 2.")
    if train.classes and val.unlabeled:
        raise DataError(f"{val.unlabeled} images of the val half have no label; evaluation needs them.")
    return Splits(train, val)


def sound(images: ImageSet, half: str, where: str) -> ImageSet:
    """The images, if there are any and none is of a class that is not there.

    Raises DataError. Masks in files are looked at when they are read.
    """
    if len(images) == 0:
        raise DataError(f"The {half} half of the data ({where}) holds no images.")
    if images.multilabel:  # a table of labels was looked at when the set was made
        return images
    lowest, highest = int(images.labels.min()), int(images.labels.max())
    if lowest < UNLABELED or highest >= len(images.classes):
        expected = f"0 to {len(images.classes) - 1}" if images.classes else f"{UNLABELED}, as there are no classes"
        raise DataError(f"Labels of the {half} half are {lowest} to {highest}, expected {expected}.")
    if isinstance(images, ArraySet) and images.masked and images.questions is None:
        _require_classes(images, half)
    return images


def _require_classes(scenes: ArraySet, half: str) -> None:
    """Raises DataError where a mask in memory holds what is no class."""
    for part, masks in enumerate(torch.split(scenes.masks, _AT_ONCE)):
        beyond = (masks >= len(scenes.classes)) & (masks != IGNORE)
        if len(found := torch.nonzero(beyond)):
            raise DataError(
                f"The mask of {scenes.name(part * _AT_ONCE + int(found[0, 0]))} of the {half} half holds "
                f"{int(masks[beyond][0])}, expected 0 to {len(scenes.classes) - 1}, the classes, or {IGNORE}, void."
            )
