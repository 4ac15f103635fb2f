"""A checkpoint is the one that was written, or is refused in a sentence; what a resumed run lacks is said."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import counterpoise
from counterpoise.engine import state
from counterpoise.errors import ModelError, RunError
from counterpoise.models import checkpoint
from counterpoise.system.files import CHECKSUM, read_tensors, write_tensors


def parts() -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"student": module}, optimizer


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    state.save(path, state.Progress(step=7, metrics_bytes=3, last={"top1": 50.0}), *parts())
    return path


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        values: dict[str, Any] = json.loads(file.metadata()["counterpoise"])
    return values


def rewrite(path: Path, values: Any) -> None:
    """The same tensors beside another header, as if it had been written so."""
    tensors, metadata = read_tensors(path)
    del metadata[CHECKSUM]
    write_tensors(path, tensors, {**metadata, "counterpoise": json.dumps(values)})


def test_a_checkpoint_comes_back_as_it_was(written: Path) -> None:
    modules, optimizer = parts()
    expected = {name: value.clone() for name, value in modules["student"].state_dict().items()}
    nn.init.zeros_(modules["student"].get_parameter("weight"))
    progress = state.load(written, modules, optimizer)
    assert (progress.step, progress.last, progress.checked) == (7, {"top1": 50.0}, True)
    torch.testing.assert_close(dict(modules["student"].state_dict()), expected, rtol=0, atol=0)
    assert "checked" not in header(written)


def test_a_flipped_bit_anywhere_is_found(written: Path) -> None:
    content = written.read_bytes()
    name = content.index(CHECKSUM.encode())
    for place in (*range(8, len(content), 97), name, name + 5):
        changed = bytearray(content)
        changed[place] ^= 1
        written.write_bytes(changed)
        with pytest.raises(RunError, match=r"cannot be read|no checkpoint of counterpoise"):
            state.load(written, *parts())
    changed = bytearray(content)
    changed[-1] ^= 1
    written.write_bytes(changed)
    with pytest.raises(RunError, match="has changed since it was written"):
        state.load(written, *parts())
    with pytest.raises(ModelError, match="has changed since it was written"):
        checkpoint.read(written)


@pytest.mark.parametrize("key", ["format", "step", "metrics_bytes", "sums", "last", "best", "teacher", "corrupt"])
def test_a_header_without_a_key_is_refused(written: Path, key: str) -> None:
    rewrite(written, {name: value for name, value in header(written).items() if name != key})
    with pytest.raises(RunError, match=f"{key} is missing|another version"):
        state.load(written, *parts())


@pytest.mark.parametrize(
    "changes",
    [{"step": "7"}, {"step": -1}, {"step": True}, {"sums": []}, {"corrupt": 3}, {"new": 1}, {"seconds": None}],
)
def test_a_header_with_other_values_is_refused(written: Path, changes: dict[str, Any]) -> None:
    rewrite(written, {**header(written), **changes})
    with pytest.raises(RunError, match="its header is damaged"):
        state.load(written, *parts())
    assert "is damaged" in state.good(written)
    rewrite(written, [1])
    with pytest.raises(RunError, match="another version"):
        state.load(written, *parts())


def test_tensors_of_another_optimizer_are_refused(written: Path) -> None:
    tensors, metadata = read_tensors(written)
    for name in ("optimizer.9.momentum_buffer", "optimizer.x.y"):
        write_tensors(written, {**tensors, name: torch.ones(1)}, {"counterpoise": metadata["counterpoise"]})
        with pytest.raises(RunError, match="does not fit this run"):
            state.load(written, *parts())


def test_what_a_resumed_run_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "data": {"source": "digits", "options": {"train_size": 60}},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 2, "precision": "fp32", "device": "cpu", "batch_size": 16, "log_every": 1},
        "out": str(tmp_path / "run"),
    }
    with pytest.raises(KeyboardInterrupt):
        counterpoise.train(values, deadline=time.monotonic())
    assert capsys.readouterr().err == ""
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    tensors, metadata = read_tensors(last)
    del metadata[CHECKSUM]
    save_file(tensors, last, metadata)  # as older versions wrote it
    (tmp_path / "run" / "metrics.jsonl").unlink()
    result = counterpoise.train(values, resume=True)
    said = capsys.readouterr().err
    assert re.search(r"last\.safetensors has no checksum, as older ones had none", said)
    assert re.search(r"metrics\.jsonl is missing: curves and reports of this run lack", said)
    assert result.epochs == 2
