"""Where a student's masks are wrong, on its worst, middling and best pictures, beside its teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.epochs import Batch
from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import CounterpoiseError
from counterpoise.pages.report.findings.base import STUDENT, TEACHER, Gathering
from counterpoise.pages.report.findings.cases import cases, worst_first
from counterpoise.pages.report.pictures import SCENE, flat, photo
from counterpoise.tasks.confusion import by_class
from counterpoise.tasks.overlays import palette
from counterpoise.tasks.scores.cases import Counts
from counterpoise.tasks.scores.overlap import OVERLAP
from counterpoise.tasks.segmentation import segment

SHOWN = 3
"""Pictures of each kind: worst, median, best."""
CONFUSIONS = 12
# Of the picture of differences: the student is right; only the teacher is; neither is.
WRONG_ALONE, WRONG_BOTH, UNKNOWN = (214, 69, 65, 255), (238, 170, 60, 255), (128, 128, 128, 110)


class Segmentation(Gathering):
    """Keeps counts of each image and model, and no mask."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.matrices = {name: torch.zeros(len(self.classes), len(self.classes)).double() for name in self.models}
        self.counts = {name: Counts([OVERLAP], self.classes, self.images) for name in self.models}

    def update(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        for name, values in logits.items():
            self.counts[name].coming(batch.indices)
            self.matrices[name] += self.counts[name].update(values, batch.target.cpu())

    def result(self) -> dict[str, Any]:
        matrix = self.matrices[STUDENT]
        if not matrix.any():
            return {"labeled": 0}
        columns = {name: by_class(found) for name, found in self.matrices.items()}
        self.indices = self.counts[STUDENT].indices()
        self.scores = {
            name: [float(part.values["iou"].nanmean()) for part in counts.pictures()]
            for name, counts in self.counts.items()
        }
        return {
            "labeled": len(self.indices),
            "cases": cases(self.counts),
            "miou": {name: _mean(values["iou"]) for name, values in columns.items()},
            "dice": {name: _mean(values["dice"]) for name, values in columns.items()},
            "absent": [name for name, pixels in zip(self.classes, matrix.sum(1), strict=True) if not pixels],
            "confusions": self._confusions(matrix),
            "per_class": self._per_class(columns),
            "scenes": self._scenes(),
            "colors": self._legend(),
        }

    def _confusions(self, matrix: Tensor) -> list[dict[str, Any]]:
        """The commonest mistakes in pixels."""
        wrong = matrix.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:CONFUSIONS].tolist()
        found = []
        for cell in order:
            truth, taken = divmod(cell, len(self.classes))
            if not wrong[truth, taken]:
                break
            row = {"truth": self.classes[truth], "answer": self.classes[taken], "count": int(wrong[truth, taken])}
            row["share"] = 100 * float(wrong[truth, taken] / matrix[truth].sum())
            if TEACHER in self.matrices:
                row["teacher"] = int(self.matrices[TEACHER][truth, taken])
            found.append(row)
        return found

    def _per_class(self, columns: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
        """Intersection over union and Dice by class, the worst of the student first."""
        pixels = self.matrices[STUDENT].sum(1)
        rows = [
            {
                "class": name,
                "pixels": int(pixels[index]),
                "share": 100 * float(pixels[index] / pixels.sum()),
                "iou": {model: _known(values["iou"][index]) for model, values in columns.items()},
                "dice": {model: _known(values["dice"][index]) for model, values in columns.items()},
            }
            for index, name in enumerate(self.classes)
        ]
        return sorted(rows, key=lambda row: (row["iou"][STUDENT] is None, row["iou"][STUDENT]))

    def _scenes(self) -> list[dict[str, Any]]:
        order = worst_first(self.counts[STUDENT], self.scores[STUDENT])
        middle = max(0, (len(order) - SHOWN) // 2)
        groups = {"worst": order[:SHOWN], "median": order[middle : middle + SHOWN], "best": order[::-1][:SHOWN]}
        taken: set[int] = set()
        found = []
        for kind, numbers in groups.items():
            for number in numbers:
                scene = None if number in taken else self._scene(number)  # a set of few pictures has one in two groups
                taken.add(number)
                if scene is not None:
                    found.append({"kind": kind, **scene})
        return found

    def _scene(self, number: int) -> dict[str, Any] | None:
        index = self.indices[number]
        try:
            image, truth = self.images.read(index), self.images.read_mask(index).numpy()
        except CounterpoiseError:  # it could be read a minute ago
            return None
        masks = {name: segment(self.models[name], image).numpy() for name in (STUDENT, TEACHER) if name in self.models}
        layers = {"truth": flat(_painted(truth))}
        layers |= {name: flat(_painted(mask)) for name, mask in reversed(masks.items())}
        layers["difference"] = flat(_difference(truth, masks[STUDENT], masks.get(TEACHER)))
        return {
            "name": Path(self.images.name(index)).name,
            "miou": {name: _finite(self.scores[name][number]) for name in masks},
            "image": photo(image, SCENE),
            "layers": layers,
        }

    def _legend(self) -> list[dict[str, str]]:
        colors = palette()
        return [
            {"class": name, "color": "#{:02x}{:02x}{:02x}".format(*colors[index])}
            for index, name in enumerate(self.classes)
        ]


def _painted(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes in their colors; void is transparent."""
    shades = np.concatenate([palette(), np.full((256, 1), 255, dtype=np.uint8)], axis=1)
    shades[IGNORE] = 0
    return shades[mask]


def _difference(
    truth: NDArray[np.uint8], student: NDArray[np.uint8], teacher: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Where the student is wrong, in one color where its teacher is right and in another where it is wrong, too."""
    shades = np.zeros((*truth.shape, 4), dtype=np.uint8)
    wrong = student != truth
    shades[wrong] = WRONG_ALONE
    if teacher is not None:
        shades[wrong & (teacher != truth)] = WRONG_BOTH
    shades[truth == IGNORE] = UNKNOWN
    return shades


def _mean(shares: Tensor) -> float:
    return 100 * float(shares.nanmean())


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else 100 * float(value)


def _finite(value: float) -> float | None:
    return None if value != value else value
