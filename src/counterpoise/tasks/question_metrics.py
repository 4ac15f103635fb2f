"""How well questions are answered, pixel by pixel: overlap at a threshold, and what no threshold is needed for.

All of it follows from one histogram of logits for each question, which adds up over batches and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import DataError
from counterpoise.system.machine import as_double
from counterpoise.tasks.base import Report, Score, Verdict
from counterpoise.tasks.confusion import VALUES_AT_ONCE, check_dense, upsample
from counterpoise.tasks.label_metrics import Curves, auroc, average_precision, best_thresholds, verdict_of
from counterpoise.tasks.scores.chosen import kinds_of
from counterpoise.tasks.scores.overlap import OVERLAP
from counterpoise.tasks.scores.questions import QuestionCounts
from counterpoise.tasks.scores.ranking import BINS, RANGE

if TYPE_CHECKING:
    from counterpoise.tasks.scores.base import Seen
    from counterpoise.tasks.sliding import InPieces

EVEN = 0.5
"""The threshold of a question that nobody has chosen one for, or that no held-out pixel is a yes of."""
FIRST, STEP = -RANGE, 2 * RANGE / BINS
"""Where the bins of logits begin, and how wide they are; what lies beyond is in the first or in the last."""
ALIKE = 100
"""Pixels that tell as much as one that is independent of all others."""
OVERLAPS = ("dice", "iou", "precision", "recall")
"""Scores of overlap that a report has beside those by case."""
TWO = 2
"""Answers to a question, so that scores of two classes are for each."""


def histogram(logits: Tensor, answers: Tensor) -> Tensor:
    """How many pixels are a no and a yes by their logit: float64 [Q, 2, BINS], no first.

    Args:
        logits: [N, Q, h, w], upsampled here, a few images at a time.
        answers: int8 [N, Q, H, W] of 1, 0 and -1 (unknown, not counted).

    Raises:
        ModelError, DataError: shapes that do not fit.
    """
    check_dense(logits)
    if answers.ndim != 4 or answers.shape[:2] != logits.shape[:2]:
        raise DataError(f"Answers must be [{len(logits)}, {logits.shape[1]}, H, W], got {list(answers.shape)}.")
    questions, size = answers.shape[1], (answers.shape[2], answers.shape[3])
    counts = torch.zeros(questions * 2 * BINS, dtype=torch.int64, device=logits.device)
    row = torch.arange(questions, device=logits.device).view(1, -1, 1, 1)
    at_once = max(1, VALUES_AT_ONCE // (questions * size[0] * size[1]))
    for part, truth in zip(torch.split(logits, at_once), torch.split(answers.to(logits.device), at_once), strict=True):
        # divided first, which is exact: logits just below an edge must not be rounded up to it
        places = ((upsample(part, size).nan_to_num(0.0) / STEP).floor() - FIRST / STEP).clamp(0, BINS - 1).long()
        cells = (2 * row + (truth > 0)) * BINS + places
        counts += torch.bincount(cells[truth >= 0], minlength=len(counts))
    return as_double(counts).view(questions, 2, BINS)


def curves_of(counts: Tensor) -> Curves:
    """A histogram [Q, 2, BINS] as curves: each bin is one score, the logit in its middle."""
    no, yes = counts.flip(2).permute(1, 2, 0)
    scores = FIRST + STEP * (torch.arange(BINS, dtype=torch.float64).flip(0) + 0.5)
    both = no + yes
    steps = (both > 0).double()
    return Curves(scores[:, None].expand_as(both), yes.cumsum(0), both.cumsum(0), steps, yes.sum(0), no.sum(0))


class QuestionScore(Score):
    """Mean average precision, and the mean of the highest Dice that any threshold gives, in percent.

    Over all pixels together; means over the questions that some pixel is a yes of. `state` is the histogram, flattened.
    """

    metrics: ClassVar[tuple[str, ...]] = ("map", "max_dice")

    def __init__(self, questions: int) -> None:
        self.questions = questions
        self.state = torch.zeros(questions * 2 * BINS, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        found = histogram(logits, target).flatten()
        self.state = self.state.to(found.device) + found

    def counts(self) -> Tensor:
        """The histogram, float64 [Q, 2, BINS] on the CPU."""
        return self.state.view(self.questions, 2, BINS).cpu()

    def values(self) -> dict[str, float]:
        found = curves_of(self.counts())
        if not found.there.any():
            return {}
        dice = best_thresholds(found)[1]  # F1 of pixels
        return {"map": 100 * average_precision(found).nanmean().item(), "max_dice": 100 * dice.nanmean().item()}

    def thresholds(self) -> list[float]:
        """The probability from which on each question is answered by yes: that of the highest Dice on what was counted,
        all pixels together; 0.5 where no pixel is a yes."""
        chosen, _ = best_thresholds(curves_of(self.counts()))
        chosen = chosen.masked_fill(chosen < FIRST + STEP, -torch.inf)  # all that there is, below the first bin, too
        values: list[float] = chosen.sigmoid().nan_to_num(EVEN).tolist()
        return values

    def verdict(self) -> Verdict:
        """By the mean AUROC, as for several labels a picture; neighboring pixels tell the same."""
        counts = self.counts()
        zero, one = int(-FIRST / STEP), int((1 - FIRST) / STEP)
        pixels = counts.sum((0, 1))
        # Answers of a network that has learned little may all lie there, too, but not from 0 on.
        wide = bool(pixels[zero : zero + 2].any() and pixels[(zero + one) // 2 : one + 1].any())
        soft = wide and bool(pixels.sum() == pixels[zero : one + 1].sum())
        return verdict_of(curves_of(counts), soft, ALIKE)


class QuestionReport(Report):
    """The overlap of each question at its threshold, over all pixels of all images, and the quick score's precision.

    Means are over the questions that some pixel is a yes of; `absent` names the others.

    `by_case` and `cases` are the scores by case, see tasks/scores.

    Args:
        thresholds: a probability for each question; None: 0.5.
        images: the set that is evaluated, for which pictures are of one case.
        scores: names of those beyond overlap.
    """

    def __init__(
        self,
        classes: Sequence[str],
        thresholds: Sequence[float] | None = None,
        images: ImageSet | None = None,
        scores: Sequence[str] = (),
    ) -> None:
        self.classes = list(classes)
        self.thresholds = [EVEN] * len(self.classes) if thresholds is None else list(thresholds)
        self.score = QuestionScore(len(self.classes))
        kinds = kinds_of(scores, TWO)
        self.counts = QuestionCounts(kinds, self.classes, self.thresholds, images)
        self.images = 0

    def coming(self, indices: Tensor) -> None:
        self.counts.coming(indices)

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.score.update(logits, target)
        self.counts.count(logits, target)
        self.images += int((target >= 0).flatten(1).any(1).sum())

    def update_pieces(self, scene: InPieces) -> None:
        known = False

        def add(seen: Seen) -> None:
            nonlocal known
            self.score.update(seen.logits[None], seen.truth[None])
            known = known or bool((seen.truth >= 0).any())

        self.counts.count_pieces(scene, add)
        self.images += known

    def values(self) -> dict[str, Any]:
        if not self.images:
            return {"images": 0}
        found = curves_of(self.score.counts())
        overlap = self.counts.all()
        columns = {name: overlap[name] / 100 for name in OVERLAPS}
        columns |= {"average_precision": average_precision(found), "auroc": auroc(found)}
        occurs = found.there > 0
        absent = [name for name, is_there in zip(self.classes, occurs.tolist(), strict=True) if not is_there]
        if len(absent) == len(self.classes):
            raise DataError(
                f"No pixel in the masks is a yes of {', '.join(absent[:8])}: there is nothing to score. Evaluate on "
                "masks that hold some."
            )
        means = self.counts.pooled(OVERLAP)
        precision = 100 * columns["average_precision"].nanmean().item()
        return {
            "map": precision,
            **{name: means[name] for name in OVERLAPS if means[name] is not None},
            "images": self.images,
            "absent": absent,
            "per_class": [
                {
                    "class": name,
                    **{key: percent(column[index]) for key, column in columns.items()},
                    "threshold": self.thresholds[index],
                    "pixels": int(found.there[index]),
                    "of": int(found.there[index] + found.absent[index]),
                }
                for index, name in enumerate(self.classes)
            ],
            "by_case": self.counts.told(),
            "cases": self.counts.listed(),
        }


def percent(share: Tensor) -> float | None:
    """None of nothing."""
    return None if share.isnan() else 100 * share.item()
