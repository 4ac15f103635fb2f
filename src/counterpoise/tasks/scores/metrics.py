"""Scores as metrics of a run: `dice` of all pictures together, `case_dice` over cases, `dice:vessel` of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from counterpoise.errors import ConfigError, unknown
from counterpoise.tasks.base import Score
from counterpoise.tasks.confusion import shares
from counterpoise.tasks.scores.base import all_scores
from counterpoise.tasks.scores.cases import Counts, mean_of
from counterpoise.tasks.scores.chosen import kinds_of
from counterpoise.tasks.scores.overlap import OVERLAP
from counterpoise.tasks.scores.table import as_csv

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.tasks.sliding import InPieces

CASE = "case_"


class Metric(NamedTuple):
    """A score, over cases or of all pictures together, of one class or as the mean over classes (None)."""

    name: str
    score: str
    over_cases: bool
    label: str | None

    @property
    def less_is_better(self) -> bool:
        """Whether the best is the smallest."""
        return self.score in all_scores()[self.score].lower

    def told(self, counts: Counts) -> float | None:
        """Its value; None where there is none."""
        kind = all_scores()[self.score]
        if self.label is None and not self.over_cases:
            return counts.pooled(kind)[self.score]
        of = counts.counted(kind) if self.label is None else [counts.classes.index(self.label)]
        if self.over_cases:
            each = torch.stack([part.values[self.score][of].nanmean() for part in counts.cases()])
            return mean_of(each)
        return mean_of(counts.all()[self.score][of])


def metric(name: str, usual: Sequence[str] = ()) -> Metric:
    """The metric of this name, which is none of the usual ones. Raises ConfigError where there is no such score."""
    score, colon, label = name.partition(":")
    known = all_scores()
    over_cases = score.startswith(CASE)
    score = score.removeprefix(CASE)
    if score not in known:
        raise ConfigError(unknown("Metric of segmentation", name, [*usual, *known, *(f"{CASE}{one}" for one in known)]))
    return Metric(name, score, over_cases, label if colon else None)


class CaseScore(Score):
    """Mean intersection over union, mean Dice and pixel accuracy as ever, and further metrics by name.

    `state` is a row a picture: its index, and its counts.

    Raises:
        ConfigError: a metric that is none, or of a class that is none, or of two classes where there are more.
        MissingExtraError: what counts it is not installed.
    """

    joined = True

    def __init__(self, classes: Sequence[str], images: ImageSet | None, names: Sequence[str]) -> None:
        self.metrics = [metric(name) for name in names]
        self.counts = Counts(kinds_of([one.score for one in self.metrics], len(classes)), classes, images)
        for one in self.metrics:
            counted = [classes[number] for number in self.counts.counted(all_scores()[one.score])]
            if one.label is not None and one.label not in counted:
                raise ConfigError(f"{one.name}: {unknown('Class', one.label, counted)}")

    @property
    def state(self) -> Tensor:
        return self.counts.state

    @state.setter
    def state(self, state: Tensor) -> None:
        self.counts.state = state

    def coming(self, indices: Tensor) -> None:
        self.counts.coming(indices)

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.counts.update(logits, target)

    def update_pieces(self, scene: InPieces) -> None:
        self.counts.count_pieces(scene)

    def cases(self) -> str:
        return as_csv(self.counts.listed())

    def cells(self) -> Tensor:
        return self.counts.counts(OVERLAP).sum(0)[..., :3]

    def values(self) -> dict[str, float]:
        hit, truth, answered, known = self.counts.counts(OVERLAP).sum(0).unbind(-1)
        if not known.any():
            return {}
        columns = shares(hit, truth, answered)
        further = {one.name: one.told(self.counts) for one in self.metrics}
        return {
            "miou": 100 * columns["iou"].nanmean().item(),
            "dice": 100 * columns["dice"].nanmean().item(),
            "pixel_accuracy": 100 * (hit.sum() / known[0]).item(),
            **{name: value for name, value in further.items() if value is not None},
        }
