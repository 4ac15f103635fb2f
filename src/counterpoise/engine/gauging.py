"""The balance gauge of student and teacher at each evaluation of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.data.epochs import InOrder
from counterpoise.engine.evaluator import Said, answers, by_image
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, errors_explained
from counterpoise.objectives.composite import answers_by_sigmoid
from counterpoise.objectives.gauge import Gauge
from counterpoise.tasks import Task
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
        self.teacher: list[Tensor] = []  # its answers
        self.fits = True
        self.source: tuple[LiveTeacher, InOrder] | None = None
        self.seen = 0  # answers of the student

    def remember(self, logits: Tensor) -> None:
        """The teacher's answer to the next images of this process."""
        if not self.teacher and logits[0].numel() * 4 * self.images > KEPT_BYTES:
            self.fits = False
        if self.fits:
            self.teacher.extend(logits.float().cpu())

    @errors_explained()
    def ask(self, teacher: LiveTeacher, loader: InOrder) -> None:
        """Let the teacher answer all images, unless that is too much to keep."""
        self.source = teacher, loader
        with teacher.model.together():
            for _, logits in answers(teacher.model, loader, teacher.device):
                self.remember(logits)
                if not self.fits:
                    return

    def compare(self, logits: Tensor) -> None:
        """The student's answer to the next images of this process."""
        if self.fits and self.teacher:
            # One by one, for batches of the two may differ in size.
            teacher = torch.stack(self.teacher[self.seen : self.seen + len(logits)])
            self.gauge.update(*self.task.alike(logits, teacher))
            self.seen += len(logits)

    def values(self) -> dict[str, float]:
        """The gauge's short form over all processes, and a fresh start; nothing where answers were not kept."""
        self.gauge.state = self.processes.add(self.gauge.state)
        values = {} if self.processes.any(not self.fits) else self.gauge.short()
        self.gauge.state = torch.zeros_like(self.gauge.state)
        self.seen = 0
        return values


def gauge_of(parts: Parts, processes: Processes) -> EvaluationGauge:
    """The gauge of a run's student and teacher on its val images."""
    sigmoid = parts.task.sigmoid or answers_by_sigmoid(parts.run.objective)
    return EvaluationGauge(len(parts.val.images), len(parts.classes), parts.task, processes, sigmoid)


def said(gauge: EvaluationGauge | None) -> Said | None:
    """What the teacher says of the val images where it was asked and not scored; asked again where it is not kept."""
    if gauge is None or gauge.source is None:
        return None
    teacher, loader = gauge.source
    logits = iter(gauge.teacher) if gauge.fits else by_image(teacher.model, loader, teacher.device)
    return Said(teacher.model, logits)
