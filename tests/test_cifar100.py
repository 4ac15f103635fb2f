"""CIFAR-100 with a trained teacher: that it scores what it should, and an epoch killed in its middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.data.loader import EvalLoader
from counterpoise.engine.evaluator import quick_score
from counterpoise.engine.processes import join
from counterpoise.models import catalog

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def teacher_file(shared_data: Path) -> Path:
    return shared_data / "teachers" / "cifar100-wrn_16_2.safetensors"


def test_the_teacher_scores_what_its_metadata_says(cifar100_folder: Path, teacher_file: Path) -> None:
    model = catalog.build("cifar/wrn_16_2", checkpoint=teacher_file)
    val = sources.load(config.Data(path=cifar100_folder)).val
    assert isinstance(val, sources.ArraySet)
    loader = EvalLoader(val, size=model.input_size, crop_share=model.crop_share)
    with join("cpu") as processes:
        top1 = quick_score(model, loader, tasks.get("classification"), processes)["top1"]
    with safe_open(teacher_file, "pt") as file:
        assert top1 == pytest.approx(float(file.metadata()["test_top1"]), abs=0.2)


def test_an_epoch_killed_in_its_middle_ends_in_the_same_bytes(
    cifar100_folder: Path, teacher_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "counterpoise", "distill", "--data", str(cifar100_folder), "--quiet"]
    command += ["--teacher.model", "cifar/wrn_16_2", "--teacher.checkpoint", str(teacher_file)]
    command += ["--student.model", "cifar/resnet20", "--train.epochs", "1", "--train.checkpoint_minutes", "0.1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)

    process = subprocess.Popen([*command, "--out", str(killed)], stdout=subprocess.DEVNULL)
    while not (killed / "metrics.jsonl").exists() or '"step": 400' not in (killed / "metrics.jsonl").read_text():
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "student").exists()
    subprocess.run([*command, "--out", str(killed), "--resume"], check=True, capture_output=True)
    for name in ("student/model.safetensors", "checkpoints/best.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
