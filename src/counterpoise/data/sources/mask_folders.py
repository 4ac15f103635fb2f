"""A folder of images, and for each question a folder of masks: structures that may overlap."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from counterpoise import config
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import mask_size, read_yes, resized
from counterpoise.data.problems import Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.data.sources.division import folders_beside, name_parts, not_used, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.masks_files import WAYS_OUT, misfit, of_one_shape
from counterpoise.data.sources.masks_pairing import Side, matching
from counterpoise.data.sources.questions import UNKNOWN, VALUES
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import TRAIN, find, is_split_name
from counterpoise.data.walking import loose_images, subfolders
from counterpoise.errors import CounterpoiseError, DataError, UnfitMask, nearest
from counterpoise.system.files import expanded

MOST = 7
"""Questions: a pixel's answers are kept as one byte, in which 255 is void."""


def table_of(count: int) -> Tensor:
    """What masks say in which the n-th question is bit n: int8 [256, count]."""
    bits = torch.arange(VALUES)[:, None] >> torch.arange(count) & 1
    table = bits.to(torch.int8)
    table[2**count :] = UNKNOWN
    return table


class QuestionFiles(FileSet):
    """Image files with a mask file for each question, read when asked.

    Args:
        root, files: folder of the images, and their paths relative to it.
        mask_root: folder of the masks.
        masks: by question, the paths of its masks relative to that, as many as images.
        ignore: value in masks that is void; such a pixel counts for no question.
        resize: bring masks of another size to that of their image, by the nearest pixel.
    """

    masked = True

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        mask_root: Path,
        masks: Mapping[str, Sequence[str]],
        ignore: int | None = None,
        resize: bool = False,
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), tuple(masks))
        self.questions = table_of(len(masks))
        self.mask_root = mask_root
        self.of_questions = {name: tuple(paths) for name, paths in masks.items()}
        self.ignore, self.resize = ignore, resize

    def read_mask(self, index: int) -> Tensor:
        size = self.extent(index)
        found = torch.zeros(size, dtype=torch.uint8)
        void = torch.zeros(size, dtype=torch.bool)
        for bit, path in enumerate(self.files_of(index)):
            answer = read_yes(path, self.ignore, self.reading)
            here = answer.shape[0], answer.shape[1]
            if here != size and not (self.resize and of_one_shape(here, size)):
                what = misfit(self.name(index), here, size, self.resize)
                raise UnfitMask(os.fspath(path), f"{what}. {WAYS_OUT}")
            answer = resized(answer, size)
            void |= answer == IGNORE
            found += (answer == 1) * 2**bit
        if void.all():
            raise UnfitMask(self.name(index), "is all void: no pixel counts. Leave it out, or mend its masks.")
        return found.masked_fill(void, IGNORE)

    @cached_property
    def label_map(self) -> LabelMap:
        """What the values of `mask_file` mean: each a set of questions that are a yes."""
        return LabelMap(tuple(map(str, range(2 ** len(self.of_questions)))), (), frozenset(), IGNORE, self.origin)

    def mask_file(self, index: int) -> bytes:
        """A gray PNG in which the n-th question is bit n, which no file holds."""
        written = io.BytesIO()
        Image.fromarray(self.read_mask(index).numpy()).save(written, "PNG")
        return written.getvalue()

    def mask_name(self, index: int) -> str:
        """What that would be called."""
        return f"{self.files[index]}.png"

    def misfits(self) -> list[str]:
        """By headers: what is wrong with the size of each mask."""
        found = []
        for index, path in ((number, path) for number in range(len(self)) for path in self.files_of(number)):
            try:
                size, here = self.extent(index), mask_size(path, self.reading)
            except CounterpoiseError:  # said, or left out, when it is read
                continue
            if here != size and not (self.resize and of_one_shape(here, size)):
                found.append(f"{path} {misfit(self.name(index), here, size, self.resize)}")
        return found

    def identity(self, index: int) -> bytes:
        sizes = [path.stat().st_size if path.is_file() else -1 for path in self.files_of(index)]
        own = list(zip((paths[index] for paths in self.of_questions.values()), sizes, strict=True))
        return super().identity(index) + os.fsencode(f" {own} {self._meaning}")

    def files_of(self, index: int) -> list[Path]:
        """The masks of an image, in the order of the questions."""
        return [self.mask_root / paths[index] for paths in self.of_questions.values()]

    @cached_property
    def _meaning(self) -> str:
        return repr((self.classes, self.ignore, self.resize))


def _recognizes(path: Path) -> bool:
    """Whether PATH/masks has a folder for each question: such as are no parts of the data, and none of the images."""
    if not ((path / "images").is_dir() and (path / "masks").is_dir()):
        return False
    found = subfolders(path / "masks")
    files = any(entry.is_file() and entry.name[:1] != "." for entry in (path / "masks").iterdir())
    alike = {name for name in subfolders(path / "images") if not is_split_name(name)}
    return bool(found) and not files and not alike & {*found} and not any(map(is_split_name, found))


def _parts(data: config.Data, **options: Any) -> tuple[list[QuestionFiles], list[Problem], Any]:
    """The parts of a folder, what is wrong with it, and how it is divided. Options as of `load`."""
    assert data.path is not None  # the registry has seen to it
    root, problems = expanded(data.path), list[Problem]()
    folders = {name: root / options["masks"] / name for name in _questions(root, options)}
    arrays = data.reading.arrays
    images = Side(root / options["images"], options["image_suffix"], problems, arrays=arrays)
    sides = {name: Side(folder, _suffix(options, name), problems, masks=True) for name, folder in folders.items()}
    present = [name for name in subfolders(images.folder) if is_split_name(name)]
    trained = any(name.casefold() in TRAIN for name in present)
    halves = find(present, f"{images.folder}", val=options["val_split"]) if trained else None
    parts = []
    for start in [""] if halves is None else [f"{name}/" for name in halves.names]:
        keys = [matching(images, side, start, problems) for side in sides.values()]
        both = [key for key in (keys[0] if keys else []) if all(key in each for each in keys)]
        masks = {name: [f"{name}/{side.files[key]}" for key in both] for name, side in sides.items()}
        files = [images.files[key] for key in both]
        mask_root = root / options["masks"]
        part = QuestionFiles(images.folder, files, mask_root, masks, options["ignore"], options["resize_masks"])
        part.origin = f"{start.rstrip('/')} of {root}" if start else str(root)
        part.read_as(data.reading)
        if wrong := part.misfits():
            what = f"{len(wrong)} masks are of another size than their images: {'; '.join(wrong[:3])}."
            problems.append(of_corrupt(what, WAYS_OUT, wrong, data.on_corrupt))
        parts.append(part)
    if halves is not None:
        loose = [images.folder / name for name in loose_images(images.folder)]
        parts[0].notes += not_used(folders_beside(halves.names, images.folder), loose)
    if all(map(len, parts)):
        starts = [""] if halves is None else [f"{name}/" for name in halves.names]
        below = [[file.removeprefix(start) for file in part.files] for start, part in zip(starts, parts, strict=True)]
        problems += give_groups(parts, below, Asked(options["group"], options["shared"]), root, halves)
    return parts, problems, halves


def _questions(root: Path, options: Mapping[str, Any]) -> list[str]:
    folder = root / options["masks"]
    if not folder.is_dir():
        raise DataError(
            f"{root} has no folder '{options['masks']}' with a folder of masks for each question, such as "
            f"{folder / 'vessel'}.{nearest(options['masks'], subfolders(root))}"
        )
    there = [name for name in subfolders(folder) if not is_split_name(name)]
    for name in options["questions"] or ():
        if name not in there:
            raise DataError(f"data.options.questions: {folder} has no folder '{name}'.{nearest(name, there)}")
    chosen = list(options["questions"] or there)
    if not chosen:
        raise DataError(f"{folder} has no folder: masks of each question lie in one of its own, {folder / 'vessel'}.")
    if len(chosen) > MOST:
        raise DataError(
            f"{folder} has {len(chosen)} folders, and up to {MOST} questions are asked at once: name those that belong "
            "together, data.options.questions, and train a student for each such group. Structures that do not overlap "
            "are classes of one mask: source masks_folder."
        )
    return chosen


def _suffix(options: Mapping[str, Any], question: str) -> str:
    given: str | dict[str, str] = options["mask_suffix"]
    return given.get(question, "") if isinstance(given, Mapping) else given


def _check(data: config.Data, **given: Any) -> list[Problem]:
    parts, problems, _ = _parts(data, **{**_DEFAULTS, **given})
    seen: set[str] = set()
    for part in parts:
        for index in range(len(part)):
            try:
                part.read_mask(index)
            except CounterpoiseError as error:
                if WAYS_OUT not in str(error) and str(error) not in seen:
                    seen.add(str(error))
                    problems.append(fault(str(error)))
    return problems


@register(
    "mask_folders",
    summary="PATH/images and PATH/masks/QUESTION for each question, each perhaps with train/ and val/",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    questions: list[str] | None = None,
    ignore: int | None = None,
    val_split: str | None = None,
    images: str = "images",
    masks: str = "masks",
    image_suffix: str = "",
    mask_suffix: str | dict[str, str] = "",
    resize_masks: bool = False,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Images below `data.path`/images, each with a mask of the same path below `data.path`/masks/QUESTION.

    Masks are gray: 0 is no, 255 or 1 is yes. Each question's answer is its own, so structures may overlap. Divided by
    folders train/ and val/ in all of them, or else by `data.val_fraction`. For task multilabel_segmentation.

    Args:
        questions: names of the folders, in the order of the student's answers; default: all of them, up to 7.
        ignore: value in masks that is void: such a pixel counts for no question.
        val_split: name of the split to evaluate on; default: as of masks_folder.
        images, masks: names of the two folders.
        image_suffix, mask_suffix: what ends the names of images and masks before their extension and is not shared; of
            masks also by question, {vessel: _manual}.
        resize_masks: bring masks of another size to that of their image, by the nearest pixel.
        group: what belongs together, such as the pictures of a patient, and is on one side of a division alone: a
            pattern in the paths, or a table, as of masks_folder.
        shared: let groups be on both sides.
    """
    parts, problems, halves = _parts(
        data,
        questions=questions,
        ignore=ignore,
        val_split=val_split,
        images=images,
        masks=masks,
        image_suffix=image_suffix,
        mask_suffix=mask_suffix,
        resize_masks=resize_masks,
        group=group,
        shared=shared,
    )
    raise_first(problems)
    parts[0].notes += [problem.sentence for problem in problems]
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    splits = Splits(parts[0], parts[1])
    name_parts(splits, halves)
    return splits


_DEFAULTS: dict[str, Any] = {**(load.__kwdefaults__ or {})}
