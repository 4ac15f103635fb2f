"""Whether an export answers as the student does: the same pixels to both, picture by picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from counterpoise.deploy.base import Logits, Pixels, Runtime
from counterpoise.deploy.pictures import Pair
from counterpoise.tasks import Task, paired
from counterpoise.tasks.paired import RESAMPLES


class Limit(NamedTuple):
    """From where on an export is taken to be wrong, not rounded.

    Attributes:
        difference: of logits, relative to the largest one or to 1; None: rounding is not bounded so.
        same: percent of the answers that must be the same.
        activation: of a layer's activations, relative to their largest: where it is said to start.
        loss: of the metric, in points.
    """

    difference: float | None
    same: float
    activation: float
    loss: float


LIMITS = {
    "float32": Limit(1e-3, 99.9, 1e-3, 0.1),
    "float16": Limit(5e-2, 98.0, 5e-2, 1.0),
    "int8": Limit(None, 90.0, 0.5, 5.0),
}


@dataclass(frozen=True)
class Agreement:
    """A student and its export on the same pictures.

    Attributes:
        images: how many.
        largest_difference: of all logits, for the same pixels.
        largest_logit: of the student's, by magnitude.
        same: percent of the answers (of scenes: of the pixels) that are the same.
        positions: how many answers.
        metric: name of the task's metric; empty where nothing is labeled.
        student, export: its values, in percent.
        interval: of 95% for student - export, bootstrapped over images in pairs.
        resized: how many images have another size than the export takes: the export is fed them resized, and the
            student sees them as in evaluation.
        converted: percent of the answers that are the same where both are given the export's pixels.
        trained_on: on how many of the images the student was trained.
    """

    images: int
    largest_difference: float
    largest_logit: float
    same: float
    positions: int
    metric: str = ""
    student: float | None = None
    export: float | None = None
    interval: tuple[float, float] | None = None
    resized: int = 0
    converted: float = 100.0
    trained_on: int = 0

    @property
    def loss(self) -> float | None:
        """By how many points the export is worse."""
        return None if self.student is None or self.export is None else self.student - self.export

    def values(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "loss": self.loss}

    def objection(self, precision: str, same: float | None = None) -> str:
        """Why it is not to be trusted; empty where it is. same: percent asked for instead of the precision's."""
        limit = LIMITS[precision] if same is None else LIMITS[precision]._replace(same=same)
        bound = rounding(precision, self.largest_logit)
        if bound is not None and not self.largest_difference <= bound:
            return f"logits differ by up to {self.largest_difference:.3g} (at most {bound:.3g} for {precision})"
        # What resizing costs is told, not refused: that is how the export is fed.
        alike = self.converted if self.resized else self.same
        unlike = self.positions * (100 - alike) / 100
        if unlike > max(1.5, self.positions * (100 - limit.same) / 100):
            allow = f"; --min_same {math.floor(alike)} takes it" if precision == "int8" else ""
            return f"{alike:.2f}% of the answers are the same (at least {limit.same:g}% for {precision}{allow})"
        if (
            not self.resized
            and self.loss is not None
            and self.loss * self.images > max(150.0, limit.loss * self.images)
        ):
            return f"{self.metric} falls from {self.student:.2f} to {self.export:.2f}"
        return ""


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest one of logits; infinite where they differ in shape, or one is no number."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().nan_to_num(float("inf")).max())


def rounding(precision: str, largest_logit: float) -> float | None:
    """By how much logits may differ for rounding alone; None where that is not bounded."""
    limit = LIMITS[precision].difference
    return None if limit is None else limit * max(1.0, largest_logit)


def answer(runtime: Runtime, pixels: Pixels, batch: int | None) -> Logits:
    """The logits of any number of pictures, by an export that takes `batch` at once; None: any number."""
    if batch is None:
        return runtime(pixels)
    parts = []
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
        parts.append(runtime(filled)[: len(part)])
    return np.concatenate(parts)


def student_answer(network: nn.Module, pixels: Tensor) -> Tensor:
    """The logits of the PyTorch student."""
    with torch.inference_mode():
        logits: Tensor = network(pixels)
    return logits.float()


class Remembered(nn.Module):
    """A network that is asked once for the same pixels: for comparisons of many exports with one student."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._answers: dict[bytes, Tensor] = {}

    def forward(self, pixels: Tensor) -> Tensor:
        """The network's logits."""
        key = hashlib.sha256(pixels.contiguous().numpy().tobytes()).digest()
        if key not in self._answers:
            self._answers[key] = student_answer(self.network, pixels)
        return self._answers[key]


def compare(
    network: nn.Module,
    runtime: Runtime,
    batches: Iterable[tuple[Tensor, Tensor] | Pair],
    task: Task,
    classes: int,
    batch: int | None,
    *,
    resamples: int = RESAMPLES,
    watch: Callable[[int], None] = lambda images: None,
) -> Agreement:
    """Compare a student with an export on batches of (pixels, target), or of pairs where each is shown its own pixels.

    There is at least one. The conversion is judged by the same pixels, answers and metric by each side's own.

    resamples: of the bootstrap behind the interval; 0 leaves it out.
    watch: told after each batch how many images have been compared.
    """
    largest = scale = 0.0
    same = positions = images = resized = converted = 0
    states: tuple[list[Tensor], list[Tensor]] = ([], [])
    for shown in batches:
        pair = shown if isinstance(shown, Pair) else Pair(shown[0], *shown)
        seen, fed, target = pair[:3]
        expected = student_answer(network, seen)
        reference = expected if fed is seen else student_answer(network, fed.contiguous())
        found = torch.from_numpy(np.ascontiguousarray(answer(runtime, fed.contiguous().numpy(), batch))).float()
        if found.shape != reference.shape or not bool(found.isfinite().all()):
            found = torch.full_like(reference, float("nan"))
        largest = max(largest, difference(found, reference))
        scale = max(scale, float(reference.abs().max()))
        answers, references = pair.answers(found), pair.answers(reference)
        own = references if fed is seen else list(expected)
        for row in range(len(answers)):
            logits, truth = answers[row][None], target[row : row + 1]
            converted += task.agreeing(references[row][None], logits.nan_to_num(0.0), truth)[0]
            hit, total = task.agreeing(own[row][None], logits.nan_to_num(0.0), truth)
            same, positions = same + hit, positions + total
            for side, shown_logits in zip(states, (own[row][None], logits), strict=True):
                side.append(paired.states(task, classes, shown_logits, truth)[0].double())
        images += len(fed)
        resized += 0 if fed is seen else len(fed)
        watch(images)
    student, export = (torch.stack(side) for side in states)
    mine, other = (paired.metric(task, classes, side) for side in (student, export))
    labeled: dict[str, Any] = {}
    if mine is not None and other is not None:
        interval = paired.interval(task, classes, student, export, resamples) if resamples else None
        labeled = {"metric": task.headline, "student": mine, "export": other, "interval": interval}
    return Agreement(
        images,
        largest,
        scale,
        100 * same / positions,
        positions,
        resized=resized,
        converted=100 * converted / positions,
        **labeled,
    )


def first_apart(layers: Sequence[tuple[str, float]] | None, precision: str) -> str:
    """Where an export leaves the student, in words; empty where the runtime lets us see nothing of it."""
    if layers is None:
        return ""
    for name, apart in layers:
        if not apart <= LIMITS[precision].activation:
            return f" It starts at layer '{name}', whose activations differ by {apart:.2g} of their largest."
    return ""
