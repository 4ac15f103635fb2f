from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import counterpoise
from counterpoise.errors import ConfigError
from counterpoise.integrations.timm import DistillationTask, timm

STUDENT = {"model": "timm/test_resnet", "input_size": 32, "arguments": {"drop_rate": 0.2}}
PLAIN = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0}
SCRIPT = "TIMM_TRAIN_SCRIPT"


def with_student(run: dict[str, Any]) -> dict[str, Any]:
    """The run, with a student of timm that drops out, and no weight decay, which timm gives to some weights alone."""
    return {**run, "student": STUDENT, "train": {**run["train"], "optimizer": PLAIN}}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(7)
    made: nn.Module = timm.create_model("test_resnet", num_classes=10, drop_rate=0.2)
    return made


def test_a_task_gives_what_timms_own_tasks_give(taught: Any, net: nn.Module) -> None:
    task = DistillationTask(with_student(taught.stored), net, verbose=False)
    pixels, batch = next(iter(task.loader))
    result = task(pixels, batch)
    assert result.keys() == {"loss", "output", "cross_entropy_loss", "balance_forward_loss", "balance_reverse_loss"}
    assert result["output"].shape == (20, 10)
    torch.testing.assert_close(result["loss"], sum(value for name, value in result.items() if name[-5:] == "_loss"))
    assert task.get_trainable_module() is net
    assert all("teacher" not in name for name in task.state_dict())
    with pytest.raises(ConfigError, match="a store knows no others"):
        task(pixels, batch.labels)


def test_the_teacher_itself_looks_at_images_of_timms_own_loader(taught: Any, net: nn.Module) -> None:
    sized = {**with_student(taught.live), "student": {**STUDENT, "input_size": 8}}  # as the teacher's own
    task = DistillationTask(sized, net.eval(), verbose=False, steps=20)
    pixels, batch = next(iter(task.loader))
    torch.testing.assert_close(task(pixels, batch.labels)["loss"], task(pixels, batch)["loss"], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_timms_has_what_the_objective_keeps(taught: Any, net: nn.Module) -> None:
    run = {**with_student(taught.live), "objective": {"balance": {"rule": "self_tuning"}}}
    task, again = (DistillationTask(run, net, verbose=False, steps=5) for _ in range(2))
    pixels, batch = next(iter(task.loader))
    task(pixels, batch.labels)
    kept = task.get_checkpoint_state()
    again.load_checkpoint_state(kept["state_dict"], kept["task_state"])
    objective, other = (each.distillation.parts.objective.state_dict() for each in (task, again))
    assert objective
    assert all(torch.equal(value, other[name]) for name, value in objective.items())
    assert again.distillation.state_dict()["given"] == 1
    assert "task_state_ema" not in task.get_checkpoint_state(ema=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["live", "stored"])
def test_losses_are_those_of_distill(
    taught: Any, ours: Callable[..., Any], equal: Callable[..., None], net: nn.Module, kind: str, tmp_path: Path
) -> None:
    from timm.optim import create_optimizer_v2

    run = with_student(getattr(taught, kind))
    save_file(net.state_dict(), tmp_path / "start.safetensors")
    expected = ours(run, tmp_path / "start.safetensors")
    task = DistillationTask(run, net, verbose=False)
    optimizer = create_optimizer_v2(net, opt="momentum", lr=0.05, momentum=0.9, weight_decay=0.0)
    losses = []
    for epoch in range(2):
        task.loader.set_epoch(epoch)
        net.train()
        for input, target in task.loader:
            loss = task(input, target)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    equal(expected.losses, losses)
    assert task.distillation.evaluate()["top1"] == expected.last["top1"]


RECORDING = """
import json, runpy, sys
from counterpoise.integrations import timm
given, losses = timm.DistillationTask.forward, []
def forward(self, input, target):
    result = given(self, input, target)
    losses.append(result["loss"].item())
    return result
timm.DistillationTask.forward = forward
script, written, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
open(written, "w").write(json.dumps(losses))
"""


@pytest.mark.slow
def test_timms_own_script_distils_from_a_store(
    taught: Any,
    ours: Callable[..., Any],
    equal: Callable[..., None],
    net: nn.Module,
    patched: Callable[[Path, str], Path],
    digit_folder: Path,
    tmp_path: Path,
) -> None:
    if SCRIPT not in os.environ:
        pytest.skip(f"{SCRIPT} does not say where timm's train.py is, which its wheel has not")
    script = patched(Path(os.environ[SCRIPT]), "train.py")
    run = with_student(taught.stored)
    save_file(net.state_dict(), tmp_path / "start.safetensors")
    expected = ours(run, tmp_path / "start.safetensors")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    options = f"{digit_folder} --kd-model-name {tmp_path}/run.yaml --initial-checkpoint {tmp_path}/start.safetensors"
    options += " --model test_resnet --num-classes 10 --drop 0.2 --input-size 3 32 32 --val-split val --device cpu"
    options += " --batch-size 20 --opt momentum --lr 0.05 --weight-decay 0 --sched step --decay-epochs 100"
    options += " --warmup-epochs 0 --epochs 2 --workers 1 --output out --experiment e"
    done = subprocess.run(
        [sys.executable, "-c", RECORDING, script, tmp_path / "losses.json", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    equal(expected.losses, json.loads((tmp_path / "losses.json").read_text()))
    student = tmp_path / "out" / "e" / "student"
    assert counterpoise.load_student(student).name == "timm/test_resnet"
    assert counterpoise.evaluate(student, data=run)["top1"] == expected.last["top1"]
