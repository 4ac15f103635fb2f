"""Which classes a student takes for which others, and where it and its teacher part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.epochs import Batch
from counterpoise.errors import CounterpoiseError
from counterpoise.pages.report.findings import risk
from counterpoise.pages.report.findings.base import STUDENT, TEACHER, Gathering
from counterpoise.pages.report.pictures import photo
from counterpoise.tasks.classification import probabilities_of

CONFUSIONS, EACH = 12, 4
"""Confusions that are shown, and pictures of each."""
EXAMPLES = 12
"""Pictures of each square of agreement."""
Answers = NDArray[np.int64]


class Classification(Gathering):
    """Keeps each image's label, and each model's answer and its probability, as `predict` gives it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.parts: dict[str, list[Tensor]] = defaultdict(list)
        self.given: dict[str, bool] = {}  # whether a model answers probabilities itself

    def update(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        found = {"index": batch.indices, "label": batch.target.cpu()}
        for name, values in logits.items():
            model = self.models[name]
            if name not in self.given:
                self.given[name] = model.answers_probabilities(batch.shown)
            chances = probabilities_of(model, values, self.given[name])
            found[f"{name} confidence"], found[f"{name} answer"] = chances.amax(1), values.argmax(1)
        for name, values in found.items():
            self.parts[name].append(values)

    def result(self) -> dict[str, Any]:
        columns = {name: torch.cat(values).numpy() for name, values in self.parts.items()}
        known = columns["label"] >= 0
        self.columns = {name: values[known] for name, values in columns.items()}
        if not len(self.columns["label"]):
            return {"labeled": 0}
        return {
            "labeled": len(self.columns["label"]),
            "top1": {name: 100 * float(self._right(name).mean()) for name in self.models},
            "confusions": self._confusions(),
            "per_class": self._per_class(),
            "squares": self._squares() if TEACHER in self.models else [],
            "risk": {name: self._risk(name) for name in (STUDENT, TEACHER) if name in self.models},
        }

    def _answers(self, name: str) -> Answers:
        return self.columns[f"{name} answer"]

    def _right(self, name: str) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self._answers(name) == self.columns["label"]
        return right

    def _risk(self, name: str) -> dict[str, Any]:
        """The curve of risk against coverage, and what has become of a promise."""
        sure, right, promise = self.columns[f"{name} confidence"], self._right(name), self.models[name].promise
        promised = None if promise is None else risk.kept(sure, right, promise)
        return {**risk.curve(sure, right), "promise": promised}

    def _confusions(self) -> list[dict[str, Any]]:
        """The commonest mistakes (truth, answer), each with the pictures about which the student was surest."""
        label, answer = self.columns["label"], self._answers(STUDENT)
        count = len(self.classes)
        codes = label * count + answer
        wrong = label != answer
        kinds, numbers = np.unique(codes[wrong], return_counts=True)
        teachers = self._answers(TEACHER) if TEACHER in self.models else None
        order = np.lexsort((kinds, -numbers))[:CONFUSIONS]
        found = []
        for code, times in zip(kinds[order].tolist(), numbers[order].tolist(), strict=True):
            truth, taken = divmod(code, count)
            where = np.flatnonzero(codes == code)
            surest = where[np.argsort(-self.columns[f"{STUDENT} confidence"][where], kind="stable")][:EACH]
            found.append(
                {
                    "truth": self.classes[truth],
                    "answer": self.classes[taken],
                    "count": times,
                    "share": 100 * times / int((label == truth).sum()),
                    "teacher": None if teachers is None else int(((label == truth) & (teachers == taken)).sum()),
                    "pictures": self._pictures(surest),
                }
            )
        return found

    def _per_class(self) -> list[dict[str, Any]]:
        """By class, the worst of the student first."""
        count = len(self.classes)
        label = self.columns["label"]
        images = np.bincount(label, minlength=count)
        hits = {name: np.bincount(label[self._right(name)], minlength=count) for name in self.models}
        answered = np.bincount(self._answers(STUDENT), minlength=count)
        rows = []
        for index in np.flatnonzero(images + answered):
            rows.append(
                {
                    "class": self.classes[index],
                    "images": int(images[index]),
                    "precision": _percent(hits[STUDENT][index], answered[index]),
                    "f1": _percent(2 * hits[STUDENT][index], images[index] + answered[index]),
                    "recall": {name: _percent(hits[name][index], images[index]) for name in self.models},
                }
            )
        return sorted(rows, key=lambda row: (row["recall"][STUDENT] is None, row["recall"][STUDENT]))

    def _squares(self) -> list[dict[str, Any]]:
        """Who is right: both, only the teacher, only the student, neither; pictures evenly from all there are."""
        student, teacher = self._right(STUDENT), self._right(TEACHER)
        squares = {
            "both": student & teacher,
            "teacher": ~student & teacher,
            "student": student & ~teacher,
            "neither": ~student & ~teacher,
        }
        found = []
        for name, mask in squares.items():
            where = np.flatnonzero(mask)
            count = min(EXAMPLES, len(where))
            shown = where[np.linspace(0, len(where) - 1, count).round().astype(int)] if count else where
            row = {"name": name, "count": len(where), "share": 100 * len(where) / len(mask)}
            found.append({**row, "pictures": self._pictures(shown)})
        return found

    def _pictures(self, where: NDArray[np.int64]) -> list[dict[str, Any]]:
        return [picture for row in where if (picture := self._picture(int(row))) is not None]

    def _picture(self, row: int) -> dict[str, Any] | None:
        index = int(self.columns["index"][row])
        try:
            shown = photo(self.images.read(index))
        except CounterpoiseError:  # it could be read a minute ago
            return None
        said = {
            name: {
                "class": self.classes[self._answers(name)[row]],
                "probability": float(self.columns[f"{name} confidence"][row]),
                "right": bool(self._right(name)[row]),
            }
            for name in (STUDENT, TEACHER)
            if name in self.models
        }
        truth = self.classes[self.columns["label"][row]]
        return {**shown, "name": Path(self.images.name(index)).name, "truth": truth, **said}


def _percent(part: np.int64, whole: np.int64) -> float | None:
    return float(100 * part / whole) if whole else None
