"""What differs between tasks: how images are shown, and answers asked, scored and shown.

Nothing outside this room asks which task it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from counterpoise.errors import ConfigError, unknown
from counterpoise.system.registry import Registry

if TYPE_CHECKING:
    import torch

    from counterpoise import config
    from counterpoise.data.epochs import Epochs, InOrder, Large
    from counterpoise.data.rasters import Shown
    from counterpoise.data.slide_file import Slide
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.data.sources.volumes import VolumeScenes
    from counterpoise.models.network import VisionModel
    from counterpoise.objectives.composite import WeightedSum
    from counterpoise.tasks.sliding import InPieces


AGREEMENT = "agreement_"
"""What begins the name of a metric that was counted against the teacher's answers, because there are no labels."""
AGREEMENT_ALONE = (
    "The images have no labels: scores say how often the student answers as its teacher does, not how often it is "
    "right."
)


def leading(headline: str, scores: Mapping[str, Any]) -> str:
    """The headline as scores have it: of images without labels, its agreement with the teacher."""
    return headline if headline in scores or AGREEMENT + headline not in scores else AGREEMENT + headline


Probabilities = Literal["png", "tiff"]


class Picture(NamedTuple):
    """A picture to draw on.

    Attributes:
        name: a word for its files.
        image: uint8 [3, H, W], or a raster.
        truth: what is known of it; None: nothing.
    """

    name: str
    image: Shown
    truth: Tensor | None = None


class Share(NamedTuple):
    """Part `rank` of `world` parts of the images: that of one process."""

    rank: int = 0
    world: int = 1


ALL = Share()


class Verdict(NamedTuple):
    """Whether answers know anything of the pictures.

    Attributes:
        kind: "useful", "chance", "unsure" where there are too few images to tell, "unknown" where nothing can be told.
        found: what they score, and what answers that know nothing would.
        soft: whether all answers lie between 0 and 1, as probabilities do.
    """

    kind: Literal["useful", "chance", "unsure", "unknown"]
    found: str = ""
    soft: bool = False


class Pieces(NamedTuple):
    """How large pictures are answered piece by piece.

    Attributes:
        above: pictures of more pixels than that are.
        answer: to one of them.
    """

    above: int
    answer: Callable[[Large], InPieces]


class Counter(ABC):
    """Counts answers, batch by batch."""

    def coming(self, indices: Tensor) -> None:  # noqa: B027 - most count without
        """Told which images of the set (int64 [B]) the next batch holds."""

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch; targets that hold no label are left out."""

    def update_pieces(self, scene: InPieces) -> None:
        """Count one scene."""
        for piece in scene.pieces:
            self.update(piece.logits[None], scene.truth(piece.rows, piece.columns))


class Score(Counter):
    """A quick score kept while training: `state` adds up over batches and processes.

    Attributes:
        joined: states are put one after the other instead, a row an image, so that nothing is lost of the answers.
        against_teacher: whether the images have no labels, and what was counted is agreement with the teacher.
    """

    state: Tensor
    joined: ClassVar[bool] = False
    against_teacher: bool = False

    @abstractmethod
    def values(self) -> dict[str, float]:
        """The metrics by name, from `state`."""

    def cells(self) -> Tensor | None:
        """Of each class how often it was right, was there and was answered, float64 [C, 3], where that is counted."""
        return None

    def cases(self) -> str:
        """The scores by case as CSV; empty where none are counted."""
        return ""

    def thresholds(self) -> list[float] | None:
        """From which probability on each class is answered, as these answers suggest; None: the largest one is."""
        return None

    def verdict(self) -> Verdict | None:
        """What is to be thought of answers with this score; None: that follows from what was taken for what."""
        return None

    def of_each(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """The states of single images [N, ...], where these come faster than one image after the other."""
        return None

    @classmethod
    def drawn(cls, states: Tensor, times: Tensor | None = None) -> Tensor:
        """The state of a set that has each image so many times (int64 [N]; once), from their states [N, ...]."""
        if cls.joined:
            return states if times is None else states.repeat_interleave(times, 0)
        return states.sum(0) if times is None else times.to(states.dtype) @ states


class Report(Counter):
    """The full set of metrics of an evaluation."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """Metrics by name; `per_class` is a list of rows, one a class."""


class Task(ABC):
    """One kind of task."""

    name: ClassVar[str]
    hub_name: ClassVar[str]
    """What the Hugging Face hub calls it."""
    network: ClassVar[str] = ""
    """The task that the networks for it are known by; empty: its own name."""
    whole: ClassVar[bool] = True
    """Whether an answer is of a whole picture, brought to the size of a network; else of each of its pixels."""
    sigmoid: ClassVar[bool] = False
    """Whether each class is a question of its own, answered by a sigmoid; else by one softmax, unless the objective of
    a run says otherwise."""
    shown: ClassVar[str]
    """What to print of an `answer` of `predict`, as Python."""
    headline: ClassVar[str]
    """The metric that picks the best epoch; larger is better."""
    independent: ClassVar[tuple[int, int]] = (1, 1)
    """How many of the answers to one image tell as much as answers to other images do: at least, and at most."""
    metrics: ClassVar[tuple[str, ...]]
    """What `score` has, the headline first; some of it not for every data set."""

    @abstractmethod
    def check(self, images: ImageSet) -> None:
        """Raises ConfigError where the images do not have what this task learns from."""

    @abstractmethod
    def objective(self, run: config.Run, images: ImageSet | None) -> WeightedSum:
        """The objective of a run whose training set is `images`; None: to see whether it can be built, before there is
        data. Raises ObjectiveError or ConfigError where it cannot."""

    def leave_out(self, objective: WeightedSum, minimum: float) -> None:
        """Have the terms that listen to the teacher leave out what it is not sure of: teacher.minimum_confidence.

        Raises ConfigError where that means nothing.
        """
        raise ConfigError(f"teacher.minimum_confidence is for classification, and this is {self.name}.")

    @abstractmethod
    def decide(self, run: config.Run, images: ImageSet, models: Sequence[VisionModel]) -> config.Run:
        """The run with what its data decide: how its training images are shown, by their extents alone.

        Raises ConfigError where that does not follow.
        """

    def ready(self, student: VisionModel, run: config.Run) -> None:
        """Give a student what the run says of how it is to be shown images. Raises ConfigError where that cannot be."""
        if changed := run.data.scenes.changed():
            own = [key for key in changed if key in type(run.data.views).model_fields]
            way = f" Here it is data.views.{own[0]}." if own[:1] == changed[:1] else ""
            raise ConfigError(f"data.scenes.{changed[0]} is for scenes, and this is {self.name}.{way}")

    def look(
        self,
        model: VisionModel,
        window: tuple[int, int] | None = None,
        overlap: float | None = None,
        blend: str | None = None,
    ) -> None:
        """Have a model look at scenes through a window, or move its window otherwise: what is given takes the place.

        Raises ConfigError where that means nothing.
        """
        if window is not None or overlap is not None or blend is not None:
            raise ConfigError(f"window, overlap and blend are for scenes, and the student is for {self.name}.")

    def fit(  # noqa: B027 - scenes are shown whole
        self, models: Sequence[VisionModel], data: config.Data, loader: Epochs
    ) -> None:
        """Give the models of a run what follows from its training views for how pictures are shown to them beyond."""

    @abstractmethod
    def train_loader(
        self, images: ImageSet, run: config.Run, *, num_classes: int, share: Share, device: torch.device
    ) -> Epochs:
        """The views that a run, which is decided, trains on."""

    @abstractmethod
    def eval_loader(
        self, images: ImageSet, model: VisionModel, data: config.Data, *, batch_size: int, share: Share = ALL
    ) -> InOrder:
        """The images as `model` is shown them when it is evaluated, `batch_size` large ones at once or fewer."""

    def answer(self, model: VisionModel, images: Tensor) -> Tensor:
        """The model's logits for images as `eval_loader` gives them."""
        logits: Tensor = model(images)
        return logits

    def in_pieces(self, model: VisionModel) -> Pieces | None:
        """How large pictures are answered piece by piece when they are evaluated; None: none is."""
        return None

    def crop_share(self, model: VisionModel, size: tuple[int, int]) -> float | None:
        """Part of the shorter side that the central crop keeps where pictures are brought to one size (height, width).

        None: they are resized whole.
        """
        return None

    def agreeing(self, one: Tensor, other: Tensor, target: Tensor) -> tuple[int, int]:
        """Of how many positions two models' logits for the same images give the same answer, and of how many in all."""
        return int((one.argmax(1) == other.argmax(1)).sum()), len(one)

    @abstractmethod
    def confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        """How often a position of one class (rows) was taken for another: float64 [C, C]."""

    def alike(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Two models' logits for the same images, and the target, at one resolution."""
        return student_logits, teacher_logits, target

    @abstractmethod
    def score(self, num_classes: int) -> Score:
        """A fresh quick score."""

    def score_on(self, model: VisionModel, images: ImageSet, further: Sequence[str]) -> Score:
        """A fresh quick score of what a model answers to these images, with further metrics by name.

        Raises ConfigError where the task has none of that name.
        """
        for name in further:
            self.check_metric(name)
        return self.score(model.num_classes)

    def check_metric(self, name: str) -> None:
        """Raises ConfigError where the task has no metric of this name, as far as that can be told without data."""
        if name not in self.metrics:
            raise ConfigError(unknown(f"Metric of {self.name}", name, self.metrics))

    def less_is_better(self, name: str) -> bool:
        """Whether the best of a metric is its smallest value."""
        return name == "loss"

    @abstractmethod
    def report(self, classes: Sequence[str]) -> Report:
        """A fresh full report."""

    def report_of(self, model: VisionModel, classes: Sequence[str], images: ImageSet | None = None) -> Report:
        """A fresh full report of what this model answers, to these images where they are known."""
        return self.report(classes)

    def report_on(self, model: VisionModel, images: ImageSet, scores: Sequence[str] = ()) -> Report:
        """A fresh full report of what this model answers to these images, with further scores by name.

        Raises ConfigError where the task has none of that name.
        """
        if scores:
            raise ConfigError(f"scores are for masks: task {self.name} tells all it has, got {', '.join(scores)}.")
        return self.report_of(model, images.classes, images)

    def notes(self, model: VisionModel) -> list[str]:
        """What is to be said beside such a report, a sentence each."""
        return []

    @abstractmethod
    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        """The teacher's answer in the form of a target, for data without labels."""

    @abstractmethod
    def predict(self, model: VisionModel, images: Iterable[Any]) -> list[dict[str, Any]]:
        """What the model says of pictures (paths, PIL images or uint8 arrays), one JSON-able answer each."""

    def draw(
        self,
        models: Mapping[str, VisionModel],
        pictures: Iterable[Picture],
        out: Path,
        overwrite: bool,
        probabilities: Probabilities | None = None,
    ) -> list[dict[str, Any]]:
        """Write what models, by the titles of their panels, say of pictures; the last one is the student.

        With `probabilities`, a file of those of each class, too: "png" of 16 bits, 65535 being 1, or "tiff" of floats.

        Returns one JSON-able answer of the student a picture. Nothing is overwritten unasked.
        """
        raise ConfigError(f"Task {self.name} answers in words; --out and --beside are for masks.")

    def draw_slide(
        self, model: VisionModel, slide: Slide, name: str, out: Path | None, overwrite: bool
    ) -> dict[str, Any]:
        """Answer a slide by parts; where there is an `out`, write its mask as a TIFF of tiles and levels.

        Returns one JSON-able answer. Nothing is overwritten unasked. Raises ConfigError: the student has no window.
        """
        raise ConfigError(f"level and mpp are of slides, which are answered by masks, and this is {self.name}.")

    def draw_volume(
        self,
        model: VisionModel,
        images: VolumeScenes,
        name: str,
        out: Path | None,
        overwrite: bool,
        probabilities: Probabilities | None = None,
    ) -> dict[str, Any]:
        """What a model says of a volume, slice by slice, JSON-able; with `out` written as one volume, or as one of each
        question, that lies in the patient as the volume does.

        Raises:
            CorruptImage: it cannot be read.
            ConfigError: the task is not for volumes, or they do not have what is asked for.
            RunError: a file is there already.
        """
        raise ConfigError(f"{images.cases[0].images[0].path} is a volume, and task {self.name} answers pictures.")


TASKS: Registry[Task] = Registry("Task", "counterpoise.tasks", "counterpoise.tasks")
get = TASKS.get
