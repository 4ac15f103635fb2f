"""Several labels a picture: each is a question of its own, answered by a sigmoid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.data.class_weights import with_class_weights
from counterpoise.errors import ConfigError
from counterpoise.objectives.binary_cross_entropy import BinaryCrossEntropy
from counterpoise.objectives.composite import WeightedSum
from counterpoise.tasks.base import TASKS, Report, Score, Verdict
from counterpoise.tasks.classification import Classification
from counterpoise.tasks.label_metrics import auroc, average_precision, best_thresholds, curves, verdict_of
from counterpoise.tasks.label_terms import check_term

if TYPE_CHECKING:
    from counterpoise import config
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.models.network import VisionModel

EVEN = 0.5
"""The threshold of a label that no held-out image has, or that nobody has chosen one for."""


class LabelScore(Score):
    """Mean average precision and mean AUROC over the labels in percent, and mean cross-entropy of images.

    Both means are over the labels that some image has (of AUROC, and some has not). Exact: `state` keeps what was
    answered, float [n, 2C]: logits, then labels of which -1 is unknown.
    """

    joined = True

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._parts: list[Tensor] = []

    @property
    def state(self) -> Tensor:  # put together when it is asked for
        if len(self._parts) != 1:
            self._parts = [torch.cat([torch.zeros(0, 2 * self.num_classes), *self._parts])]
        return self._parts[0]

    @state.setter
    def state(self, state: Tensor) -> None:
        self._parts = [state.reshape(-1, 2 * self.num_classes)]

    def update(self, logits: Tensor, target: Tensor) -> None:
        if target.ndim != 2:  # pictures without labels
            target = torch.full_like(logits, -1)
        self._parts.append(torch.cat([logits.float(), target.to(logits.device).float()], 1).cpu())

    @property
    def logits(self) -> Tensor:
        """float [n, C]."""
        return self.state[:, : self.num_classes]

    @property
    def labels(self) -> Tensor:
        """float [n, C] of 1, 0 and -1."""
        return self.state[:, self.num_classes :]

    def count(self) -> int:
        """How many images there are of which something is known."""
        return int((self.labels >= 0).any(1).sum())

    def values(self) -> dict[str, float]:
        if not (count := self.count()):
            return {}
        found = curves(self.logits, self.labels)
        means = {"map": average_precision(found).nanmean(), "auroc": auroc(found).nanmean()}
        known = self.labels >= 0
        asked = self.labels.clamp(min=0)
        loss = F.binary_cross_entropy_with_logits(self.logits, asked, reduction="none").where(known, torch.zeros(()))
        shares = {name: 100 * mean.item() for name, mean in means.items() if not mean.isnan()}
        return {**shares, "loss": loss.double().sum().item() / count}

    def thresholds(self) -> list[float]:
        """The probability from which on each label is answered: that of the highest F1 on what was counted.

        0.5 for a label that no image has. See `label_metrics.best_thresholds`.
        """
        if not self.count():
            return [EVEN] * self.num_classes
        chosen, _ = best_thresholds(curves(self.logits.sigmoid(), self.labels))
        values: list[float] = chosen.nan_to_num(EVEN).tolist()
        return values

    def verdict(self) -> Verdict:
        """By the mean AUROC, which does not depend on how often labels are there: of answers that know nothing it is
        50%, with a standard deviation that is taken as if all labels erred alike."""
        soft = bool(((self.logits > 0) & (self.logits < 1)).all())
        return verdict_of(curves(self.logits, self.labels), soft)


def _counts(score: LabelScore, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each label, what was answered rightly, wrongly and not though it was there: float64 [C] each."""
    yes, there, absent = score.logits.sigmoid() >= thresholds, score.labels > 0, score.labels == 0
    return (yes & there).sum(0).double(), (yes & absent).sum(0).double(), (~yes & there).sum(0).double()


class LabelReport(Report):
    """The quick score, F1 over all answers (micro) and as the mean over labels (macro), and a table by label.

    F1, precision and recall are those of answers at the student's thresholds. Macro F1 is the mean over the labels that
    images or answers hold.

    Args:
        thresholds: a probability for each label; None: 0.5.
    """

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float] | None = None) -> None:
        self.classes = list(classes)
        self.thresholds = [EVEN] * len(self.classes) if thresholds is None else list(thresholds)
        self.score = LabelScore(len(self.classes))

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.score.update(logits, target)

    def values(self) -> dict[str, Any]:
        if not (count := self.score.count()):
            return {"images": 0}
        found = curves(self.score.logits, self.score.labels)
        hits, wrong, missed = _counts(self.score, torch.tensor(self.thresholds))
        f1 = _share(2 * hits, 2 * hits + wrong + missed)
        columns = {
            "average_precision": average_precision(found),
            "auroc": auroc(found),
            "f1": f1,
            "precision": _share(hits, hits + wrong),
            "recall": _share(hits, hits + missed),
        }
        return {
            **self.score.values(),
            "micro_f1": 100 * _share(2 * hits.sum(), 2 * hits.sum() + wrong.sum() + missed.sum()).nan_to_num().item(),
            "macro_f1": 100 * f1.nanmean().nan_to_num().item(),
            "images": count,
            "per_class": [
                {
                    "class": name,
                    **{key: _percent(column[index]) for key, column in columns.items()},
                    "threshold": self.thresholds[index],
                    "images": int(found.there[index]),
                    "unknown": count - int(found.there[index] + found.absent[index]),
                }
                for index, name in enumerate(self.classes)
            ],
        }


class Multilabel(Classification):
    """Several labels a picture, each there or not."""

    name = "multilabel"
    network = "classification"
    sigmoid = True
    shown = 'answer["labels"]'
    headline = "map"
    metrics = ("map", "auroc", "loss")

    def check(self, images: ImageSet) -> None:
        if images.masked:
            raise ConfigError("The data holds masks, a class for every pixel; multilabel learns labels of pictures.")
        if images.classes and not images.multilabel:
            raise ConfigError(
                "The data has one class an image, and task multilabel learns several labels: set task: classification, "
                "or read several: --data.options.label_columns, --data.options.separator."
            )

    def objective(self, run: config.Run, images: ImageSet | None) -> WeightedSum:
        objective = WeightedSum(with_class_weights(run.objective, images))
        for name in objective.terms:
            check_term(name, objective.objective(name), self.name, (BinaryCrossEntropy,))
        return objective

    def leave_out(self, objective: WeightedSum, minimum: float) -> None:
        raise ConfigError(
            "teacher.minimum_confidence is for one class a picture, whose probability it looks at: of several labels "
            "the teacher may be sure of one and not of another."
        )

    def agreeing(self, one: Tensor, other: Tensor, target: Tensor) -> tuple[int, int]:
        """Of each label, whether both take it to be there rather than not."""
        return int(((one > 0) == (other > 0)).sum()), one.numel()

    def confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nothing: a label that is missed is taken for no other one."""
        return torch.zeros(logits.shape[1], logits.shape[1], dtype=torch.float64)

    def score(self, num_classes: int) -> LabelScore:
        return LabelScore(num_classes)

    def report(self, classes: Sequence[str]) -> Report:
        return LabelReport(classes)

    def report_of(self, model: VisionModel, classes: Sequence[str], images: ImageSet | None = None) -> Report:
        return LabelReport(classes, model.thresholds)

    def notes(self, model: VisionModel) -> list[str]:
        if model.thresholds is None:
            return ["F1, precision and recall are those at 0.5: the student brings no thresholds of its labels."]
        return [
            "F1, precision and recall are at the thresholds that the student brings, which were chosen on the "
            "validation images of its training: on those images themselves they are a little too high."
        ]

    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        return (teacher_logits > 0).to(torch.int8)

    def predict(self, model: VisionModel, images: Iterable[Any]) -> list[dict[str, Any]]:
        """The labels at or above their thresholds, the likeliest first, and the five likeliest of all:
        {"labels": [{"class", "probability"}, ...], "top": [...]}."""
        answers = []
        thresholds = model.thresholds or [EVEN] * model.num_classes
        names = model.classes or tuple(str(index) for index in range(model.num_classes))
        for logits, _ in self.answered(model, images):
            probabilities = logits.sigmoid()
            order = probabilities.argsort(descending=True, stable=True).tolist()
            told = [{"class": names[index], "probability": float(probabilities[index])} for index in order]
            there = [told[rank] for rank, index in enumerate(order) if told[rank]["probability"] >= thresholds[index]]
            answers.append({"labels": there, "top": told[:5]})
        return answers


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """NaN of nothing."""
    return part / whole


def _percent(share: Tensor) -> float | None:
    return None if share.isnan() else 100 * share.item()


TASKS.add("multilabel", Multilabel(), __name__)
