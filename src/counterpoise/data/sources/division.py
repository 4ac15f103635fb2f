"""An image set divided into one to train on and one to judge by, by chance that is a function of a seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.labels import strata
from counterpoise.data.problems import SHOWN
from counterpoise.data.sources import drawing
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.split_names import Halves
from counterpoise.data.walking import image_files, loose_images, subfolders
from counterpoise.errors import DataError
from counterpoise.system.files import is_folder


def split(images: ImageSet, val_count: int, seed: int) -> Splits:
    """Hold out `val_count` images, in proportion from every class, drawn by `seed`; both halves keep their order.

    A class of two or more images has at least one on either side, which moves the count where classes are tiny. Groups
    are kept whole; images without a label stay in train where others have one; an image of several labels counts for
    the rarest of them. Raises DataError where one side would be empty.
    """
    drawn = drawing.held_out(strata(images.labels, len(images.classes)), images.groups, val_count, seed)
    held = drawn.bins == 0
    if held.all() or not held.any():
        raise DataError(f"{len(images)} images cannot be split into train and val; every class needs at least 2.")
    parts = _parts(images, held, drawn)
    share = 100 * len(parts.val) / len(images)
    whole = "" if images.groups is None else ", groups kept whole,"
    parts.val.origin += f"{share:.3g}% held out of every class{whole} by data.split_seed {seed}"
    return parts


def split_by_fraction(images: ImageSet, val_fraction: float, seed: int) -> Splits:
    """`split` with a share of the images, 0 to 1."""
    labeled = len(images) - images.unlabeled or len(images)
    parts = split(images, round(val_fraction * labeled), seed)
    parts.train.drawn = True
    return parts


def fold(images: ImageSet, number: int, count: int, seed: int) -> Splits:
    """The fold `number`, 1 to `count`, held out; each image is held out by one of them, in proportion from every class.

    Groups are kept whole; images without a label stay in train where others have one, as does a class of one image.
    Raises DataError where a fold would be empty.
    """
    drawn = drawing.folds(strata(images.labels, len(images.classes)), images.groups, count, seed)
    parts = _parts(images, drawn.bins == number - 1, drawn)
    whole = "" if images.groups is None else ", groups kept whole"
    parts.val.origin += f"fold {number} of {count} by data.split_seed {seed}{whole}"
    return parts


def _parts(images: ImageSet, held: Tensor, drawn: drawing.Drawn) -> Splits:
    """Both sides, each told where it comes from; what has no label is not on the side that is held out."""
    labeled = strata(images.labels, len(images.classes)) >= 0
    val = held & labeled if bool(labeled.any()) else held
    positions = [torch.nonzero(side).flatten() for side in (~held, val)]
    parts = Splits(*(images.subset(where) for where in positions))
    for part, where in zip(parts, positions, strict=True):
        part.split_from, part.positions = images, where
        part.origin, part.divided_as = images.origin, images.classes
    parts.val.origin = f"{images.origin}, " if images.origin else ""
    parts.train.notes = list(images.notes)
    alone = drawn.alone
    if images.multilabel:  # of which drawn looked at the rarest label of each image alone
        owners = images.owners()
        known = [label for label in alone if label < len(images.classes)]
        alone = [label for label in known if len(set(owners[images.labels[:, label] > 0].tolist())) == 1]
    if alone:
        names = [f"'{images.classes[label]}'" for label in alone[:SHOWN]] + ["..."] * (len(alone) > SHOWN)
        has = "group" if images.groups is not None else "image"
        parts.train.notes.append(f"classes of one {has} alone, which stays in train: {', '.join(names)}")
    if lost := int(held.sum()) - len(parts.val):
        parts.train.notes.append(f"{lost:,} images without a label are of groups that are held out: on neither side")
    return parts


def divided(data: config.Data, root: Path, halves: Halves, collect: Callable[[Path], ImageSet]) -> Splits:
    """The halves that are folders below `root`, or `data.val_fraction` held out where there is one of them alone.

    Args:
        collect: the set of images in a folder.
    """
    train = collect(root / halves.train)
    if halves.val is None:
        splits = split_by_fraction(train, data.val_fraction, data.split_seed)
    else:
        splits = Splits(train, collect(root / halves.val))
        splits.val.origin = f"{root / halves.val} ({halves.why})" if halves.why else str(root / halves.val)
    name_parts(splits, halves)
    loose = loose_images(root) if halves.train else []
    splits.train.notes += not_used([root / name for name in halves.unused], [root / name for name in loose])
    return splits


def folders_beside(
    used: Iterable[str], folder: Path, inner: str = "", found: Callable[[Path], Collection[str]] = image_files
) -> list[Path]:
    """The folders in a folder that hold pictures and are none of those that are used.

    Args:
        inner: where pictures lie in each.
        found: the pictures, or what stands for them, in a folder.
    """
    taken, others = {*used}, []
    for other in (folder / name / inner for name in subfolders(folder) if name not in taken):
        with suppress(DataError):  # one that cannot be read is in nobody's way
            others += [other] if is_folder(other) and found(other) else []
    return others


def not_used(folders: Sequence[Path], loose: Sequence[Path] = (), beside: str = "the parts") -> list[str]:
    """What is there and is no part of what is used, as notes.

    Args:
        folders: others than those that are used.
        loose: pictures that lie in none.
        beside: what these lie beside, in words.
    """
    said = [f"not used: {', '.join(map(str, folders))}"] if folders else []
    if loose:
        said.append(f"{len(loose):,} pictures lie beside {beside} and are not used, such as {loose[0]}")
    return said


def name_parts(splits: Splits, halves: Halves) -> None:
    """Have both parts say what they are called in their source, and the first what others there are."""
    for part, name in zip(splits, (halves.train, halves.val or halves.train), strict=True):
        part.called = name
    splits.train.unused = halves.unused
