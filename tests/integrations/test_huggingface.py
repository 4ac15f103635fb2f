"""The Trainer of Hugging Face on a small ViT with dropout. Slow, for importing it takes seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import counterpoise
from counterpoise.errors import ConfigError, RunError
from counterpoise.system import torchvision_guard

if TYPE_CHECKING:
    from hub_server import Hub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers saves it: a ViT for pictures of 8 x 8, of ten classes."""
    torchvision_guard.ready()
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(4)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.1,
        num_labels=10,
    )
    folder = tmp_path_factory.mktemp("hf") / "vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


@pytest.fixture
def trainer(vit: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a trainer for a run, whose optimizer is that of our own loop."""

    def call(run: dict[str, Any], **arguments: Any) -> Any:
        from transformers import TrainingArguments

        from counterpoise.integrations.huggingface import DistillationTrainer

        options: dict[str, Any] = {
            "output_dir": str(tmp_path / "hf"),
            "num_train_epochs": 2,
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "learning_rate": 0.05,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
        }
        return DistillationTrainer(run, args=TrainingArguments(**{**options, **arguments}))

    return call


def with_student(run: dict[str, Any], vit: Path) -> dict[str, Any]:
    optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0}
    return {
        **run,
        "student": {"model": f"hf/{vit}", "pretrained": True},
        "train": {**run["train"], "optimizer": optimizer},
    }


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_losses_and_scores_are_those_of_distill(
    taught: Any, ours: Callable[..., Any], equal: Callable[..., None], trainer: Callable[..., Any], vit: Path, kind: str
) -> None:
    run = with_student(getattr(taught, kind), vit)
    expected = ours(run)
    made = trainer(run, eval_strategy="epoch")
    losses: list[float] = []
    compute = made.compute_loss

    def recorded(*given: Any, **named: Any) -> Any:  # the log has them in four decimals
        found = compute(*given, **named)
        losses.append(found.item())
        return found

    made.compute_loss = recorded
    made.train()
    equal(expected.losses, losses)
    evaluations = [line for line in made.state.log_history if "eval_top1" in line]
    assert [line["eval_top1"] for line in evaluations][1:] == [expected.last["top1"]]
    assert ("eval_gauge/forward_kl" in evaluations[0]) == (kind == "live")
    logged = [line["loss"] for line in made.state.log_history if "loss" in line]
    torch.testing.assert_close(torch.tensor(logged), torch.tensor(losses), rtol=1e-3, atol=1e-3)


def test_the_runs_own_images_are_scored_and_not_predicted(taught: Any, trainer: Callable[..., Any]) -> None:
    made = trainer({**taught.stored, "student": {"model": "digits/cnn_4_8"}})
    assert made.evaluate(made.eval_dataset) == made.evaluate()
    items = [{"pixel_values": torch.zeros(3, 8, 8), "labels": 0}]
    for ask in (made.evaluate, made.predict):
        with pytest.raises(ConfigError, match=r"takes items with 'pixel_values'"):
            ask(made.train_dataset)
        with pytest.raises(ConfigError, match=r"networks of transformers, and DigitsNetwork takes 'images'"):
            ask(items)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("args", {"label_smoothing_factor": 0.1}, r"label_smoothing_factor .* cross_entropy: \{label_smoothing: 0.1\}"),
        ("kwargs", {"train_dataset": []}, "train_dataset would have no effect here"),
        ("kwargs", {"compute_loss_func": sum}, "compute_loss_func .* the objective of the run"),
        ("kwargs", {"compute_metrics": sum}, "compute_metrics .* train.scores"),
        ("kwargs", {"eval_dataset": [{}]}, "leave eval_dataset out"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    taught: Any, tmp_path: Path, kind: str, arguments: dict[str, Any], message: str
) -> None:
    from transformers import TrainingArguments

    from counterpoise.integrations.huggingface import DistillationTrainer

    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **(arguments if kind == "args" else {}))
    with pytest.raises(ConfigError, match=message):
        DistillationTrainer(
            {**taught.stored, "student": {"model": "digits/cnn_4_8"}},
            args=args,
            **(arguments if kind == "kwargs" else {}),
        )


def test_epochs_are_compared_before_training(
    taught: Any, trainer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = {**taught.stored, "student": {"model": "digits/cnn_4_8"}}
    for more, message in (({"num_train_epochs": 3}, "num_train_epochs=3 makes 3"), ({"max_steps": 21}, "makes 2.1")):
        with pytest.raises(ConfigError, match=f"{message} epochs, and the run has 2"):
            trainer(run, **more).train()
    trainer(run, max_steps=1).train()
    assert "max_steps=1 makes 0.1 epochs, and the run has 2" in capsys.readouterr().err


def test_the_student_is_pushed_with_its_card(
    taught: Any, trainer: Callable[..., Any], vit: Path, tmp_path: Path, hub: Hub
) -> None:
    made = trainer(with_student(taught.stored, vit), hub_model_id="acme/ducks")
    made.train()
    assert made.push_to_hub() == f"{hub.url}/acme/ducks"
    assert sorted(hub.files) == ["README.md", "model.safetensors", "student.json"]
    told = json.loads(hub.files["student.json"])
    assert told["provenance"]["trained_by"].startswith("transformers ")
    student = counterpoise.load_student(tmp_path / "hf" / "student")
    assert torch.equal(student.net.state_dict()["classifier.weight"], made.model.state_dict()["classifier.weight"])
    with pytest.raises(ConfigError, match="hub_model_id"):
        trainer(with_student(taught.stored, vit)).push_to_hub()


def test_training_goes_on_after_an_epoch_and_not_in_the_middle_of_one(
    taught: Any, ours: Callable[..., Any], trainer: Callable[..., Any], vit: Path, tmp_path: Path
) -> None:
    run = with_student(taught.stored, vit)
    expected = ours(run)
    saving = {"save_strategy": "steps", "save_steps": 5}
    whole = trainer(run, **saving)
    whole.train()
    again = trainer(run, **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "hf" / "checkpoint-10"))
    assert again.state.global_step == 20
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert again.distillation.evaluate()["top1"] == expected.last["top1"]
    with pytest.raises(ConfigError, match="middle of an epoch"):
        trainer(run, **saving).train(resume_from_checkpoint=str(tmp_path / "hf" / "checkpoint-15"))


def test_the_best_weights_are_those_of_their_checkpoint(taught: Any, trainer: Callable[..., Any], vit: Path) -> None:
    each = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    run = with_student(taught.stored, vit)
    made = trainer(run, **each, metric_for_best_model="top1", greater_is_better=False)  # an early one
    scores = iter((1.0, 2.0))
    made.distillation.evaluate = lambda network: {"top1": next(scores)}
    made.train()
    kept = type(made.model).from_pretrained(made.state.best_model_checkpoint).state_dict()
    assert made.state.best_global_step < made.state.global_step
    assert all(torch.equal(value, kept[name]) for name, value in made.model.state_dict().items())
    del made.distillation.evaluate
    epoch = counterpoise.load_student(made.save_student()).description.provenance["epoch"]
    assert epoch == {"ships": "best", "number": 1, "of": 2, "best": 1, "by": "top1"}


def test_training_goes_on_with_the_averages_of_the_objective(
    taught: Any, trainer: Callable[..., Any], tmp_path: Path
) -> None:
    tuned = {"rule": "self_tuning", "reverse_temperature": 8.0, "rule_arguments": {"minimum": 0.01, "maximum": 100.0}}
    student = {"model": "digits/cnn_4_8"}
    run = {**taught.stored, "student": student, "objective": {"cross_entropy": {}, "balance": tuned}}

    def losses(made: Any) -> list[float]:
        return [line["loss"] for line in made.state.log_history if "loss" in line]

    whole, again = trainer(run, save_strategy="epoch"), trainer(run, save_strategy="epoch")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "hf" / "checkpoint-10"))
    assert losses(again) == losses(whole)
    (tmp_path / "hf" / "checkpoint-10" / "distillation.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="cannot be read"):
        again.train(resume_from_checkpoint=str(tmp_path / "hf" / "checkpoint-10"))
