"""The balance gauge of two networks, at each evaluation of a run and on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import summary
from counterpoise.data.sources.base import ImageSet
from counterpoise.engine.evaluator import answers, in_classes_of
from counterpoise.engine.processes import Processes
from counterpoise.engine.progress import say
from counterpoise.errors import DataError
from counterpoise.models.network import VisionModel
from counterpoise.objectives.gauge import Gauge
from counterpoise.tasks import Evaluation, Task, get
from counterpoise.teachers.live import LiveTeacher

KEPT_BYTES = 200_000_000
"""A run keeps the teacher's answers on the val set up to this size, over all processes; else it logs no gauge."""


class EvaluationGauge:
    """Compares each evaluation of a student with the teacher's answers, which are asked once and kept.

    Args:
        images: size of the val set.
        num_classes: width of the logits.
        task: says how answers are compared.
        sigmoid: as for `Gauge`.
    """

    def __init__(self, images: int, num_classes: int, task: Task, processes: Processes, sigmoid: bool = False) -> None:
        self.images = images
        self.task = task
        self.processes = processes
        self.gauge = Gauge(num_classes, sigmoid=sigmoid)
        self.kept: list[Tensor] = []
        self.fits = True
        self.seen = 0

    def remember(self, logits: Tensor) -> None:
        """The teacher's answer to the next images of this process."""
        if not self.kept and logits[0].numel() * 4 * self.images > KEPT_BYTES:
            self.fits = False
        if self.fits:
            self.kept.extend(logits.float().cpu())

    def ask(self, teacher: LiveTeacher, loader: Evaluation) -> None:
        """Let the teacher answer all images, unless that is too much to keep."""
        for _, logits in answers(teacher.model, loader, teacher.device):
            self.remember(logits)
            if not self.fits:
                return

    def compare(self, logits: Tensor) -> None:
        """The student's answer to the next images of this process."""
        if self.fits and self.kept:
            # One by one, for batches of the two may differ in size.
            teacher = torch.stack(self.kept[self.seen : self.seen + len(logits)])
            self.gauge.update(*self.task.alike(logits, teacher))
            self.seen += len(logits)

    def values(self) -> dict[str, float]:
        """The gauge's short form over all processes, and a fresh start; nothing where answers were not kept."""
        self.gauge.state = self.processes.add(self.gauge.state)
        values = {} if self.processes.any(not self.fits) else self.gauge.short()
        self.gauge.state = torch.zeros_like(self.gauge.state)
        self.seen = 0
        return values


def compare_models(
    student: VisionModel,
    teacher: VisionModel,
    images: ImageSet,
    data: config.Data,
    device: torch.device,
    batch_size: int,
    temperature: float,
    sigmoid: bool = False,
    show: bool = False,
) -> dict[str, Any]:
    """The whole gauge of a student beside a teacher on images, in float32.

    Raises DataError where the classes differ or no image can be read.
    """
    if images.classes:
        images = in_classes_of(student, images)
    gauge = Gauge(student.num_classes, temperature, sigmoid)
    task = get(student.task)
    task.check(images)
    loaders = [task.eval_loader(images, model, data, batch_size=batch_size) for model in (student, teacher)]
    say(summary.of_images(images).add("shown", loaders[0].shown()), show)
    both = (
        answers(model.to(device), loader, device) for model, loader in zip((student, teacher), loaders, strict=True)
    )
    for (batch, student_logits), (_, teacher_logits) in zip(*both, strict=True):
        gauge.update(*task.alike(student_logits, teacher_logits, batch.target))
    result = gauge.compute()
    if not result["positions"]:
        raise DataError("The data has no image to compare student and teacher on.")
    return {**result, "corrupt": list(loaders[0].corrupt)}
