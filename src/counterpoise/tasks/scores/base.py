"""What a score of masks is: counts of one picture that add up, and what follows from them for a picture, a case or all.

One convention holds for all of them. Where a class is neither in the truth nor in the answer, and where a share would
be of nothing, there is no score: NaN, which no mean counts. Where it is in one of them alone, the score is the worst
there is: 0%, or of distances the diagonal of the picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.system.registry import Registry
from counterpoise.tasks.confusion import confusion_matrix, largest_class, upsample

BACKGROUND = ("background", "_background_", "bg")
"""Names, in small letters, of classes that are what is no object."""


class Seen:
    """One picture: what a network answers, and what is true.

    Args:
        logits: [C, h, w] at any resolution.
        truth: [H, W] of classes; 255 and what is negative is void, which is neither true nor answered.
        spacing: millimeters from one row to the next and from one column to the next; None: not known.
    """

    def __init__(self, logits: Tensor, truth: Tensor, spacing: tuple[float, float] | None = None) -> None:
        self.logits, self.truth, self.spacing = logits, truth, spacing
        self.classes = len(logits)

    @cached_property
    def matrix(self) -> Tensor:
        """The confusion matrix, float64 [C, C] on the CPU."""
        return confusion_matrix(self.logits[None], self.truth[None]).cpu()

    @cached_property
    def cells(self) -> Tensor:
        """Of each class the pixels that are hit, true, answered, and known: float64 [C, 4]."""
        known = self.matrix.sum().expand(self.classes)
        return torch.stack([self.matrix.diagonal(), self.matrix.sum(1), self.matrix.sum(0), known], 1)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Where the truth is known, [H, W]."""
        truth = self.truth.cpu().numpy()
        known: NDArray[np.bool_] = (truth != IGNORE) & (truth >= 0)
        return known

    @cached_property
    def full(self) -> Tensor:
        """The logits at the size of the truth, float32 [C, H, W]."""
        return upsample(self.logits[None], (self.truth.shape[0], self.truth.shape[1]))[0]

    @cached_property
    def answer(self) -> NDArray[Any]:
        """The answered classes, [H, W]."""
        found: NDArray[np.int64] = largest_class(self.full, 0).cpu().numpy()
        return found

    def masks(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where a class is true, and where it is answered, [H, W] each; void is neither."""
        truth: NDArray[np.bool_] = self.truth.cpu().numpy() == number
        return truth & self.known, (self.answer == number) & self.known

    def ranked(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """How much rather each pixel [H, W] is taken for the second of two classes than for the first; whether it is of
        this one; and whether that is known."""
        truth = self.truth.cpu()
        return (self.full[1] - self.full[0]).cpu(), truth == number, torch.from_numpy(self.known)


class Kind(ABC):
    """Scores that follow from the same counts."""

    scores: ClassVar[Mapping[str, str]]
    """What each of them is, by name."""
    width: ClassVar[int]
    """Counts of a class."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `medical` that count them."""
    lower: ClassVar[frozenset[str]] = frozenset()
    """Those of which less is better; they are no percentages."""
    of_objects: ClassVar[bool] = True
    """Whether means leave out a class that is called background."""
    needs: ClassVar[Literal["pixels", "masks", "logits"]] = "logits"
    """What counts need of a picture: each pixel by itself, so that the counts of its parts add up; truth and answer
    whole; or all logits. Of a large picture no more than that is held."""
    two_classes: ClassVar[bool] = False
    """Whether they are for two classes alone, and ask about the second."""

    @abstractmethod
    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        """The counts of these classes in one picture, float64 [len(classes), width]."""

    @abstractmethod
    def values(self, counts: Tensor) -> dict[str, Tensor]:
        """The scores by name, [...], of counts [..., width], whichever pictures they are the sum of."""


KINDS: Registry[Kind] = Registry("Kind of scores", "counterpoise.tasks.scores", "counterpoise.scores")


def all_scores() -> dict[str, Kind]:
    """Each score's kind, by the name of the score."""
    return {name: kind for kind in KINDS.entries().values() for name in kind.scores}


def share(part: Tensor, whole: Tensor) -> Tensor:
    """Percent, NaN of nothing."""
    return 100 * torch.where(whole > 0, part / whole, torch.nan)
