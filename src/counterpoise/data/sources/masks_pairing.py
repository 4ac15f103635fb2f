"""Which mask belongs to which image: by what their paths share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from counterpoise.data.mask_file import LOSSLESS, SAVED_WITH_LOSS
from counterpoise.data.problems import Problem, fault, warning
from counterpoise.data.walking import image_files, of_links
from counterpoise.system.documents import read_lines, why_unread

SHOWN = 3


class Side:
    """The images, or the masks: files below a folder by what they share with the other side, their key.

    Args:
        problems: what is wrong with them is added.
        masks: whether they are masks, which formats that change values do not hold.
        lossy: let masks be of such a format.
        arrays: whether .npy files are images.

    Attributes:
        every: all files, of whatever suffix.
        files: file by key.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        problems: list[Problem],
        masks: bool = False,
        lossy: bool = False,
        arrays: bool = False,
    ) -> None:
        self.folder = folder
        links: list[str] = []
        self.every = image_files(folder, arrays, links)
        problems += map(warning, of_links(folder, links))
        kept = [(stem, file) for file in self.every if (stem := stem_of(file)).endswith(suffix)]
        jpeg = [file for _, file in kept if masks and not lossy and not file.lower().endswith(LOSSLESS)]
        if jpeg:
            what = (
                f"Mask {folder / jpeg[0]} is of a format that may change values{and_more(jpeg[1:])}; masks are PNG (or "
                "BMP, GIF, TIFF)."
            )
            way_out = f"A JPEG mask holds values that are no class, along every edge: {SAVED_WITH_LOSS}."
            problems.append(fault(what, way_out, [str(folder / file) for file in jpeg]))
        self.files = by_key(folder, ((stem.removesuffix(suffix), file) for stem, file in kept), problems)
        if not self.files:
            ending = f" whose name ends in '{suffix}'" if suffix else ""
            problems.append(fault(f"{folder} holds no images{ending}."))


def by_key(folder: Path, files: Iterable[tuple[str, str]], problems: list[Problem]) -> dict[str, str]:
    """Files of a folder by what they share with the other side; that two share the same is added to `problems`.

    Args:
        files: key and file.
    """
    found: dict[str, str] = {}
    twice = [(found[key], file) for key, file in files if found.setdefault(key, file) != file]
    if twice:
        one, other = (folder / file for file in twice[0])
        what = f"{one} and {other} differ in nothing but their ending{and_more(twice[1:])}."
        problems.append(fault(what, "Take one of them away.", [str(folder / file) for _, file in twice]))
    return found


def stem_of(file: str) -> str:
    """A path without its extension."""
    return os.path.splitext(file)[0]  # noqa: PTH122 - many files, no Path for each


def and_more(others: Sequence[object]) -> str:
    """How many more there are, in brackets."""
    return f" ({len(others)} more)" if others else ""


def matching(images: Side, masks: Side, start: str, problems: list[Problem]) -> list[str]:
    """Keys of the images whose path begins with `start`, and which have a mask; masks must be as many.

    What is wrong with them is added to `problems`, here and below.
    """
    keys, others = ([key for key in side.files if key.startswith(start)] for side in (images, masks))
    if not keys:
        problems.append(fault(f"{images.folder / start} holds no images."))
        return []
    found = _with_masks(images, masks, keys, problems)
    left = [masks.files[key] for key in sorted(set(others) - set(keys))]
    if left:
        problems.append(
            fault(
                f"{masks.folder / start} holds {len(others)} masks and {images.folder / start} {len(keys)} images; "
                f"{left[0]} belongs to none{and_more(left[1:])}.",
                "Take it away, or bring its image.",
                [str(masks.folder / file) for file in left],
            )
        )
    return found


def listed(images: Side, masks: Side, file: Path, problems: list[Problem]) -> list[str]:
    """Keys of those images with a mask that a list file names, a path or stem a line, with or without what ends it."""
    try:
        lines = [line.strip() for line in read_lines(file) if line.strip()]
    except OSError as error:
        problems.append(fault(f"List {file} cannot be read: {why_unread(error)}."))
        return []
    if not lines:
        problems.append(fault(f"List {file} is empty."))
        return []
    known = {path: key for key, path in images.files.items()}
    known |= {stem_of(path): key for key, path in images.files.items()}
    known |= {key: key for key in images.files}
    prefix = f"{images.folder.name}/"
    named = [line.replace("\\", "/").removeprefix("./").removeprefix(prefix) for line in lines]
    keys = [known[name] for name in named if name in known]
    strange = [line for line, name in zip(lines, named, strict=True) if name not in known]
    if strange:
        such = f", such as '{next(iter(images.files))}'" if images.files else ""
        problems.append(
            fault(
                f"{file} names '{strange[0]}', which is not in {images.folder}{and_more(strange[1:])}.",
                f"A line is the path of an image below it, or that without its ending{such}.",
                strange,
            )
        )
    twice = sorted(key for key, count in Counter(keys).items() if count > 1)
    if twice:
        problems.append(fault(f"{file} names '{twice[0]}' twice{and_more(twice[1:])}.", "", twice))
    return _with_masks(images, masks, list(dict.fromkeys(keys)), problems)


def _with_masks(images: Side, masks: Side, keys: list[str], problems: list[Problem]) -> list[str]:
    """The images that have a mask. No other picture's mask is offered in the place of one that is missing."""
    missing = [key for key in keys if key not in masks.files]
    if not missing:
        return keys
    paths = [str(images.folder / images.files[key]) for key in missing]
    found = suffixes(map(stem_of, images.every), map(stem_of, masks.every))
    if found is None:
        way_out = "Add these masks, or take the images away; list files (train.txt, val.txt) may name those to use."
    else:
        options = zip(("image_suffix", "mask_suffix"), found, strict=True)
        said = " and ".join(f"data.options.{name} to {suffix}" for name, suffix in options if suffix)
        way_out = f"Names end otherwise on either side: set {said}."
    what = f"{len(missing)} of {len(keys)} images have no mask below {masks.folder}; the first is {paths[0]}."
    problems.append(fault(what, way_out, paths))
    return [key for key in keys if key in masks.files]


def shared(halves: Sequence[Sequence[str]], files: Sequence[Path], meant: bool) -> list[Problem]:
    """What is wrong where keys stand in both of two lists; `meant`: the user has said that they shall."""
    both = sorted(set(halves[0]) & set(halves[1]))
    if not both:
        return []
    what = (
        f"{files[0]} and {files[1]} share {len(both)} images, such as {', '.join(both[:SHOWN])}: a score on "
        "pictures that were trained on says nothing."
    )
    if meant:
        return [warning(what, "data.options.shared says that it is meant so.")]
    way_out = "Take them out of one list, or say that it is meant so: --data.options.shared true."
    return [fault(what, way_out, both)]


def suffixes(images: Iterable[str], masks: Iterable[str]) -> tuple[str, str] | None:
    """What ends stems of images and of masks and is not shared: _training and _manual1 of 21_training and 21_manual1.

    None where there is nothing that holds for nine of ten images.
    """
    stems, others = sorted(images), set(masks)
    if not stems or not others:
        return None
    first = stems[0]
    common = {other: _shared(first, other) for other in others}
    longest = max(common.values())
    inside = longest > len(os.path.dirname(first)) + bool(os.path.dirname(first))  # noqa: PTH120 - text alone
    for other in sorted(other for other, length in common.items() if length == longest and inside):
        key = first[:longest].rstrip("_-. ")
        ends = first[len(key) :], other[len(key) :]
        keys = [stem.removesuffix(ends[0]) for stem in stems if stem.endswith(ends[0])]
        held = sum(key + ends[1] in others for key in keys)
        if any(ends) and len(set(keys)) == len(keys) and held >= 0.9 * len(stems):
            return ends
    return None


def _shared(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
