"""Curves in the tools that people keep them in, read back by each one's own reader."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import counterpoise
from counterpoise.config.keys import flatten
from counterpoise.config.run import Run
from counterpoise.errors import Interrupted

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 150}}


def values(out: Path, **train: Any) -> dict[str, Any]:
    plan = {"epochs": 2, "batch_size": 50, "device": "cpu", "log_every": 1, "checkpoint_minutes": 0, **train}
    return {"data": DATA, "student": {"model": "digits/cnn_4_8"}, "train": plan, "out": str(out)}


def in_two_sittings(out: Path, **train: Any) -> dict[str, list[tuple[int, float]]]:
    """A run that is stopped and goes on; its curves as metrics.jsonl has them."""
    with pytest.raises(Interrupted):
        counterpoise.train(values(out, **train), deadline=time.monotonic())
    counterpoise.train(values(out, **train), resume=True)
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()):
        for group in ("terms", "val"):
            for name, value in line.get(group, {}).items():
                if "step" in line:
                    found.setdefault(f"{line['kind']}/{name}", []).append((line["step"], value))
    return found


def test_tensorboard_has_the_curves_of_a_run_in_two_sittings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra: tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = in_two_sittings(tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {name: [(step, pytest.approx(value)) for step, value in curve] for name, curve in expected.items()}


def test_mlflow_has_the_curves_of_a_run_in_two_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow (extra: mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    expected = in_two_sittings(tmp_path / "run", mlflow=True)
    client = mlflow.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    assert kept.data.params["train.epochs"] == "2"
    found = {
        name: [(one.step, one.value) for one in client.get_metric_history(kept.info.run_id, name)] for name in expected
    }
    assert found == expected


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind seven bytes, in blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow  # its client starts a service of its own, which takes seconds
def test_wandb_has_the_curves_of_a_run_in_two_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb (extra: wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    expected = in_two_sittings(out, wandb=True)
    found: dict[str, list[tuple[int, float]]] = {}
    settings: dict[str, Any] = {}
    ids = set()
    for file in sorted(out.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for data in records_of(file.read_bytes()):
            record = wandb.proto.wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids.add(record.run.run_id)
            settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            row = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"step"}:
                if not name.startswith("_"):
                    found.setdefault(name, []).append((row["step"], row[name]))
    assert found == expected
    assert settings["train.epochs"] == flatten(Run.model_validate(values(out)))["train.epochs"]
    assert len(ids - {""}) == 1


def test_a_tracker_that_fails_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow (extra: mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = counterpoise.train(values(tmp_path / "run", mlflow=True), show=True)
    assert result.steps == 6
    said = capsys.readouterr().err
    assert said.count("train.mlflow: ") == 1
    assert "metrics.jsonl has them" in " ".join(said.split())
