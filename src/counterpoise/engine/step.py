"""What a step changes: the student, an objective's own weights, the optimizer and the moving average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from counterpoise import config
from counterpoise.engine import optimization
from counterpoise.engine.processes import Processes
from counterpoise.errors import ConfigError
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs

if TYPE_CHECKING:
    from counterpoise.engine.parts import Parts


class StudentLoss(nn.Module):
    """Student and objective in one module for DistributedDataParallel, so that an objective's own weights learn too."""

    def __init__(
        self,
        student: VisionModel,
        objective: WeightedSum,
        precision: torch.dtype,
        together: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self.precision = precision
        self.together = together  # adds up a tensor over all processes, where there are several
        self.watch: Callable[[Outputs, Outputs | None, Tensor], None] | None = None  # is shown what the loss is

    def forward(
        self, images: Tensor, teacher: Outputs | None, target: Tensor, batch: InParts | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            wanted = self.objective.student_features
            student = self.student(images, wanted) if wanted else Outputs(self.student(images))
        if self.watch is not None:
            self.watch(student, teacher, target)
        total, terms = self.objective(student, teacher, target, together=self.together, batch=batch)
        return total, terms


class Optimization:
    """Student, objective and optimizer of a run.

    Attributes:
        precision: dtype of autocast; float32 is none.
        loss: (images, teacher outputs, target) -> total and named terms. Of several processes the mean is that of the
            whole batch, as DistributedDataParallel takes the mean of gradients; of the parts of a batch, the sum.
        rate: learning rate of the step at hand.
        average: the moving average of the student's weights, where there is one.
    """

    def __init__(self, run: config.Run, parts: Parts, processes: Processes) -> None:
        self.run = run
        self.student = parts.student
        self.objective = parts.objective
        self.processes = processes
        self.steps_per_epoch = parts.train.steps_per_epoch
        batch, wanted = run.train.batch_size, run.train.accumulate
        if wanted > batch // processes.world:
            raise ConfigError(
                f"train.accumulate is {wanted}, and each of {processes.world} processes has {batch // processes.world} "
                f"images of a batch of {batch} (train.batch_size): give as many parts at most."
            )
        self.precision = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
        together = processes.add if processes.world > 1 else None
        self.loss: nn.Module = StudentLoss(parts.student, parts.objective, self.precision, together)
        if processes.world > 1:
            # A walk through the graph in each step: without logits, nothing depends on the classifier's parameters.
            self.loss = DistributedDataParallel(self.loss, find_unused_parameters=parts.objective.of_features_alone)
            if run.train.reduce_dtype == "bf16":
                on_cuda = processes.device.type == "cuda"
                self.loss.register_comm_hook(None, bf16_compress_hook if on_cuda else _bf16_by_gloo)
        modules = [parts.student, parts.objective]
        self.optimizer = optimization.build_optimizer(modules, run.train.optimizer, processes.device)
        self.rate = 0.0
        self._reached = False
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average: AveragedModel | None = None
        if run.train.ema is not None:
            ema = get_ema_multi_avg_fn(run.train.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(parts.student.net, multi_avg_fn=ema, use_buffers=True)

    def begin(self, step: int) -> None:
        """Set what a step, counted from 0, has of its own: chance, schedules and the learning rate."""
        train = self.run.train
        seed_step(self.run.seed, step, self.processes)
        self.objective.set_progress(step / max(self.steps_per_epoch * train.epochs - 1, 1))
        self.rate = optimization.learning_rate(
            step, self.steps_per_epoch, train.epochs, train.optimizer.learning_rate, train.schedule
        )
        optimization.set_rate(self.optimizer, self.rate)

    def watched_by(self, watch: Callable[[Outputs, Outputs | None, Tensor], None] | None) -> None:
        """Show what the loss is shown to somebody; None: to nobody."""
        loss = self.loss.module if isinstance(self.loss, DistributedDataParallel) else self.loss
        assert isinstance(loss, StudentLoss)
        loss.watch = watch

    def one_part(self, last: bool) -> AbstractContextManager[None]:
        """Within, the loss of one part of a batch and its gradient are computed; with the last, those of all processes
        are brought together."""
        if last or not isinstance(self.loss, DistributedDataParallel):
            return nullcontext()
        return self.loss.no_sync()

    def backward(self, total: Tensor) -> None:
        """The gradient of `total`."""
        total.backward()  # type: ignore[no-untyped-call]
        if isinstance(self.loss, DistributedDataParallel) and not self._reached:
            require_reached(self.loss)
            self._reached = True

    def update(self) -> None:
        """One step of the optimizer down the gradient."""
        if self.run.train.clip_gradient is not None:
            nn.utils.clip_grad_norm_(self._trained, self.run.train.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def update_average(self) -> None:
        """Move the average towards the weights as they are now."""
        if self.average is not None:
            self.average.update_parameters(self.student.net)

    def saved_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside the optimizer's state."""
        modules = {"student": self.student.net, "objective": self.objective, **self.student.companions}
        return modules if self.average is None else {**modules, "average": self.average}

    @property
    def shipped_net(self) -> nn.Module:
        """The student's network, or the moving average where there is one."""
        return self.student.net if self.average is None else self.average.module

    def shipped_weights(self) -> dict[str, Tensor]:
        """The weights of the student as it would be shipped."""
        return {name: value.detach().cpu() for name, value in self.shipped_net.state_dict().items()}

    @contextmanager
    def shipped(self) -> Iterator[None]:
        """Within, the student computes as it would be shipped.

        What buffers have counted, such as the statistics of batch norm, is each process's own after a step; from here
        on it is the first one's, whose student is kept.
        """
        trained = self.student.net
        self.student.net = self.shipped_net
        self.processes.as_first(self.student.net.buffers())
        try:
            with self.student.shipping():
                yield
        finally:
            self.student.net = trained


def parts_of(total: int, wanted: int, world: int) -> int:
    """In how many parts every process takes its share of a batch: as many as are wanted and its images allow.

    As many in each, since some layers and rules speak with those of the other processes once a part.
    """
    return max(1, min(wanted, total // world))


def require_reached(loss: DistributedDataParallel) -> None:
    """After the first backward pass, before anything is changed: each process would wait for the others' for ever.

    Raises ConfigError where parameters that are to be trained have no gradient, unless `loss` looks for such.
    """
    missing = [name for name, p in loss.module.named_parameters() if p.requires_grad and p.grad is None]
    if missing and not loss.find_unused_parameters:
        shown = ", ".join(name.removeprefix("student.net.") for name in missing[:3])
        raise ConfigError(
            f"The objective does not depend on {len(missing)} parameters that are to be trained "
            f"({shown}{', ...' if len(missing) > 3 else ''}), and several processes would wait for their gradients. "
            "Freeze them (requires_grad_(False)), leave them out, or train in one process."
        )


def _bf16_by_gloo(_, bucket):  # type: ignore[no-untyped-def]  # as text, annotations are refused
    """The hook itself: under its own name DistributedDataParallel takes it with NCCL alone."""
    return bf16_compress_hook(None, bucket)  # type: ignore[arg-type]


def seed_step(seed: int, step: int, processes: Processes) -> None:
    """Seed dropout and the like of a step, counted from 0, whatever came before."""
    _seed(processes.device, _mix(seed, step, processes.rank))


def _mix(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one process (splitmix64's finalizer)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) & (2**63 - 1)


def _seed(device: torch.device, seed: int) -> None:
    """torch.manual_seed for the CPU and one device.

    That one asks every kind of device there could be, and writes down a stack trace for each that has not started yet.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
