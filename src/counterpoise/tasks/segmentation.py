"""Semantic segmentation: a class for every pixel. Networks answer at any resolution; masks are judged at their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.class_weights import with_class_weights
from counterpoise.data.crops import Foreground, foreground, several
from counterpoise.data.order import plan_order
from counterpoise.data.problems import raise_first
from counterpoise.data.rasters import Shown, raster, raster_of
from counterpoise.data.scene_loader import SceneEvalLoader, SceneLoader
from counterpoise.data.segmentation_views import plan_scenes
from counterpoise.data.sources.base import IGNORE
from counterpoise.data.sources.masks_census import counted, problems_of
from counterpoise.errors import ConfigError
from counterpoise.models.network import SceneView, are_probabilities
from counterpoise.objectives.dense import DenseSum, reduced
from counterpoise.objectives.views import resample
from counterpoise.tasks import painting, slide_painting, volume_painting
from counterpoise.tasks.base import ALL, TASKS, Picture, Pieces, Probabilities, Report, Score, Share, Task
from counterpoise.tasks.confusion import check_dense, confusion_matrix, largest_class, upsample
from counterpoise.tasks.mask_metrics import MaskScore, SegmentationReport
from counterpoise.tasks.scores.metrics import CaseScore, metric
from counterpoise.tasks.sliding import WHOLE, InPieces, pieces, slide, slide_pieces, stride_of
from counterpoise.tasks.surety import unsure

if TYPE_CHECKING:
    from counterpoise.data.epochs import Large
    from counterpoise.data.slide_file import Slide
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.data.sources.volumes import VolumeScenes
    from counterpoise.models.network import VisionModel
    from counterpoise.objectives.composite import WeightedSum


def segment(model: VisionModel, image: Shown) -> Tensor:
    """The class of every pixel of an image, shown to the model as its `scenes` says: reduced, whole or by a window.

    Args:
        image: uint8 [3, H, W] on any device, or a raster.

    Returns:
        uint8 [H, W] on the CPU.
    """
    return TASK.answer_of(model, image)[0]


def _asked(model: VisionModel, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


class Segmentation(Task):
    """One class a pixel."""

    name = "segmentation"
    whole = False
    hub_name = "image-segmentation"
    shown = 'answer["classes"]'
    headline = "miou"
    independent = (5, 100)  # neighboring pixels tell the same
    metrics: ClassVar[tuple[str, ...]] = ("miou", "dice", "pixel_accuracy")

    def check(self, images: ImageSet) -> None:
        if images.questions is not None:
            raise ConfigError(
                f"The masks answer questions ({', '.join(images.classes[:8])}), several a pixel: set task: "
                "multilabel_segmentation, or leave out data.questions for one class a pixel."
            )
        raise_first(problems_of(counted(_masked(images)), images.origin or "the data"))

    def objective(self, run: config.Run, images: ImageSet | None) -> WeightedSum:
        terms = with_class_weights(run.objective, images)
        return DenseSum(terms, run.data.scenes.resolution, void=IGNORE)

    def ready(self, student: VisionModel, run: config.Run) -> None:
        if run.data.fit != "crop":
            raise ConfigError(f"data.fit is for one answer a picture: scenes are shown whole, got {run.data.fit}.")
        scenes, changed = run.data.scenes, run.data.views.changed()
        if "decode" in changed:
            raise ConfigError("data.views.decode: scaled is for photos without masks: scenes are decoded in full.")
        if changed:
            way = (
                f"data.scenes.{changed[0]}"
                if changed[0] in type(scenes).model_fields
                else "data.scenes says how they are varied"
            )
            raise ConfigError(f"data.views.{changed[0]} is for photos without masks; of scenes: {way}.")
        student.scenes = SceneView(scenes.reduction, scenes.window, scenes.overlap, scenes.blend)

    def look(
        self,
        model: VisionModel,
        window: tuple[int, int] | None = None,
        overlap: float | None = None,
        blend: str | None = None,
    ) -> None:
        own = model.scenes
        if window is None and own.window is None and (overlap is not None or blend is not None):
            raise ConfigError("overlap and blend are of a window that slides over scenes: give window, too.")
        if (window, overlap, blend) != (None, None, None):
            model.scene_promise = None  # it is of the answers that the student gives by itself
        model.scenes = SceneView(
            own.reduction, window or own.window, own.overlap if overlap is None else overlap, blend or own.blend
        )

    def decide(self, run: config.Run, images: ImageSet, models: Sequence[VisionModel]) -> config.Run:
        scenes = run.data.scenes
        if scenes.size is not None or run.data.size is not None:
            return run
        extent = images.common_extent
        if extent is None:
            raise ConfigError(
                "data.scenes.size is missing: scenes differ in size, so say the height and width of a view."
            )
        height, width = (max(1, round(side / scenes.reduction)) for side in extent)
        scenes = scenes.model_copy(update={"size": (height, width)})
        return run.model_copy(update={"data": run.data.model_copy(update={"scenes": scenes})})

    def train_loader(
        self, images: ImageSet, run: config.Run, *, num_classes: int, share: Share, device: torch.device
    ) -> SceneLoader:
        scenes = run.data.scenes
        edge = run.data.size
        size = scenes.size or ((edge, edge) if edge else None)
        assert size is not None  # `decide` has seen to it
        shown = several(_masked(images), run.data)
        plan = plan_scenes(scenes, seed=run.seed, count=len(shown), size=size)
        return SceneLoader(
            shown,
            plan,
            batch_size=run.train.batch_size,
            foreground=self.foreground(scenes, images),
            workers=run.data.workers,
            drop_last=run.train.drop_last,
            on_corrupt=run.data.on_corrupt,
            rank=share.rank,
            world=share.world,
            device=device,
            order=plan_order(shown, run.data, run.seed),
        )

    def foreground(self, scenes: config.Scenes, images: ImageSet) -> Foreground | None:
        """What crops are laid on."""
        return foreground(scenes.foreground, scenes.foreground_classes, images.classes)

    def eval_loader(
        self, images: ImageSet, model: VisionModel, data: config.Data, *, batch_size: int, share: Share = ALL
    ) -> SceneEvalLoader:
        return SceneEvalLoader(
            _masked(images),
            reduction=model.scenes.reduction,
            window=model.scenes.window,
            batch_size=batch_size,
            workers=data.workers,
            rank=share.rank,
            world=share.world,
            on_corrupt=data.on_corrupt,
        )

    def answer(self, model: VisionModel, images: Tensor) -> Tensor:
        window = model.scenes.window
        if window is None:
            logits = super().answer(model, images)
        else:
            logits = slide(model, images, window, stride_of(model.scenes), model.scenes.blend)
        check_dense(logits)
        return logits

    def in_pieces(self, model: VisionModel) -> Pieces | None:
        if model.scenes.window is None:
            return None
        return Pieces(WHOLE // model.num_classes, partial(self._in_pieces, model))

    def _in_pieces(self, model: VisionModel, large: Large) -> InPieces:
        classes, device = model.num_classes, model.mean.device
        given = slide_pieces(partial(_asked, model), large.picture, model.scenes, large.size, classes, device)
        return InPieces(large.size, classes, given, large.target)

    def agreeing(self, one: Tensor, other: Tensor, target: Tensor) -> tuple[int, int]:
        size = (target.shape[1], target.shape[2])
        same = sum(
            int((largest_class(upsample(a[None], size)) == largest_class(upsample(b[None], size))).sum())
            for a, b in zip(one, other, strict=True)
        )
        return same, target.numel()

    def confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        return confusion_matrix(logits, target)

    def alike(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        size = student_logits.shape[-2:]
        near = resample(teacher_logits.to(student_logits.device), size)
        return student_logits, near, None if target is None else reduced(target.long(), size)

    def score(self, num_classes: int) -> Score:
        return MaskScore(num_classes)

    def score_on(self, model: VisionModel, images: ImageSet, further: Sequence[str]) -> Score:
        names = [name for name in further if name not in self.metrics]
        return CaseScore(painting.names_of(model), images, names) if names else self.score(model.num_classes)

    def check_metric(self, name: str) -> None:
        if name not in self.metrics:
            metric(name, self.metrics)

    def less_is_better(self, name: str) -> bool:
        return name not in self.metrics and metric(name).less_is_better

    def report(self, classes: Sequence[str]) -> Report:
        return SegmentationReport(classes)

    def report_on(self, model: VisionModel, images: ImageSet, scores: Sequence[str] = ()) -> Report:
        return SegmentationReport(images.classes, images, scores, model.scene_promise)

    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        return largest_class(teacher_logits)

    def predict(self, model: VisionModel, images: Iterable[Any]) -> list[dict[str, Any]]:
        """The classes found on each picture, by their share of its pixels, largest first:
        {"height", "width", "classes": [{"class", "share"}, ...]}, with "unsure" of a student with a promise."""
        decoded = (raster_of(image, model.reading) for image in images)
        return [self.described(model, self.answer_of(model, image)[0]) for image in decoded]

    def draw(
        self,
        models: Mapping[str, VisionModel],
        pictures: Iterable[Picture],
        out: Path,
        overwrite: bool,
        probabilities: Probabilities | None = None,
    ) -> list[dict[str, Any]]:
        return painting.draw(self, models, pictures, out, overwrite, probabilities)

    def draw_slide(
        self, model: VisionModel, slide: Slide, name: str, out: Path | None, overwrite: bool
    ) -> dict[str, Any]:
        return slide_painting.draw(self, model, slide, name, out, overwrite)

    def draw_volume(
        self,
        model: VisionModel,
        images: VolumeScenes,
        name: str,
        out: Path | None,
        overwrite: bool,
        probabilities: Probabilities | None = None,
    ) -> dict[str, Any]:
        return volume_painting.draw(self, model, images, name, out, overwrite, probabilities)

    def answer_of(self, model: VisionModel, image: Shown, soft: bool = False) -> tuple[Tensor, Tensor | None]:
        """What a model says of every pixel of an image, shown to it as its `scenes` says: whole, reduced, by a window.

        Args:
            image: uint8 [3, H, W] on any device, or a raster.
            soft: whether probabilities are wanted, too.

        Returns:
            As `mask_of` and `probabilities_of`, of the whole image.
        """
        picture = raster(image)
        mask, shares, given = torch.empty(0), None, False
        with torch.inference_mode():
            for piece in pieces(partial(_asked, model), picture, model.scenes, model.num_classes, model.mean.device):
                found = self.mask_of(model, piece.logits)
                if not mask.numel():
                    mask = torch.empty(*found.shape[:-2], *picture.size, dtype=found.dtype)
                    shares = torch.empty(model.num_classes, *picture.size) if soft else None
                    # What is no probability here needs no further picture to tell.
                    given = soft and are_probabilities(piece.logits[None])
                    given = given and model.answers_probabilities(picture.reduced(model.scenes.reduction).size)
                mask[..., piece.rows, piece.columns] = found
                if shares is not None:
                    shares[:, piece.rows, piece.columns] = self.probabilities_of(piece.logits, given)
        return mask, shares

    def mask_of(self, model: VisionModel, logits: Tensor) -> Tensor:
        """The class of every pixel, uint8 [H, W] on the CPU; 255 where a student with a promise is not sure."""
        found = largest_class(logits, 0).to(torch.uint8)
        if model.scene_promise is not None:
            found[unsure(logits, model.scene_promise)] = IGNORE
        return found.cpu()

    def probabilities_of(self, logits: Tensor, given: bool) -> Tensor:
        """Of each class at every pixel, float32 [C, H, W] on the CPU. given: whether the network answers these."""
        return (logits.float() if given else logits.softmax(0)).cpu()

    def described(self, model: VisionModel, mask: Tensor) -> dict[str, Any]:
        """The size of a mask, and its classes by their share of the pixels, largest first; of a student with a promise
        also the share of which it is not sure."""
        counts = torch.bincount(mask.flatten(), minlength=IGNORE + 1)
        return {"height": mask.shape[0], "width": mask.shape[1], **painting.shares_of(model, counts, mask.numel())}

    def mask_files(self, model: VisionModel) -> list[str]:
        """What the files of a mask are called behind a picture's name."""
        return ["mask.png"]

    def write(self, files: Sequence[Path], mask: Tensor) -> dict[str, Any]:
        """Write a mask, and say where it is."""
        from counterpoise.tasks.overlays import write_mask

        write_mask(files[0], mask)
        return {"mask": str(files[0])}


def _masked(images: ImageSet) -> ImageSet:
    if not images.masked:
        raise ConfigError("Task segmentation learns from masks, and the data holds none: see source masks_folder.")
    return images


TASK = Segmentation()
TASKS.add("segmentation", TASK, __name__)
