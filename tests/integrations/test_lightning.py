"""Lightning's trainer. Slow, for importing it takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import counterpoise
from counterpoise.errors import ConfigError
from counterpoise.system import torchvision_guard

pytestmark = pytest.mark.slow
STUDENT = {"model": "timm/test_resnet", "input_size": 8, "arguments": {"drop_rate": 0.2}}


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """Train a module of a run with Lightning; the module, with what it logged, and its trainer."""

    def call(given: dict[str, Any], start: Path | None = None, every: int = 1, **options: Any) -> Any:
        torchvision_guard.ready()
        from lightning import pytorch as pl

        from counterpoise.integrations.lightning import DistillationMixin, StudentCallback

        class Student(DistillationMixin, pl.LightningModule):
            run = given

            def __init__(self) -> None:
                super().__init__()
                self.losses: list[float] = []

            def configure_optimizers(self) -> torch.optim.Optimizer:
                if (tmp_path / "start.safetensors").exists():
                    from safetensors.torch import load_file

                    self.network.load_state_dict(load_file(tmp_path / "start.safetensors"))
                return torch.optim.SGD(self.network.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)

            def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
                self.losses.append(outputs["loss"].item())

        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path / "lightning",
            callbacks=[StudentCallback(tmp_path / "student", every)],
            **{"max_epochs": 2, **options},
        )
        module = Student()
        trainer.fit(module, ckpt_path=start)
        return module, trainer

    return call


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_losses_and_scores_are_those_of_distill(
    taught: Any,
    ours: Callable[..., Any],
    equal: Callable[..., None],
    fit: Callable[..., Any],
    kind: str,
    tmp_path: Path,
) -> None:
    run = {**getattr(taught, kind), "student": STUDENT}
    save_file(counterpoise.Distillation(run).student.weights(), tmp_path / "start.safetensors")
    expected = ours(run, tmp_path / "start.safetensors")
    module, trainer = fit(run, enable_checkpointing=True)
    equal(expected.losses, module.losses)
    logged = trainer.callback_metrics
    assert float(logged["val/top1"]) == pytest.approx(expected.last["top1"])
    assert ("gauge/reverse_kl" in logged) == (kind == "live")
    assert {"cross_entropy", "balance/forward", "balance/reverse", "loss"} <= logged.keys()
    assert counterpoise.evaluate(tmp_path / "student", data=run)["top1"] == expected.last["top1"]
    saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert all(name.startswith("network.") for name in saved["state_dict"])


def test_more_epochs_than_the_run_has_are_refused(taught: Any, fit: Callable[..., Any]) -> None:
    run = {**taught.stored, "student": STUDENT, "train": {**taught.stored["train"], "epochs": 1}}
    with pytest.raises(ConfigError, match="max_epochs=2 makes 2 epochs, and the run has 1"):
        fit(run, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=r"max_steps=11 makes 1\.1 epochs"):
        fit(run, enable_checkpointing=False, max_epochs=-1, max_steps=11)


def test_training_goes_on_with_the_averages_of_the_objective(
    taught: Any, fit: Callable[..., Any], tmp_path: Path
) -> None:
    tuned = {"rule": "self_tuning", "reverse_temperature": 8.0, "rule_arguments": {"minimum": 0.01, "maximum": 100.0}}
    run = {**taught.stored, "student": STUDENT, "objective": {"cross_entropy": {}, "balance": tuned}}
    whole, _ = fit(run, enable_checkpointing=False)
    begun, trainer = fit(run, enable_checkpointing=False, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again, _ = fit(run, enable_checkpointing=False, start=tmp_path / "one.ckpt")
    assert begun.losses + again.losses == whole.losses
    loaded = type(whole).load_from_checkpoint(tmp_path / "one.ckpt")  # a module that no trainer has set up
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in begun.state_dict().items())


def test_a_checkpoint_of_the_middle_of_an_epoch_is_refused(
    taught: Any, fit: Callable[..., Any], tmp_path: Path
) -> None:
    """Training went on with the images of the beginning of the epoch."""
    run = {**taught.stored, "student": STUDENT}
    _, trainer = fit(run, enable_checkpointing=False, max_steps=15)
    trainer.save_checkpoint(tmp_path / "middle.ckpt")
    with pytest.raises(ConfigError, match="the middle of an epoch"):
        fit(run, enable_checkpointing=False, start=tmp_path / "middle.ckpt")


def test_the_last_epoch_is_evaluated_where_training_stops_early(
    taught: Any, fit: Callable[..., Any], tmp_path: Path
) -> None:
    module, trainer = fit({**taught.stored, "student": STUDENT}, every=5, max_steps=10, enable_checkpointing=False)
    expected = module.distillation.evaluate()["top1"]
    assert trainer.callback_metrics["val/top1"] == pytest.approx(expected)
