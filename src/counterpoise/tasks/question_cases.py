"""Scores of questions by case while training: from histograms of pictures, at thresholds that all of them suggest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import ConfigError, unknown
from counterpoise.tasks.base import Score, Verdict
from counterpoise.tasks.question_metrics import FIRST, STEP, TWO, QuestionScore, histogram
from counterpoise.tasks.scores.base import all_scores
from counterpoise.tasks.scores.chosen import kinds_of
from counterpoise.tasks.scores.metrics import metric
from counterpoise.tasks.scores.overlap import OVERLAP
from counterpoise.tasks.scores.questions import QuestionCounts
from counterpoise.tasks.scores.ranking import BINS, Ranking
from counterpoise.tasks.scores.table import as_csv

if TYPE_CHECKING:
    from counterpoise.tasks.sliding import InPieces


class CaseQuestionScore(Score):
    """The quick score as ever, and further metrics by name: overlap at the thresholds of this very set, and ranking.

    `state` is a row a picture: its index, and its histogram.

    Raises:
        ConfigError: a metric that is none, is of a question that is none, or needs masks and not their counts.
    """

    joined = True

    def __init__(self, questions: Sequence[str], images: ImageSet | None, names: Sequence[str]) -> None:
        self.questions, self.images = list(questions), images
        self.metrics = [metric(name, QuestionScore.metrics) for name in names]
        self.kinds = kinds_of([one.score for one in self.metrics], TWO)
        for one in self.metrics:
            if not (all_scores()[one.score] is OVERLAP or isinstance(all_scores()[one.score], Ranking)):
                raise ConfigError(
                    f"{one.name}: while questions are trained they have scores of overlap and ranking alone; "
                    f"counterpoise evaluate --scores {one.score} has it for a student."
                )
            if one.label is not None and one.label not in self.questions:
                raise ConfigError(f"{one.name}: {unknown('Question', one.label, self.questions)}")
        self.rows: list[Tensor] = []
        self.next: list[int] = []

    @property
    def state(self) -> Tensor:
        width = 1 + len(self.questions) * 2 * BINS
        return torch.stack(self.rows) if self.rows else torch.zeros(0, width, dtype=torch.float64)

    @state.setter
    def state(self, state: Tensor) -> None:
        self.rows = [*state[state[:, 0].argsort(stable=True)]]  # of several processes, each has some

    def coming(self, indices: Tensor) -> None:
        self.next = indices.tolist()

    def update(self, logits: Tensor, target: Tensor) -> None:
        indices = self.next or [len(self.rows) + row for row in range(len(logits))]
        self.next = []
        for index, one, truth in zip(indices, logits, target, strict=True):
            found = histogram(one[None], truth[None]).cpu().flatten()
            self.rows.append(torch.cat([found.new_tensor([float(index)]), found]))

    def update_pieces(self, scene: InPieces) -> None:
        index = self.next[0] if self.next else len(self.rows)
        self.next = []
        found = torch.zeros(len(self.questions) * 2 * BINS, dtype=torch.float64)
        for piece in scene.pieces:
            found += histogram(piece.logits[None], scene.truth(piece.rows, piece.columns)).cpu().flatten()
        self.rows.append(torch.cat([found.new_tensor([float(index)]), found]))

    def together(self) -> QuestionScore:
        """The quick score of all pictures."""
        score = QuestionScore(len(self.questions))
        score.state = self.state[:, 1:].sum(0)
        return score

    def counts(self) -> QuestionCounts:
        """Those of each picture, at the thresholds that all pictures suggest."""
        thresholds = self.thresholds()
        found = QuestionCounts(self.kinds, self.questions, thresholds, self.images)
        first = ((torch.tensor(thresholds, dtype=torch.float64).logit() - FIRST) / STEP).round()
        taken = torch.arange(BINS) >= first[:, None]
        for row in self.rows:
            both = row[1:].view(len(self.questions), 2, BINS)
            no, yes = both.unbind(1)
            cells = torch.stack([(yes * taken).sum(1), yes.sum(1), ((no + yes) * taken).sum(1), both.sum((1, 2))], 1)
            ranked = [both.flatten() for kind in self.kinds if kind is not OVERLAP]
            found.rows.append(torch.cat([row[:1], cells.flatten(), *ranked]))
        return found

    def values(self) -> dict[str, float]:
        if not (known := self.together().values()):
            return {}
        counts = self.counts()
        further = {one.name: one.told(counts) for one in self.metrics}
        return {**known, **{name: value for name, value in further.items() if value is not None}}

    def cases(self) -> str:
        return as_csv(self.counts().listed())

    def thresholds(self) -> list[float]:
        return self.together().thresholds()

    def verdict(self) -> Verdict:
        return self.together().verdict()
