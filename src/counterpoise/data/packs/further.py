"""What a pack keeps of a set beside its files: groups and their names, questions, and spacings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from counterpoise.data.packs.format import Pack, Question, Spacings, pack_numbers, unpack_numbers
from counterpoise.data.sources.base import ImageSet, Subset
from counterpoise.data.sources.questions import UNKNOWN, VALUES
from counterpoise.data.sources.volumes import VolumeScenes
from counterpoise.errors import DataError


def groups_of(parts: Mapping[str, ImageSet]) -> dict[str, str] | None:
    """Which samples belong together, by part; None where that is known of none."""
    known = {name: part.groups for name, part in parts.items() if part.groups is not None}
    return {name: pack_numbers(groups.numpy()) for name, groups in known.items()} or None


def group_names_of(parts: Mapping[str, ImageSet]) -> dict[str, list[str]] | None:
    """What groups are called, by part; None where they have no names."""
    return {name: list(part.group_names) for name, part in parts.items() if part.group_names} or None


def questions_of(images: ImageSet) -> list[Question] | None:
    """The questions of a set of scenes; None where it asks none."""
    if images.questions is None:
        return None
    columns = zip(images.classes, images.questions.T, strict=True)
    return [
        Question(name=name, **{word: torch.nonzero(column == said).flatten().tolist() for word, said in _WORDS})
        for name, column in columns
    ]


_WORDS = (("yes", 1), ("no", 0))


def spacings_of(parts: Mapping[str, ImageSet]) -> dict[str, Spacings] | None:
    """Spacings of slices, by part; None where no part is of slices that have any. Files say theirs themselves."""
    found = {name: _spacings(part) for name, part in parts.items() if of_volumes(part)}
    return {name: each for name, each in found.items() if each.pairs} or None


def of_volumes(images: ImageSet) -> bool:
    """Whether these are slices of volumes."""
    return isinstance(images.whole if isinstance(images, Subset) else images, VolumeScenes)


def _spacings(images: ImageSet) -> Spacings:
    each = [images.spacing(index) for index in range(len(images))]
    pairs = sorted({pair for pair in each if pair is not None})
    places = {pair: place for place, pair in enumerate(pairs)}
    numbers = [-1 if pair is None else places[pair] for pair in each]
    return Spacings(pairs=pairs, of=pack_numbers(np.array(numbers, dtype=np.int64)))


def groups_in(pack: Pack, name: str, origin: str) -> Tensor | None:
    """Which samples of a part belong together, where the pack says so. Raises DataError where that is damaged."""
    if pack.groups is None or name not in pack.groups:
        return None
    try:
        return torch.from_numpy(unpack_numbers(pack.groups[name], pack.parts[name].samples))
    except ValueError as error:
        raise DataError(f"The groups of {origin} are damaged: {error}.") from None


def questions_in(pack: Pack, origin: str) -> Tensor | None:
    """What each value of masks says of each question: int8 [256, Q]; None where there are none.

    Raises DataError where that is damaged.
    """
    if pack.questions is None:
        return None
    if [question.name for question in pack.questions] != pack.classes or pack.meaning is None:
        raise DataError(f"The questions of {origin} are damaged: they are not its classes.")
    table = torch.full((VALUES, len(pack.questions)), UNKNOWN, dtype=torch.int8)
    for column, question in enumerate(pack.questions):
        table[question.yes, column], table[question.no, column] = 1, 0
    return table


def spacings_in(pack: Pack, name: str, origin: str) -> list[tuple[float, float] | None] | None:
    """Of each sample of a part, where the pack says so. Raises DataError where that is damaged."""
    if pack.spacings is None or name not in pack.spacings:
        return None
    kept = pack.spacings[name]
    try:
        places = unpack_numbers(kept.of, pack.parts[name].samples)
    except ValueError as error:
        raise DataError(f"The spacings of {origin} are damaged: {error}.") from None
    if len(places) and not -1 <= int(places.min()) <= int(places.max()) < len(kept.pairs):
        raise DataError(f"The spacings of {origin} are damaged: there are {len(kept.pairs)}.")
    every = [*kept.pairs, None]  # which -1 finds
    return [every[place] for place in places.tolist()]
