"""Image classification: one class a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise import config
from counterpoise.data.class_weights import with_class_weights
from counterpoise.data.loader import EvalLoader, TrainLoader
from counterpoise.data.order import plan_order
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.data.views import SMALL, ViewPlan, decided
from counterpoise.errors import ConfigError
from counterpoise.objectives import confident
from counterpoise.objectives.calibration import CALIBRATION_BINS, calibration_bins, calibration_error
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.mixed import check_mixed
from counterpoise.objectives.ranks import rank_of
from counterpoise.system.machine import as_double
from counterpoise.tasks.base import ALL, TASKS, Report, Score, Share, Task
from counterpoise.tasks.confusion import shares

if TYPE_CHECKING:
    from counterpoise.data.epochs import Epochs
    from counterpoise.models.network import VisionModel
    from counterpoise.models.promise import Promise

SMALL_AT_ONCE = 250
"""Small images at once in evaluation, whatever the batch of training."""


class TopScore(Score):
    """Top-1 and top-5 accuracy in percent, and mean cross-entropy. Of five classes or fewer, top-5 says nothing.

    Not by torchmetrics, which takes seconds to import and has three states where one tensor is summed over processes;
    tested against it.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.state = torch.zeros(4, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        labeled = target != UNLABELED
        logits, target = logits[labeled], target[labeled]
        if not len(target):
            return
        rank = rank_of(logits, target)
        loss = F.cross_entropy(logits.float(), target, reduction="sum")
        counts = torch.stack(
            [(rank < 1).sum(), (rank < 5).sum(), loss, torch.tensor(float(len(target)), device=loss.device)]
        )
        found = as_double(counts)
        self.state = self.state.to(found.device) + found

    def of_each(self, logits: Tensor, target: Tensor) -> Tensor:
        labeled = target != UNLABELED
        classes = target.where(labeled, 0)
        rank = rank_of(logits, classes)
        loss = F.cross_entropy(logits.float(), classes, reduction="none")
        return as_double(torch.stack([rank < 1, rank < 5, loss, labeled], 1) * labeled[:, None])

    def values(self) -> dict[str, float]:
        top1, top5, loss, count = self.state.tolist()
        if not count:
            return {}
        found = {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}
        return {name: value for name, value in found.items() if name != "top5" or self.num_classes > 5}


class ClassificationReport(Report):
    """The quick score, balanced accuracy, macro F1 (percent), calibration error (ECE of 15 bins), and a table by class.

    Balanced accuracy is the mean recall of the classes that the images hold; macro F1 the mean of those that images or
    answers hold. Of a student with a promise also the share of images that it answers, the share of these
    answers that is wrong (None where it answers none), and the share of images whose class is in the set that it names;
    each group counting as much as any other, where it has promised by groups.

    Args:
        images: the set that is evaluated, for which images are of one group.
    """

    def __init__(self, classes: Sequence[str], promise: Promise | None = None, images: ImageSet | None = None) -> None:
        self.classes = list(classes)
        self.score = TopScore(len(classes))
        self.counts = torch.zeros(3, len(classes), dtype=torch.float64)  # by class: right, there, answered
        self.bins = torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64)
        self.promise = promise
        grouped = promise is not None and promise.groups is not None
        self.owners = images.owners() if grouped and images is not None else None
        self.next = torch.arange(0)
        self.promised: list[Tensor] = []  # int64 [N, 4]: the group, and whether answered, wrong of these, and in a set

    def coming(self, indices: Tensor) -> None:
        self.next = indices

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.score.update(logits, target)
        labeled = (target != UNLABELED).cpu()
        logits, target = logits.cpu()[labeled], target.cpu()[labeled]
        if not len(target):
            return
        probabilities, answers = logits.float().softmax(1), logits.argmax(1)
        for row, seen in zip(self.counts, (target[answers == target], target, answers), strict=True):
            row += torch.bincount(seen, minlength=len(self.classes))
        self.bins += calibration_bins(probabilities, answers, target)
        if self.promise is not None:
            softened = (logits.float() / self.promise.temperature).softmax(1)
            own = softened.gather(1, target[:, None])[:, 0]
            sure, right = softened.amax(1) >= self.promise.threshold, answers == target
            first = sum(map(len, self.promised))
            alone = torch.arange(first, first + len(target))
            group = alone if self.owners is None else self.owners[self.next[labeled]]
            self.promised.append(torch.stack([group, sure, sure & ~right, right | (own >= self.promise.least)], 1))

    def values(self) -> dict[str, Any]:
        right, there, answers = self.counts
        count = int(there.sum())
        if not count:
            return {"images": 0}
        values: dict[str, Any] = self.score.values()
        of_class = {name: 100 * share for name, share in shares(right, there, answers).items()}
        values["macro_f1"] = of_class["dice"].nanmean().item()  # Dice and F1 are one
        values["calibration_error"] = calibration_error(self.bins)
        values["balanced_accuracy"] = of_class["recall"].nanmean().item()
        if self.promise is not None:
            rows = torch.cat(self.promised)
            weights = 1 / rows[:, 0].bincount().double()[rows[:, 0]]  # each group weighs 1
            answered, wrong, covered = (100 * (weights @ rows[:, 1:].double()) / weights.sum()).tolist()
            values["answered"] = answered
            values["wrong_of_answered"] = 100 * wrong / answered if answered else None  # a share of nothing
            values["in_set"] = covered
        values["images"] = count
        values["per_class"] = [
            {
                "class": name,
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "images": int(images),
            }
            for name, precision, recall, f1, images in zip(
                self.classes,
                *(of_class[kind].nan_to_num().tolist() for kind in ("precision", "recall", "dice")),
                there.tolist(),
                strict=True,
            )
        ]
        return values


class Classification(Task):
    """One class a picture."""

    name = "classification"
    hub_name = "image-classification"
    shown = 'answer["class"], answer["probability"]'
    headline = "top1"
    metrics = ("top1", "top5", "loss")

    def check(self, images: ImageSet) -> None:
        if images.masked:
            raise ConfigError("The data holds masks, a class for every pixel; classification learns one a picture.")
        if images.multilabel:
            raise ConfigError("The data has several labels an image, and classification learns one: task: multilabel.")

    def objective(self, run: config.Run, images: ImageSet | None) -> WeightedSum:
        objective = WeightedSum(with_class_weights(run.objective, images))
        views = run.data.views
        if images is not None and images.classes and (views.mixup or views.cutmix):
            check_mixed(objective, len(images.classes), images.unlabeled > 0)
        return objective

    def leave_out(self, objective: WeightedSum, minimum: float) -> None:
        confident.leave_out(objective, minimum)

    def decide(self, run: config.Run, images: ImageSet, models: Sequence[VisionModel]) -> config.Run:
        largest = max((model.input_size for model in models if model.input_size is not None), default=None)
        views = decided(run.data.views, images, run.data.size, largest)
        return run.model_copy(update={"data": run.data.model_copy(update={"views": views})})

    def train_loader(
        self, images: ImageSet, run: config.Run, *, num_classes: int, share: Share, device: torch.device
    ) -> TrainLoader:
        return TrainLoader(
            images,
            run.data.views,
            num_classes=num_classes,
            batch_size=run.train.batch_size,
            seed=run.seed,
            size=run.data.size,
            workers=run.data.workers,
            drop_last=run.train.drop_last,
            on_corrupt=run.data.on_corrupt,
            rank=share.rank,
            world=share.world,
            device=device,
            fit=run.data.fit,
            order=plan_order(images, run.data, run.seed),
        )

    def fit(self, models: Sequence[VisionModel], data: config.Data, loader: Epochs) -> None:
        assert isinstance(loader, TrainLoader)
        for model in models:
            as_trained(model, loader.plan)
            if model.input_size is None:  # so that prediction shows what evaluation does
                model.input_size = data.size

    def eval_loader(
        self, images: ImageSet, model: VisionModel, data: config.Data, *, batch_size: int, share: Share = ALL
    ) -> EvalLoader:
        small = model.input_size is None or model.input_size <= SMALL
        return EvalLoader(
            images,
            size=model.input_size or data.size,
            crop_share=model.crop_share,
            fit=model.fit,
            batch_size=max(batch_size, SMALL_AT_ONCE) if small else batch_size,
            workers=data.workers,
            rank=share.rank,
            world=share.world,
            on_corrupt=data.on_corrupt,
        )

    def crop_share(self, model: VisionModel, size: tuple[int, int]) -> float | None:
        return model.crop_share if size[0] == size[1] and model.fit != "squash" else None

    def confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        known, classes = target != UNLABELED, logits.shape[1]
        pairs = target[known].to(logits.device) * classes + logits[known.to(logits.device)].argmax(1)
        return torch.bincount(pairs, minlength=classes * classes).view(classes, classes).double()

    def score(self, num_classes: int) -> Score:
        return TopScore(num_classes)

    def report(self, classes: Sequence[str]) -> Report:
        return ClassificationReport(classes)

    def report_of(self, model: VisionModel, classes: Sequence[str], images: ImageSet | None = None) -> Report:
        return ClassificationReport(classes, model.promise, images)

    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        return teacher_logits.argmax(1)

    def answered(self, model: VisionModel, images: Iterable[Any]) -> Iterator[tuple[Tensor, bool]]:
        """The model's logits [C] of each picture, float32 on the CPU, and whether these are probabilities instead."""
        from counterpoise.data.images import pixels_of, prepare

        device = next(model.parameters()).device
        soft: bool | None = None
        for image in images:
            pixels = pixels_of(image, reading=model.reading)
            if model.input_size is not None:
                pixels = prepare(pixels, model.input_size, model.crop_share, model.fit)
            if soft is None:
                soft = model.answers_probabilities((pixels.shape[1], pixels.shape[2]))
            with torch.inference_mode():
                logits = model(pixels[None].to(device)).float()[0].cpu()
            yield logits, soft

    def predict(self, model: VisionModel, images: Iterable[Any]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for logits, soft in self.answered(model, images):
            order = logits.argsort(descending=True, stable=True).tolist()
            probabilities = probabilities_of(model, logits, soft)
            names = model.classes or tuple(str(index) for index in range(len(probabilities)))
            top = [{"class": names[index], "probability": probabilities[index].item()} for index in order[:5]]
            answers.append({**top[0], "top": top, **_promised(model.promise, probabilities, order, names)})
        return answers


def probabilities_of(model: VisionModel, logits: Tensor, given: bool) -> Tensor:
    """Of each class, [..., C], as predictions tell them. given: whether the model answers probabilities itself."""
    if given:
        return logits
    return (logits if model.promise is None else logits / model.promise.temperature).softmax(-1)


def _promised(
    promise: Promise | None, probabilities: Tensor, order: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """Whether a student that has made a promise answers, and the classes one of which it is, the likeliest first."""
    if promise is None:
        return {}
    named = [names[index] for index in order if probabilities[index] >= promise.least]
    return {"sure": bool(probabilities.max() >= promise.threshold), "set": named or [names[order[0]]]}


def as_trained(model: VisionModel, plan: ViewPlan) -> None:
    """Have a model shown pictures, when it is evaluated and asked, as training shows them to it.

    Its own crop_share stays where training zooms into random parts, as that of published weights does. Where training
    views are whole pictures (crop pad and none, and so small images by default), evaluation shows whole pictures, too,
    for the student and for the teacher's score: cut or brought into shape as data.fit says, and at the same scale.
    Views of the images' own shape that are no squares are squashed by the networks, unless these are told to pad.
    """
    model.whole = plan.whole
    model.fit = "squash" if plan.whole and plan.height != plan.width and plan.fit == "crop" else plan.fit
    if plan.whole:
        model.crop_share = 1.0


TASKS.add("classification", Classification(), __name__)
