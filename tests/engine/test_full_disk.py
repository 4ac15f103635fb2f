"""A disk that fills while a checkpoint is written: a real file system, too small for the second checkpoint."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 360 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=360k", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount; that a file limit leaves the older file is tested in test_files.py")
    if done.returncode:
        pytest.skip(f"may not mount a file system here ({done.stderr.strip()}); see test_files.py for a file limit")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_the_older_checkpoint_survives_and_the_run_goes_on_with_room(small_disk: Path, host: Any) -> None:
    out = small_disk / "run"
    command = ["train", "--data.source", "digits", "--quiet", "--out", str(out)]
    command += ["--data.options.train_size", "100", "--student.model", "digits/cnn_32_64", "--train.epochs", "2"]
    command += ["--train.device", "cpu", "--train.precision", "fp32"]
    host.run(command, code=2)
    said = host.said()
    assert "the disk is full" in said
    assert "The older last.safetensors is intact" in said
    assert "Traceback" not in said
    with safe_open(out / "checkpoints" / "last.safetensors", "pt") as file:
        assert '"step": 2,' in file.metadata()["counterpoise"]
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    host.run([*command, "--resume"])
    assert (out / "student" / "model.safetensors").exists()
