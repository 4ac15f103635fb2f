"""torchvision's reference script with the patch of docs/integrations.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

import counterpoise

STUDENT = {"model": "torchvision/shufflenet_v2_x0_5"}
SCRIPT = "TORCHVISION_TRAIN_SCRIPT"
RECORDING = """
import json, runpy, sys
from pathlib import Path
from safetensors.torch import load_file
from counterpoise import Distillation
from counterpoise.system import torchvision_guard
torchvision_guard.ready()
begin, loss, losses = Distillation.__init__, Distillation.loss, []
def begun(self, run, *, student, **others):
    student.load_state_dict(load_file("start.safetensors"))
    begin(self, run, student=student, **others)
def recorded(self, output, batch):
    losses.append(loss(self, output, batch))
    return losses[-1]
Distillation.__init__, Distillation.loss = begun, recorded
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
Path("losses.json").write_text(json.dumps([value.item() for value in losses]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["live", "stored"])
def test_the_reference_script_has_the_losses_of_distill(
    taught: Any,
    ours: Callable[..., Any],
    equal: Callable[..., None],
    patched: Callable[[Path, str], Path],
    digit_folder: Path,
    kind: str,
    tmp_path: Path,
) -> None:
    if SCRIPT not in os.environ:
        pytest.skip(f"{SCRIPT} does not say where references/classification/train.py of torchvision is")
    script = patched(Path(os.environ[SCRIPT]), "references/classification/train.py")
    given = getattr(taught, kind)
    optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0}
    run = {**given, "student": STUDENT, "train": {**given["train"], "optimizer": optimizer}}
    save_file(counterpoise.Distillation(run).student.weights(), tmp_path / "start.safetensors")
    expected = ours(run, tmp_path / "start.safetensors")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    options = (
        f"--data-path {digit_folder} --model shufflenet_v2_x0_5 --device cpu --batch-size 20 --epochs 2 --workers 0"
    )
    options += " --lr 0.05 --momentum 0.9 --weight-decay 0 --lr-step-size 100 --output-dir out"
    options += " --val-resize-size 8 --val-crop-size 8 --train-crop-size 8"
    done = subprocess.run(
        [sys.executable, "-c", RECORDING, script, *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    equal(expected.losses, json.loads((tmp_path / "losses.json").read_text()))
    student = counterpoise.load_student(tmp_path / "out" / "student")
    assert student.name == "torchvision/shufflenet_v2_x0_5"
    assert student.description.metrics["last"]["top1"] == expected.last["top1"]
