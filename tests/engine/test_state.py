"""A checkpoint is the one that was written, or is refused in a sentence; what a resumed run lacks is said."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import counterpoise
from counterpoise.engine import state
from counterpoise.errors import DivergedError, ModelError, RunError
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
    assert header(written)["format"] == 1


def test_a_run_begins_with_nothing(tmp_path: Path) -> None:
    values = asdict(state.Progress())
    assert values.pop("checked") is True
    assert not any(values.values())
    assert state.Progress(checked=False) == state.Progress(), "how a checkpoint was read is no part of where a run is"
    state.save(tmp_path / "folders" / "above" / "last", state.Progress(), *parts())
    assert state.load(tmp_path / "folders" / "above" / "last", *parts()) == state.Progress()


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
    [
        *({"step": value} for value in ("7", -1, True, 2**53)),
        *({"metrics_bytes": value} for value in (-1, 2**53)),
        *({"seconds": value} for value in (None, -0.5, math.inf, math.nan)),
        *({"sums": value} for value in ([], {"a": math.nan}, {"a": "1"})),
        {"sums_of": [{"a": 1.0}]},
        {"last": {"top1": True}},
        {"best": {"top1": "50"}},
        {"corrupt": 3},
        {"corrupt": [3]},
        {"origin": {"data": 3}},
        {"new": 1},
        {"checked": True},
    ],
    ids=str,
)
def test_a_header_with_other_values_is_refused(written: Path, changes: dict[str, Any]) -> None:
    rewrite(written, {**header(written), **changes})
    with pytest.raises(RunError, match="its header is damaged"):
        state.load(written, *parts())
    assert "is damaged" in state.good(written)
    rewrite(written, [1])
    with pytest.raises(RunError, match="another version"):
        state.load(written, *parts())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seconds": -1.0, "last": {"top1": "50"}}, "seconds"),
        ({"best": {"top1": "50"}}, "top1"),
        ({"corrupt": [3]}, "a name"),
    ],
)
def test_the_first_damage_of_a_header_is_named(written: Path, changes: dict[str, Any], named: str) -> None:
    rewrite(written, {**header(written), **changes})
    with pytest.raises(RunError, match=f"its header is damaged: {named} is not what it should be"):
        state.load(written, *parts())


def test_memory_that_runs_out_is_no_damage(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(state, "parse_json", fails)
    for read in (lambda: state.load(written, *parts()), lambda: state.origin_of(written)):
        with pytest.raises(MemoryError):
            read()
    assert "there is not enough memory" in state.good(written)


def test_a_header_at_its_bounds_is_read(written: Path) -> None:
    changes = {"step": 2**53 - 1, "seconds": 0, "sums": {"a": 1}, "sums_of": [{"a": 2.0}], "last": {"top1": math.nan}}
    rewrite(written, {**header(written), **changes, "metrics_bytes": 0})
    progress = state.load(written, *parts())
    assert (progress.step, progress.metrics_bytes, progress.sums_of) == (2**53 - 1, 0, [{"a": 2.0}])


def test_sums_are_a_process_own_or_the_mean_of_all() -> None:
    progress = state.Progress(sums={"loss": 9.0}, sums_of=[{"loss": 1.0}, {"loss": 4.0}, {"loss": 7.0}])
    assert [progress.sums_for(rank, 3)["loss"] for rank in range(3)] == [1, 4, 7]
    assert [progress.sums_for(rank, 2)["loss"] for rank in range(2)] == [4, 4]
    assert state.Progress(sums={"loss": 5.0}).sums_for(1, 2) == {"loss": 5.0}


def test_weights_that_are_not_finite_are_never_kept(written: Path, tmp_path: Path) -> None:
    before = written.read_bytes()
    modules, optimizer = parts()
    modules["student"].get_parameter("bias").data[1] = math.inf
    with pytest.raises(DivergedError, match=r"after step 9 \(student.bias\)\. .*last.safetensors, step 7"):
        state.save(written, state.Progress(step=9), modules, optimizer)
    with pytest.raises(DivergedError, match="No checkpoint had been written yet"):
        state.save(tmp_path / "other.safetensors", state.Progress(step=9), modules, optimizer)
    assert written.read_bytes() == before
    modules, optimizer = parts()
    modules["student"].register_buffer("count", torch.tensor(3))
    state.save(written, state.Progress(step=9), modules, optimizer)
    assert "step 9" in state.good(written)


def test_buffers_of_an_optimizer_come_back_in_the_order_of_their_weights_in_memory(tmp_path: Path) -> None:
    def made(pictures: Tensor | None) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(module.parameters(), 0.1)
        if pictures is not None:
            module(pictures).sum().backward()
            optimizer.step()
        return module, optimizer

    module, optimizer = made(torch.ones(1, 3, 5, 5))
    state.save(tmp_path / "last", state.Progress(step=1), {"student": module}, optimizer)
    again, loaded = made(None)
    state.load(tmp_path / "last", {"student": again}, loaded)
    for was, now in zip(optimizer.state.values(), loaded.state.values(), strict=True):
        assert was.keys() == now.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in was.items():
            assert torch.equal(value, now[name])
            assert value.stride() == now[name].stride(), name


def test_what_is_no_checkpoint_is_told_from_one_that_is_damaged(tmp_path: Path) -> None:
    write_tensors(tmp_path / "weights", {"student.weight": torch.ones(2)})
    with pytest.raises(RunError, match="is no checkpoint of counterpoise"):
        state.load(tmp_path / "weights", *parts())
    with pytest.raises(RunError, match="cannot be read"):
        state.load(tmp_path / "absent", *parts())
    assert state.origin_of(tmp_path / "weights") == state.origin_of(tmp_path / "absent") == {}


ORIGIN = {"data": "a" * 64, "val": "b" * 64, "teacher": "c" * 64, "teacher.architecture": "timm/resnet50"}


def without_teacher(origin: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in origin.items() if not key.startswith("teacher")}


def test_what_a_run_began_with_is_kept(tmp_path: Path) -> None:
    state.save(tmp_path / "last", state.Progress(origin=ORIGIN), *parts())
    assert state.origin_of(tmp_path / "last") == state.load(tmp_path / "last", *parts()).origin == ORIGIN
    assert state.teacher_of(ORIGIN) == {"weights": "c" * 64, "architecture": "timm/resnet50"}
    assert state.teacher_of(without_teacher(ORIGIN)) == {}


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (ORIGIN, {**ORIGIN, "data": "d" * 64}, r"another data than .*\(sha256 a{12}\.\.\. there, d{12}\.\.\. given\)"),
        (ORIGIN, {**ORIGIN, "val": "d" * 64}, "another validation data than"),
        (ORIGIN, without_teacher(ORIGIN), "was started with a teacher"),
        (without_teacher(ORIGIN), ORIGIN, "was started without a teacher"),
        (ORIGIN, {**ORIGIN, "teacher": "d" * 64}, r"another teacher .*\n  weights: .*\n.*teacher\.checkpoint"),
        (ORIGIN, {**ORIGIN, "teacher.architecture": "x"}, r"architecture: timm/resnet50 there.*\n.*\(teacher\.model\)"),
    ],
)
def test_a_run_goes_on_with_what_it_began_with(there: dict[str, str], here: dict[str, str], said: str) -> None:
    state.check_origin(Path("last"), there, there)
    with pytest.raises(RunError, match=said):
        state.check_origin(Path("last"), there, here)


def test_a_network_of_another_shape_is_refused(written: Path) -> None:
    module = nn.Linear(3, 5)
    with pytest.raises(RunError, match=r"does not fit this run: (.*\n.*)size mismatch"):
        state.load(written, {"student": module}, torch.optim.SGD(module.parameters(), 0.1))


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
