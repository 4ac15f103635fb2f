"""A training task for timm: its own training script distils with the objective of a run, from a store or a teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from counterpoise.engine.inputs import RunLike
from counterpoise.integrations.batches import Batches, TaughtBatch
from counterpoise.integrations.distillation import Distillation
from counterpoise.models.network import logits_of
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
import timm  # noqa: E402 - torchvision comes with it
from timm.task import TrainingTask  # noqa: E402


class DistillationTask(TrainingTask):
    """A run in the manner of timm.task, in the place of `LogitDistillationTask`.

    Called with the batches of `loader`, it takes what the run's teacher says of each view, live or from a store. Called
    with images of timm's own loader and their labels, it asks the teacher itself about them; a store is then refused.

    Args:
        run: a run file's path, its values, or a resolved `Run`; see `Distillation`.
        student_model: the network of the training script, the one that the run's student.model names.
        device, dtype, verbose: as for timm's own tasks.
        others: `teacher`, `data`, `epochs` and, with timm's own loader, `steps`, as for `Distillation`.

    Attributes:
        distillation: the run.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data, the models or the store.
    """

    def __init__(
        self,
        run: RunLike,
        student_model: nn.Module,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.distillation = Distillation(run, student=student_model, device=self.device, show=verbose, **others)
        self.trainable_module = student_model

    @property
    def loader(self) -> Batches:
        """The run's batches, in the place of timm's own training loader."""
        return self.distillation.loader

    def forward(self, input: Tensor, target: Tensor | TaughtBatch) -> dict[str, Tensor]:
        """`loss` and `output` (logits), and each term of the objective by its name with "_loss" behind it."""
        batch = target if isinstance(target, TaughtBatch) else self.distillation.teach(input, target)
        output = self.trainable_module(input.to(self.dtype))
        total, terms = self.distillation.terms(output, batch)
        logits = logits_of(output, self.distillation.student.name)
        named = {f"{name.replace('/', '_')}_loss": value for name, value in terms.items()}
        return {"loss": total, "output": logits, **named}

    def save(self, path: str, ema: bool = True) -> None:
        """Write the student folder, of the moving average of weights where there is one and `ema` is set."""
        average = self.get_trainable_module(ema=True) if ema else None
        self.distillation.save(path, average or self.trainable_module, by=f"timm {timm.__version__}")

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights: see `Distillation.state_dict`."""
        return {} if ema else self.distillation.state_dict()

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Go on with it."""
        if not ema:
            self.distillation.load_state_dict(state)

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> DistillationTask:
        """Let processes train together."""
        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, *args: Any, **kwargs: Any) -> nn.Module:  # type: ignore[override]  # as timm's own tasks do
        """Compile the student; arguments of `torch.compile`."""
        compiled: Any = torch.compile(self.trainable_module, *args, **kwargs)
        self.trainable_module = self.eval_model = compiled
        return self.trainable_module
