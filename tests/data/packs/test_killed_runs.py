"""Runs on shards that are killed: they end in the bytes of the folder's run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def result(run: Path) -> tuple[bytes, bytes, list[Any]]:
    """All that must not depend on kills: weights, last and best, and the scores of each epoch."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return (
        (run / "student" / "model.safetensors").read_bytes(),
        (run / "checkpoints" / "best.safetensors").read_bytes(),
        [(line["epoch"], line["terms"], line["val"]) for line in lines if line["kind"] == "epoch"],
    )


@pytest.mark.parametrize("there", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "at an address"])
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_on_shards_ends_in_the_bytes_of_the_folders(
    host: Any, image_folder: Path, server: Any, tmp_path: Path, there: bool, kills: int, processes: int
) -> None:
    pack = f"{server.address}/pack" if there else str(server.folder / "pack")
    common = [
        *("train", "--student.model", "digits/cnn_4_8", "--train.batch_size", "8", "--train.log_every", "1"),
        *("--data.size", "16", "--data.shuffle", "blocks", "--data.block_size", "4", "--data.shuffle_window", "2"),
        *("--train.device", "cpu", "--train.epochs", "15", "--train.checkpoint_minutes", "0.0005", "--quiet"),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    took = host.run([*common, "--data", str(image_folder), "--data.workers", "0", "--out", str(whole)], 0, processes)
    arguments = [*common, "--data", pack, "--data.workers", "1", "--out", str(killed)]
    arguments += ["--data.options.cache", str(tmp_path / "cache")] if there else []
    done = 0
    while done < kills:
        done += host.kill_within([*arguments, *_again(killed)], took / 2, processes)
    host.run([*arguments, *_again(killed)], 0, processes)
    assert result(killed) == result(whole)


def _again(run: Path) -> list[str]:
    return ["--resume"] if (run / "run.yaml").exists() else []
