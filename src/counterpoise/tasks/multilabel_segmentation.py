"""Scenes in which each class is a question of its own: one structure or not, or several that may overlap."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.config import Term
from counterpoise.data.class_weights import with_class_weights
from counterpoise.data.crops import Foreground
from counterpoise.data.problems import raise_first
from counterpoise.data.sources import questions
from counterpoise.data.sources.base import IGNORE, ImageSet
from counterpoise.data.sources.masks_census import counted, listed, problems_of
from counterpoise.errors import ConfigError, DataError, unknown
from counterpoise.objectives.base import find
from counterpoise.objectives.binary_cross_entropy import BinaryCrossEntropy
from counterpoise.objectives.dense_questions import QuestionSum
from counterpoise.objectives.regions import RegionObjective
from counterpoise.tasks.base import TASKS, Report, Score
from counterpoise.tasks.confusion import upsample
from counterpoise.tasks.label_terms import check_term
from counterpoise.tasks.painting import names_of, parts
from counterpoise.tasks.question_cases import CaseQuestionScore
from counterpoise.tasks.question_metrics import EVEN, QuestionReport, QuestionScore
from counterpoise.tasks.scores.questions import answered
from counterpoise.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from counterpoise.models.network import VisionModel
    from counterpoise.objectives.composite import WeightedSum

LABELS = (BinaryCrossEntropy, RegionObjective)
"""Terms on labels that take each logit for a question of its own, where they answer by sigmoids."""


class MultilabelSegmentation(Segmentation):
    """Each pixel a yes or a no of each question."""

    name = "multilabel_segmentation"
    network = "segmentation"
    sigmoid = True
    headline = "map"
    metrics = QuestionScore.metrics

    def check(self, images: ImageSet) -> None:
        if not images.masked:
            raise ConfigError(f"Task {self.name} learns from masks, and the data holds none: see source masks_folder.")
        if images.questions is None:
            shown = ", ".join(images.classes[:8])
            raise ConfigError(
                f"The masks have one class a pixel ({shown}), and task {self.name} answers questions: say which, as in "
                f"--data.questions.{images.classes[-1]} {images.classes[-1]}, or read a folder of masks for each "
                "(data.source: mask_folders); for one class a pixel set task: segmentation."
            )
        raise_first(problems_of(counted(images), images.origin or "the data"))

    def objective(self, run: config.Run, images: ImageSet | None) -> WeightedSum:
        if images is not None and images.questions is not None:
            require_both(images)
        terms = {name: _by_sigmoids(name, term) for name, term in run.objective.items()}
        objective = QuestionSum(with_class_weights(terms, images), run.data.scenes.resolution, void=IGNORE)
        for name in objective.terms:
            check_term(name, objective.objective(name), self.name, LABELS, maps=True)
        return objective

    def foreground(self, scenes: config.Scenes, images: ImageSet) -> Foreground | None:
        if not scenes.foreground:
            return None
        assert images.questions is not None
        names = scenes.foreground_classes or images.classes
        if others := [name for name in names if name not in images.classes]:
            raise ConfigError(f"data.scenes.foreground_classes: {unknown('Question', others[0], images.classes)}")
        columns = [images.classes.index(name) for name in names]
        values = (images.questions[:, columns] > 0).any(1).nonzero().flatten().tolist()
        return Foreground(scenes.foreground, tuple(values))

    def agreeing(self, one: Tensor, other: Tensor, target: Tensor) -> tuple[int, int]:
        """Of each pixel and question, whether both take it for a yes rather than a no."""
        size = (target.shape[2], target.shape[3])
        same = sum(
            int(((upsample(a[None], size) > 0) == (upsample(b[None], size) > 0)).sum())
            for a, b in zip(one, other, strict=True)
        )
        return same, target.numel()

    def confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nothing: a question that is missed is taken for no other one."""
        return torch.zeros(logits.shape[1], logits.shape[1], dtype=torch.float64)

    def score(self, num_classes: int) -> Score:
        return QuestionScore(num_classes)

    def score_on(self, model: VisionModel, images: ImageSet, further: Sequence[str]) -> Score:
        names = [name for name in further if name not in self.metrics]
        return CaseQuestionScore(names_of(model), images, names) if names else self.score(model.num_classes)

    def report(self, classes: Sequence[str]) -> Report:
        return QuestionReport(classes)

    def report_of(self, model: VisionModel, classes: Sequence[str], images: ImageSet | None = None) -> Report:
        return QuestionReport(classes, model.thresholds)

    def report_on(self, model: VisionModel, images: ImageSet, scores: Sequence[str] = ()) -> Report:
        return QuestionReport(images.classes, model.thresholds, images, scores)

    def notes(self, model: VisionModel) -> list[str]:
        if model.thresholds is None:
            return ["Dice, IoU, precision and recall are those at 0.5: the student brings no thresholds."]
        return [
            "Dice, IoU, precision and recall are over all pixels together, at the thresholds that the student brings, "
            "which were chosen on the validation images of its training: on those images themselves they are a little "
            "too high."
        ]

    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        return (teacher_logits > 0).to(torch.int8)

    def mask_of(self, model: VisionModel, logits: Tensor) -> Tensor:
        """Each question's yes, at its threshold: bool [Q, H, W]."""
        return answered(logits, model.thresholds or [EVEN] * len(logits)).cpu()

    def probabilities_of(self, logits: Tensor, given: bool) -> Tensor:
        return logits.sigmoid().cpu()

    def described(self, model: VisionModel, mask: Tensor) -> dict[str, Any]:
        """The questions by the share of the pixels that are their yes, largest first; what is nowhere is left out."""
        shares = mask.flatten(1).double().mean(1)
        order = shares.argsort(descending=True, stable=True)[: int((shares > 0).sum())].tolist()
        names = names_of(model)
        found = [{"class": names[index], "share": shares[index].item()} for index in order]
        return {"height": mask.shape[1], "width": mask.shape[2], "classes": found}

    def mask_files(self, model: VisionModel) -> list[str]:
        return [f"{part}-mask.png" for part in parts(model)]

    def write(self, files: Sequence[Path], mask: Tensor) -> dict[str, Any]:
        from counterpoise.tasks.overlays import write_yes

        for file, layer in zip(files, mask, strict=True):
            write_yes(file, layer)
        return {"masks": list(map(str, files))}


def require_both(images: ImageSet) -> None:
    """Raises DataError for questions that no training pixel is a yes of, or each one is."""
    yes, no = (found.tolist() for found in questions.counts(images))
    for which, found in (("yes", yes), ("no", no)):
        missing = [name for name, count in zip(images.classes, found, strict=True) if not count]
        if missing:
            raise DataError(
                f"No pixel in the training masks of {images.origin or 'the data'} is a {which} of {listed(missing)}: "
                "from these masks nobody learns to tell. Leave it out of data.questions, or bring masks that hold it."
            )


def _by_sigmoids(name: str, term: Term) -> Term:
    """The term with `sigmoid`, where it has such an argument and nothing else is said."""
    kind = find(term.objective or name).kind
    if "sigmoid" not in inspect.signature(kind).parameters or "sigmoid" in term.arguments:
        return term
    return Term.model_validate({**term.model_dump(), "sigmoid": True})


TASKS.add("multilabel_segmentation", MultilabelSegmentation(), __name__)
