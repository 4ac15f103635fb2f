"""How well a student answers questions about pixels, and where it errs: on worst, middling and best pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from counterpoise import tasks
from counterpoise.data.epochs import Batch
from counterpoise.data.sources.questions import answers_of
from counterpoise.errors import CounterpoiseError
from counterpoise.pages.report.findings.base import STUDENT, TEACHER
from counterpoise.pages.report.findings.cases import cases
from counterpoise.pages.report.findings.segmentation import UNKNOWN, WRONG_ALONE, WRONG_BOTH, Segmentation
from counterpoise.pages.report.pictures import SCENE, flat, photo
from counterpoise.tasks.label_metrics import auroc, average_precision
from counterpoise.tasks.overlays import mixed, palette
from counterpoise.tasks.question_metrics import EVEN, QuestionScore, curves_of, percent
from counterpoise.tasks.scores.cases import mean_of
from counterpoise.tasks.scores.overlap import OVERLAP
from counterpoise.tasks.scores.questions import QuestionCounts


class MultilabelSegmentation(Segmentation):
    """Keeps a histogram of logits for each model, and of each image how many pixels are told rightly."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.thresholds = {
            name: list(model.thresholds or [EVEN] * len(self.classes)) for name, model in self.models.items()
        }
        self.counted = {name: QuestionScore(len(self.classes)) for name in self.models}
        self.counts = {
            name: QuestionCounts([OVERLAP], self.classes, self.thresholds[name], self.images) for name in self.models
        }

    def update(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        answers = batch.target.cpu()
        for name, values in logits.items():
            self.counted[name].update(values, answers)
            self.counts[name].coming(batch.indices)
            self.counts[name].count(values, answers)

    def result(self) -> dict[str, Any]:
        curves = {name: curves_of(each.counts()) for name, each in self.counted.items()}
        there = curves[STUDENT].there
        if not (there + curves[STUDENT].absent).any():
            return {"labeled": 0}
        self.indices = self.counts[STUDENT].indices()
        self.scores = {
            name: [float(part.values["dice"].nanmean()) for part in counts.pictures()]
            for name, counts in self.counts.items()
        }
        self.columns = {name: each.all() for name, each in self.counts.items()}
        self.precisions = {name: average_precision(each) for name, each in curves.items()}
        self.areas = {name: auroc(each) for name, each in curves.items()}
        return {
            "labeled": len(self.indices),
            "cases": cases(self.counts),
            "map": {name: percent(each.nanmean()) for name, each in self.precisions.items()},
            "dice": {name: mean_of(each["dice"][there > 0]) for name, each in self.columns.items()},
            "absent": [name for name, pixels in zip(self.classes, there.tolist(), strict=True) if not pixels],
            "per_class": self._rows(there, there + curves[STUDENT].absent),
            "scenes": self._scenes(),
            "colors": self._legend(),
        }

    def _rows(self, there: Tensor, every: Tensor) -> list[dict[str, Any]]:
        """By question, the worst of the student first."""
        own = self.columns[STUDENT]
        rows = []
        for index, name in enumerate(self.classes):
            row: dict[str, Any] = {
                "class": name,
                "share": percent(there[index] / every[index]),
                "threshold": self.thresholds[STUDENT][index],
                "precision": mean_of(own["precision"][index]),
                "recall": mean_of(own["recall"][index]),
            }
            for key, columns in (("average_precision", self.precisions), ("areas", self.areas)):
                row[key] = {model: percent(each[index]) for model, each in columns.items()}
            for key in ("dice", "iou"):
                row[key] = {model: mean_of(each[key][index]) for model, each in self.columns.items()}
            rows.append(row)
        worst: Any = lambda row: (row["dice"][STUDENT] is None, row["dice"][STUDENT])  # noqa: E731
        return sorted(rows, key=worst)

    def _scene(self, number: int) -> dict[str, Any] | None:
        index, table = self.indices[number], self.images.questions
        assert table is not None
        try:
            image, truth = self.images.read(index), answers_of(table, self.images.read_mask(index)).numpy()
        except CounterpoiseError:  # it could be read a minute ago
            return None
        task: Any = tasks.get(self.models[STUDENT].task)
        masks = {
            name: task.answer_of(model, image)[0].numpy()
            for name, model in self.models.items()
            if name in (STUDENT, TEACHER)
        }
        layers = {"truth": flat(_painted(truth))}
        layers |= {name: flat(_painted(mask.astype(np.int8))) for name, mask in reversed(masks.items())}
        layers["difference"] = flat(_difference(truth, masks[STUDENT], masks.get(TEACHER)))
        scores = {name: self.scores[name][number] for name in masks}
        return {
            "name": Path(self.images.name(index)).name,
            "dice": {name: value if value == value else None for name, value in scores.items()},
            "image": photo(image, SCENE),
            "layers": layers,
        }

    def _legend(self) -> list[dict[str, str]]:
        colors = palette()[1:]
        return [
            {"class": name, "color": "#{:02x}{:02x}{:02x}".format(*colors[index])}
            for index, name in enumerate(self.classes)
        ]


def _painted(answers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Answers [Q, H, W] in their colors; what is unknown is transparent."""
    opaque = np.where((answers < 0).all(0), 0, 255).astype(np.uint8)
    return np.dstack([mixed(answers), opaque])


def _difference(
    truth: NDArray[np.int8], student: NDArray[np.bool_], teacher: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Where the student errs in any question, and whether its teacher does, too."""
    shades = np.zeros((*truth.shape[1:], 4), dtype=np.uint8)
    wrong = ((student != (truth > 0)) & (truth >= 0)).any(0)
    shades[wrong] = WRONG_ALONE
    if teacher is not None:
        shades[wrong & ((teacher != (truth > 0)) & (truth >= 0)).any(0)] = WRONG_BOTH
    shades[(truth < 0).all(0)] = UNKNOWN
    return shades
