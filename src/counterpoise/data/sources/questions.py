"""Masks that answer several questions a pixel: is this vessel, is this disc. Structures may overlap, or be one alone.

Masks stay what they are, one value a pixel; a table says what each value means for each question.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet
from counterpoise.errors import ConfigError, CorruptImage, nearest

UNKNOWN = -1
VALUES = 256
"""That a mask may hold."""


def asked(images: ImageSet, questions: Mapping[str, Sequence[str]]) -> ImageSet:
    """The same scenes, in which each question is answered by yes where a pixel is of one of its classes.

    Raises ConfigError for images without masks, names that are no class, and scenes that have questions already.
    """
    if not images.masked:
        raise ConfigError("data.questions are asked of masks, and the data holds none: see source masks_folder.")
    if images.questions is not None:
        raise ConfigError(
            f"data.questions: these masks answer questions already ({', '.join(images.classes)}): leave it out."
        )
    table = torch.full((VALUES, len(questions)), UNKNOWN, dtype=torch.int8)
    table[: len(images.classes)] = 0
    for column, (name, classes) in enumerate(questions.items()):
        for one in classes:
            if one not in images.classes:
                raise ConfigError(
                    f"data.questions.{name}: '{one}' is no class of the masks.{nearest(one, images.classes)} They have "
                    f"{', '.join(images.classes[:20])}; a class that is void counts nowhere."
                )
            table[images.classes.index(one), column] = 1
        if bool((table[: len(images.classes), column] == 1).all()):
            raise ConfigError(f"data.questions.{name} has all classes of the masks: its answer is always yes.")
    return _with(images, tuple(questions), table)


def _with(images: ImageSet, names: tuple[str, ...], table: Tensor) -> ImageSet:
    other = copy.copy(images)
    other.__dict__.pop("_fingerprint", None)
    other.classes, other.questions, other.asked_of = names, table, images.classes
    if images.split_from is not None:
        other.split_from = _with(images.split_from, names, table)
    return other


def answers_of(table: Tensor, masks: Tensor) -> Tensor:
    """What masks (whole numbers [..., H, W]) say of each question: int8 [..., Q, H, W] of 1, 0 and -1 (unknown)."""
    found: Tensor = table.to(masks.device)[masks.long()]
    return found.movedim(-1, masks.ndim - 2).contiguous()


def of_void(answers: Tensor) -> Tensor:
    """Masks int64 [..., H, W] that are `IGNORE` where no question is known, and 0 elsewhere."""
    return torch.where((answers < 0).all(-3), IGNORE, 0)


def counts(images: ImageSet) -> tuple[Tensor, Tensor]:
    """How many pixels are a yes of each question, and a no: int64 [Q] each. Reads every mask that can be read."""
    assert images.questions is not None
    pixels = torch.zeros(VALUES, dtype=torch.int64)
    for index in torch.nonzero(images.labels != UNLABELED).flatten().tolist():
        try:
            pixels += torch.bincount(images.read_mask(index).flatten(), minlength=VALUES)
        except CorruptImage:  # said, or left out, where it is trained on
            continue
    return by_question(images.questions, pixels)


def by_question(table: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The yes and the no of each question [Q], from how many pixels have each value [256]."""
    yes, no = (pixels @ (table == answer).to(pixels.dtype) for answer in (1, 0))
    return yes, no
