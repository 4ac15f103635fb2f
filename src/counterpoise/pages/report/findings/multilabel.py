"""Which labels a student misses, which it sees where they are not, and how it ranks pictures by each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.epochs import Batch
from counterpoise.data.labels import names
from counterpoise.errors import CounterpoiseError
from counterpoise.pages.report.findings.base import STUDENT, TEACHER, Gathering
from counterpoise.pages.report.pictures import photo
from counterpoise.tasks.label_metrics import auroc, average_precision, curves
from counterpoise.tasks.multilabel import EVEN, LabelReport

MISTAKES, EACH = 12, 4
"""Kinds of mistakes that are shown, and pictures of each."""


class Multilabel(Gathering):
    """Keeps each image's labels, and each model's logits."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.parts: dict[str, list[Tensor]] = defaultdict(list)
        chosen = self.models[STUDENT].thresholds
        self.thresholds = [EVEN] * len(self.classes) if chosen is None else list(chosen)

    def update(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        labels = batch.target.cpu() if batch.target.ndim == 2 else torch.full_like(logits[STUDENT].cpu(), -1)
        for name, values in {"index": batch.indices, "labels": labels, **logits}.items():
            self.parts[name].append(values.cpu())

    def result(self) -> dict[str, Any]:
        self.columns = {name: torch.cat(values) for name, values in self.parts.items()}
        labels = self.columns["labels"]
        labeled = int((labels >= 0).any(1).sum())
        if not labeled:
            return {"labeled": 0}
        found = {name: curves(self.columns[name], labels) for name in self.models}
        self.precisions = {name: average_precision(each) for name, each in found.items()}
        self.areas = {name: auroc(each) for name, each in found.items()}
        return {
            "labeled": labeled,
            "map": {name: _percent(each.nanmean()) for name, each in self.precisions.items()},
            "mistakes": self._mistakes(),
            "per_class": self._per_class(),
        }

    def _mistakes(self) -> list[dict[str, Any]]:
        """The commonest ones: labels that are there and not answered, or answered and not there."""
        labels, student = self.columns["labels"], self.columns[STUDENT].sigmoid()
        yes = student >= torch.tensor(self.thresholds)
        teacher = self.columns[TEACHER].sigmoid() >= EVEN if TEACHER in self.models else None
        kinds = []
        for kind, wrong, among in (
            ("missed", (labels > 0) & ~yes, labels > 0),
            ("added", (labels == 0) & yes, labels == 0),
        ):
            counts = wrong.sum(0).tolist()
            kinds += [(-count, label, kind, wrong, among) for label, count in enumerate(counts) if count]
        found = []
        for count, label, kind, wrong, among in sorted(kinds, key=lambda row: row[:3])[:MISTAKES]:
            where = torch.nonzero(wrong[:, label]).flatten()
            order = student[where, label].argsort(descending=kind == "added", stable=True)
            alike = None if teacher is None else int((teacher[where, label] == (kind == "added")).sum())
            found.append(
                {
                    "label": self.classes[label],
                    "kind": kind,
                    "count": -count,
                    "share": 100 * -count / int(among[:, label].sum()),
                    "teacher": alike,
                    "pictures": self._pictures(where[order[:EACH]], label),
                }
            )
        return found

    def _per_class(self) -> list[dict[str, Any]]:
        """By label, the worst of the student first."""
        report = LabelReport(self.classes, self.thresholds)
        report.update(self.columns[STUDENT], self.columns["labels"])
        rows = []
        for index, row in enumerate(report.values()["per_class"]):
            own = {key: row[key] for key in ("class", "images", "unknown", "precision", "recall", "f1", "threshold")}
            own |= {
                key: {name: _percent(each[index]) for name, each in columns.items()}
                for key, columns in (("average_precision", self.precisions), ("areas", self.areas))
            }
            rows.append(own)
        worst: Any = lambda row: (row["average_precision"][STUDENT] is None, row["average_precision"][STUDENT])  # noqa: E731
        return sorted(rows, key=worst)

    def _pictures(self, rows: Tensor, label: int) -> list[dict[str, Any]]:
        found = []
        for row in rows.tolist():
            index = int(self.columns["index"][row])
            try:
                shown = photo(self.images.read(index))
            except CounterpoiseError:  # it could be read a minute ago
                continue
            truth = names(self.columns["labels"][row], tuple(self.classes)) or []
            found.append(
                {
                    **shown,
                    "name": Path(self.images.name(index)).name,
                    "truth": ", ".join(truth) or "none of the labels",
                    "probability": float(self.columns[STUDENT][row, label].sigmoid()),
                }
            )
        return found


def _percent(share: Tensor) -> float | None:
    return None if share.isnan() else 100 * float(share)
