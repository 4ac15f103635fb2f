"""Lightning: a module that learns by a run, and a callback that gauges it and writes its student folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.engine.inputs import RunLike
from counterpoise.errors import ConfigError, MissingExtraError
from counterpoise.integrations.batches import MIDDLE_OF_AN_EPOCH, Batches, TaughtBatch
from counterpoise.integrations.distillation import Distillation
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
try:
    import lightning
    from lightning.pytorch import Callback
except ImportError as missing:
    raise MissingExtraError("Lightning", "lightning") from missing

STATE = "counterpoise_distillation"
"""The entry of a checkpoint for what a distillation goes on with."""


class DistillationMixin:
    """The training of a LightningModule: `class Student(DistillationMixin, LightningModule)`.

    Give `run`, and `configure_optimizers` over `self.network`. Data, views, teacher and objective come with the run.
    `load_from_checkpoint` puts the run together, for its network, so the run's data and teacher must be there.

    Attributes:
        run: a run file's path, its values, or a resolved `Run`; see `Distillation`.
        network: what is trained; where it is set before, it is what the run's student.model names. In checkpoints its
            weights are all there are: the teacher is not among the module's parameters.
        arguments: further ones of `Distillation`, such as `teacher`, `data`, `show`.
        distillation: the run, from `setup` on.
    """

    run: RunLike
    arguments: dict[str, Any] = {}  # noqa: RUF012 - it is replaced and never changed
    network: nn.Module
    distillation: Distillation

    def setup(self, stage: str) -> None:
        """Put the run together, once processes have met.

        Raises:
            CounterpoiseError: whatever is wrong with it, and more epochs than it has.
        """
        if "distillation" not in vars(self):
            device = self.trainer.strategy.root_device  # type: ignore[attr-defined]
            given = getattr(self, "network", None)
            self.distillation = Distillation(self.run, student=given, device=device, **self.arguments)
            self.network = self.distillation.network
        if stage == "fit":
            self._require_epochs(self.trainer)  # type: ignore[attr-defined]

    def forward(self, pixels: Tensor) -> Any:
        """What the network answers to pixels normalized for it."""
        return self.network(pixels)

    def train_dataloader(self) -> Batches:
        """The run's batches."""
        return self.distillation.loader

    def training_step(self, batch: tuple[Tensor, TaughtBatch], batch_idx: int) -> Tensor:
        """The loss of a batch; it is logged with each term by its name."""
        pixels, taught = batch
        total, terms = self.distillation.terms(self(pixels), taught)  # type: ignore[operator]
        self.log_dict({"loss": total.detach(), **terms}, batch_size=len(taught))  # type: ignore[attr-defined]
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the averages of an objective that has some."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint[STATE] = self.distillation.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with them; weights that are loaded without a trainer have no use for them, but for the network.

        Raises:
            ConfigError: training would go on in the middle of an epoch, with the images of its beginning.
        """
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        if "distillation" in vars(self):
            if self.trainer.state.fn == "fit" and _in_an_epoch(checkpoint):  # type: ignore[attr-defined]
                raise ConfigError(f"{MIDDLE_OF_AN_EPOCH} (ModelCheckpoint(every_n_epochs=1)).")
            self.distillation.load_state_dict(checkpoint.get(STATE))
        elif not hasattr(self, "network"):
            self.network = Distillation(self.run, device="cpu", **self.arguments).network

    def _require_epochs(self, trainer: Any) -> None:
        updates = math.ceil(len(self.distillation.loader) / trainer.accumulate_grad_batches)
        limits = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
        epochs = {
            f"{option}={limit}": limit / (updates if option == "max_steps" else 1)
            for option, limit in limits.items()
            if limit not in (None, -1)
        }
        if epochs:  # else time alone limits it
            option = min(epochs, key=lambda option: epochs[option])
            self.distillation.require_epochs(epochs[option], option)


def _in_an_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was written between two batches of an epoch."""
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    return progress.get("current", {}).get("ready", 0) > 0 and not progress.get("is_last_batch", True)


class StudentCallback(Callback):
    """Logs scores and gauge of a `DistillationMixin`, and writes its student folder at the end.

    Args:
        out: the student folder; None writes none.
        every: epochs between evaluations; the last is always evaluated.
    """

    def __init__(self, out: str | Path | None = None, every: int = 1) -> None:
        self.out = out
        self.every = every
        self.evaluated = -1  # after how many steps

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log `val/top1` and so on, and `gauge/forward_kl` and so on."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            pl_module.log_dict(self._evaluate(trainer, pl_module))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate where training ended between two evaluations, and write the student folder."""
        if self.evaluated != trainer.global_step:
            found = self._evaluate(trainer, pl_module)
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in found.items()})
            for logger in trainer.loggers:  # a module logs no more
                logger.log_metrics(found, step=trainer.global_step)
        if self.out is not None:
            pl_module.distillation.save(self.out, pl_module.network, by=f"Lightning {lightning.__version__}")

    def _evaluate(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        self.evaluated = trainer.global_step
        found = pl_module.distillation.evaluate(pl_module.network)
        return {name if name.startswith("gauge/") else f"val/{name}": value for name, value in found.items()}
