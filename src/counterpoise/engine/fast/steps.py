"""Training steps of small images from what lies in device memory: the set, the epoch's draws and the teacher's logits.

A step takes nothing but its number: it looks up its samples, makes their views, finds the teacher's logits, and writes
weights and the values of the terms where they always are. Everything else is the same as in `Trainer.step`, and so are
the views, the order and the results: on a CPU in the same bits. On CUDA a step is one graph, see `capture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.loader import DrawnViews, TrainLoader
from counterpoise.engine.fast.capturability import last_move, numbers
from counterpoise.engine.fast.capture import Capture
from counterpoise.engine.optimization import capturable
from counterpoise.engine.processes import errors_explained
from counterpoise.engine.step import Optimization
from counterpoise.errors import ConfigError
from counterpoise.outputs import Outputs
from counterpoise.teachers.resident import ResidentTeacher

if TYPE_CHECKING:
    from counterpoise.engine.parts import Parts


class FastSteps:
    """The steps of a run that `capturability.find_obstacle` finds nothing against.

    Args:
        tell: is told, once, why steps are not captured after all. With train.fast: true that is a ConfigError.
    """

    def __init__(self, run: config.Run, parts: Parts, optimization: Optimization, tell: Callable[[str], None]) -> None:
        assert isinstance(parts.train, TrainLoader)
        self.loader = parts.train
        self.optimization = optimization
        self.live = parts.teacher
        self.stored = None if parts.stored is None else ResidentTeacher(parts.stored)
        self.device = optimization.processes.device
        self.demanded = run.train.fast is True
        self.tell = tell
        self.moves = last_move(parts.objective, self.loader.steps_per_epoch * run.train.epochs) > 0
        size = self.loader.batch_size
        # What a graph reads and writes stays where it is: the number of the step within the epoch, and so on.
        self.number = torch.zeros((), dtype=torch.int64, device=self.device)
        self._range = torch.arange(size + self.loader.plan.mixes, device=self.device)
        self._draws: DrawnViews | None = None
        self._rows: Tensor | None = None
        self._names: list[str] = []
        self._values: Tensor | None = None
        self.capture: Capture | None = None
        if self.device.type == "cuda":
            clear = partial(optimization.optimizer.zero_grad, set_to_none=True)
            self.capture = Capture(self._whole_step, optimization.loss, self.device, clear)

    def epoch(self, epoch: int, first: int) -> Iterator[tuple[list[str], Tensor, int]]:
        """The steps of an epoch from `first` on: names and values of the terms, and the size of the batch.

        Values of an epoch are gone in the next.
        """
        loader = self.loader
        self._load(epoch)
        for number in range(first, loader.steps_per_epoch):
            size = min(loader.batch_size, len(loader.images) - number * loader.batch_size)
            self.optimization.begin(epoch * loader.steps_per_epoch + number)
            self.number.fill_(number)
            with errors_explained():
                self._run(size)
            self.optimization.update_average()
            assert self._values is not None
            yield self._names, self._values[number], size

    def _load(self, epoch: int) -> None:
        """Put an epoch's draws where the steps read them."""
        indices, draws = self.loader.draw_epoch(epoch)
        if self._draws is None:
            self._draws = draws
        else:
            self._draws.copy_(draws)
        if self.stored is not None:
            rows = self.stored.rows(epoch, indices)
            self._rows = rows.to(self.device) if self._rows is None else self._rows.copy_(rows)

    def _run(self, size: int) -> None:
        if self.capture is None or size < self.loader.batch_size:  # the last batch of an epoch has its own size
            self._step(size)
            return
        known = self.capture.obstacle
        self.capture(numbers(self.optimization.objective) if self.moves else None)
        if self.capture.obstacle != known:
            if self.demanded:
                raise ConfigError(f"train.fast: {self.capture.obstacle}. Leave it at auto.")
            self.tell(f"steps are not captured: {self.capture.obstacle}")

    def _whole_step(self) -> None:
        with capturable(self.optimization.optimizer):
            self._step(self.loader.batch_size)

    def _step(self, size: int) -> None:
        """One step on the first `size` positions of the batch."""
        assert self._draws is not None
        positions = self._range[: size + self.loader.plan.mixes] + self.number * self.loader.batch_size
        images, target = self.loader.show(self._draws.at(positions))
        teacher = None
        if self.stored is not None:
            assert self._rows is not None
            teacher = Outputs(self.stored.logits(self._rows.index_select(0, positions[:size])))
        elif self.live is not None:
            teacher = self.live(images, self.optimization.objective.teacher_features)
        total, terms = self.optimization.loss(images, teacher, target)
        self.optimization.backward(total)
        self.optimization.update()
        values = torch.stack([value.detach() for value in terms.values()])
        if self._values is None:
            self._names = list(terms)
            self._values = values.new_zeros(self.loader.steps_per_epoch, len(values))
        self._values.index_copy_(0, self.number.view(1), values.unsqueeze(0))
