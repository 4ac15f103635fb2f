"""The batches of a run for a training loop that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

from torch import Tensor

from counterpoise.data.sources.base import ImageSet
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes
from counterpoise.engine.step import seed_step
from counterpoise.errors import ConfigError, shown
from counterpoise.outputs import Outputs

MIDDLE_OF_AN_EPOCH = (
    "The checkpoint is of the middle of an epoch, and training goes on at the beginning of one: save at the end of "
    "epochs"
)
"""The beginning of a message; a tool's own way of saving there follows."""


class TaughtBatch:
    """What is to be learned of a batch. It takes the place that labels have in a training script.

    Attributes:
        labels: int64 [B], -1 where unlabeled; with mixup or cutmix float32 [B, C].
        indices: int64 [B] on the CPU, sample numbers within the training set; None of images that are not the run's.
        teacher: what the teacher says of these very views; None where the objective listens to none.
        step: number of the batch in training, from 0.
        steps: how many of them training has.
    """

    def __init__(self, labels: Tensor, indices: Tensor | None, teacher: Outputs | None, step: int, steps: int) -> None:
        self.labels = labels
        self.indices = indices
        self.teacher = teacher
        self.step = step
        self.steps = steps

    def to(self, *_: Any, **__: Any) -> TaughtBatch:
        """Itself: it lies where the student is already."""
        return self

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """The batches of a run, an epoch at a time: (pixels float32 [B, channels, H, W] as the student's network takes
    them, what is to be learned of them).

    Their order and their views are those of `counterpoise.distill`. A pass to the end is followed by that of the next
    epoch, unless `set_epoch` says otherwise.

    Attributes:
        dataset: the images.
        batch_size: images a step, over all processes together.
        epoch: which one comes next, from 0.
        given: how many batches training has had, those of earlier epochs included.
        sampler, batch_sampler: whom training scripts tell the epoch.
    """

    batch_sampler = None

    def __init__(self, parts: Parts, processes: Processes) -> None:
        self.dataset: ImageSet = parts.train.images
        self.batch_size = parts.train.batch_size
        self.epoch = 0
        self.given = 0
        self.sampler = self
        self._parts = parts
        self._processes = processes

    def __len__(self) -> int:
        return self._parts.train.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of this epoch, counted from 0. Raises ConfigError for what is no such number."""
        if not isinstance(epoch, Real) or epoch < 0 or epoch % 1:
            raise ConfigError(f"Epochs are counted from 0, got {shown(epoch)}.")
        self.epoch = int(epoch)
        self.given = self.epoch * len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, TaughtBatch]]:
        """Raises ConfigError where the run has no such epoch."""
        parts, epoch = self._parts, self.epoch
        epochs = parts.run.train.epochs
        if epoch >= epochs:
            raise ConfigError(
                f"Epoch {epoch + 1} is asked for, and the run has {epochs} (train.epochs): its schedules end there, "
                "and so may its store. Give it as many as the script trains."
            )
        batches = parts.train.epoch(epoch)
        plain = ((batch, None) for batch in batches)
        followed = plain if parts.stored is None else parts.stored.follow(epoch, batches)
        for step, (batch, recorded) in enumerate(followed, epoch * len(self)):
            batch = batch.on(self._processes.device)
            seed_step(parts.run.seed, step, self._processes)
            teacher = parts.ask_teacher(batch, recorded)
            taught = TaughtBatch(batch.target, batch.indices, teacher, step, epochs * len(self))
            self.given = step + 1
            if self.given == (epoch + 1) * len(self):  # tools that count steps do not ask for more
                self.epoch = epoch + 1
            yield parts.student.normalize(batch.images), taught
        if self.epoch == epoch:
            self.epoch = epoch + 1
