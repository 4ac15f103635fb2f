"""How well masks of one class a pixel are answered, over all pixels of all pictures together, and by case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import DataError
from counterpoise.tasks.base import Report, Score
from counterpoise.tasks.confusion import by_class, confusion_matrix, upsample
from counterpoise.tasks.scores.base import Seen
from counterpoise.tasks.scores.cases import Counts
from counterpoise.tasks.scores.chosen import kinds_of
from counterpoise.tasks.surety import SurePixels

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.models.promise import ScenePromise
    from counterpoise.tasks.sliding import InPieces


class MaskScore(Score):
    """Mean intersection over union, mean Dice and pixel accuracy, in percent.

    `state` is the confusion matrix, flattened.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.state = torch.zeros(num_classes * num_classes, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        found = confusion_matrix(logits, target).flatten()
        self.state = self.state.to(found.device) + found

    def matrix(self) -> Tensor:
        """The confusion matrix, float64 [C, C] on the CPU."""
        return self.state.view(self.num_classes, self.num_classes).cpu()

    def cells(self) -> Tensor:
        matrix = self.matrix()
        return torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)], 1)

    def values(self) -> dict[str, float]:
        matrix = self.matrix()
        if not matrix.any():
            return {}
        columns = by_class(matrix)
        return {
            "miou": _mean_percent(columns["iou"]),
            "dice": _mean_percent(columns["dice"]),
            "pixel_accuracy": 100 * (matrix.diagonal().sum() / matrix.sum()).item(),
        }


class SegmentationReport(Report):
    """mIoU, Dice, pixel and mean class accuracy in percent, a table by class, and the confusion matrix.

    All follow from one matrix of counts over all pixels of all images. A class that is neither in the masks nor in the
    answers counts in no mean, and has None in its row; `absent` names the classes that are not in the masks.

    `by_case` and `cases` are the scores by case, see tasks/scores. Of a student with a promise also the share of pixels
    that it answers, the mean over scenes of the share of these that is wrong, and in the table how much of each class
    is left unanswered; all other scores are of what it would answer.

    Args:
        images: the set that is evaluated, for which pictures are of one case.
        scores: names of those beyond overlap.
        promise: the student's.
    """

    def __init__(
        self,
        classes: Sequence[str],
        images: ImageSet | None = None,
        scores: Sequence[str] = (),
        promise: ScenePromise | None = None,
    ) -> None:
        self.classes = list(classes)
        self.score = MaskScore(len(classes))
        self.counts = Counts(kinds_of(scores, len(classes)), classes, images)
        self.images = 0
        self.sure = None if promise is None else SurePixels(promise, len(classes))

    def coming(self, indices: Tensor) -> None:
        self.counts.coming(indices)

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.score.state = self.score.state + self.counts.update(logits, target).flatten()
        self.images += int(((target != IGNORE) & (target >= 0)).flatten(1).any(1).sum())
        if self.sure is not None:
            for own, truth in zip(logits, target, strict=True):
                self.sure.begin()
                self.sure.add(upsample(own[None], (truth.shape[0], truth.shape[1]))[0], truth)

    def update_pieces(self, scene: InPieces) -> None:
        matrix, known = torch.zeros(len(self.classes), len(self.classes), dtype=torch.float64), False

        if self.sure is not None:
            self.sure.begin()

        def add(seen: Seen) -> None:
            nonlocal known
            matrix.add_(seen.matrix)
            if self.sure is not None:
                self.sure.add(seen.full, seen.truth)
            known = known or bool(seen.known.any())

        self.counts.count_pieces(scene, add)
        self.score.state = self.score.state + matrix.flatten()
        self.images += known

    def values(self) -> dict[str, Any]:
        """Raises DataError where all masks together hold one class of several."""
        if not self.images:
            return {"images": 0}
        matrix = self.score.matrix()
        columns = by_class(matrix)
        absent = [name for name, pixels in zip(self.classes, matrix.sum(1).tolist(), strict=True) if not pixels]
        if len(absent) == len(self.classes) - 1 > 0:
            left = next(name for name in self.classes if name not in absent)
            raise DataError(
                f"The masks hold no class but '{left}': a score over one class is 100 whatever is answered. Evaluate "
                "on masks that hold more; if data.options.ignore makes void what is a class, take it away."
            )
        return {
            **self.score.values(),
            "mean_class_accuracy": _mean_percent(columns["recall"]),
            **({} if self.sure is None else self.sure.values(self.counts.owners())),
            "images": self.images,
            "absent": absent,
            "per_class": [
                {
                    "class": name,
                    **{key: _percent(column[index]) for key, column in columns.items()},
                    **({} if self.sure is None else {"unsure": self.sure.unsure(index)}),
                    "pixels": int(matrix[index].sum()),
                }
                for index, name in enumerate(self.classes)
            ],
            "confusion_matrix": matrix.long().tolist(),
            "by_case": self.counts.told(),
            "cases": self.counts.listed(),
        }


def _mean_percent(shares: Tensor) -> float:
    return 100 * shares.nanmean().item()


def _percent(share: Tensor) -> float | None:
    return None if share.isnan() else 100 * share.item()
