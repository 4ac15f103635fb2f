"""A soak is the same for one seed, sees what is lost, and loses nothing in a minute."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from soaking import jobs, plans, trees

ROOT = Path(__file__).resolve().parents[2]


def test_one_seed_gives_one_sequence_of_all_kinds() -> None:
    drawn = [plans.draw(3, number, Path("/ground")) for number in range(150)]
    assert drawn == [plans.draw(3, number, Path("/ground")) for number in range(150)]
    assert drawn[:20] != [plans.draw(4, number, Path("/ground")) for number in range(20)]
    assert {plan.job.kind.removesuffix(" scenes") for plan in drawn} == jobs.KINDS.keys() - {"scenes"}
    assert {part.what for plan in drawn for part in plan.parts} == plans.KINDS.keys()
    assert {part.world for plan in drawn for part in plan.parts} == {1, 2}


def written(folder: Path, seconds: float = 1.0, step: int = 3, weight: float = 0.5) -> Path:
    """A run of which a clock says something in each kind of file."""
    (folder / "student").mkdir(parents=True)
    save_file({"w": np.float32([weight])}, folder / "student" / "model.safetensors")
    header = {"counterpoise": json.dumps({"step": step, "train_seconds": seconds}), "counterpoise_sha256": f"{seconds}"}
    save_file({"w": np.float32([weight])}, folder / "last.safetensors", header)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": step, "stages": {"student": seconds}}) + "\n")
    (folder / "results.csv").write_text(f"seed,seconds\n{step},{seconds}\n")
    (folder / "table.md").write_text(
        f"Both:\n\n| seed | seconds a run |\n|---|---|\n| {step} | {seconds} |\n\nNo more.\n"
    )
    (folder / ".lock").write_text(f"{seconds}")
    return folder


def test_what_a_clock_says_makes_no_difference_and_all_else_does(tmp_path: Path) -> None:
    whole = trees.contents(written(tmp_path / "whole"))
    assert not trees.differences(trees.contents(written(tmp_path / "later", seconds=2.0)), whole)
    found = trees.differences(trees.contents(written(tmp_path / "step", step=4)), whole)
    assert [line.split()[0] for line in found] == ["last.safetensors", "metrics.jsonl", "results.csv", "table.md"]
    assert "step: 4 and 3" in found[0]
    found = trees.differences(trees.contents(written(tmp_path / "weight", weight=0.25)), whole)
    assert [line.split()[0] for line in found] == ["last.safetensors", "student/model.safetensors"]
    other = written(tmp_path / "other")
    (other / "results.csv").rename(other / ".results.csv.partial")
    assert trees.differences(trees.contents(other), whole) == [
        "results.csv is missing",
        ".results.csv.partial is left over",
    ]


def test_runs_that_are_near_are_told_from_others(tmp_path: Path) -> None:
    folders = [written(tmp_path / name, weight=weight) for name, weight in (("a", 0.5), ("b", 0.5001), ("c", 0.6))]
    for folder, losses in zip(folders, ([1.0, 0.5], [1.0, 0.5001], [1.0, 0.5]), strict=True):
        lines = [json.dumps({"kind": "step", "step": step, "loss": loss}) for step, loss in enumerate(losses)]
        (folder / "metrics.jsonl").write_text("\n".join(lines))
    assert not trees.distances(folders[1], folders[0])
    assert trees.distances(folders[2], folders[0]) == ["w differs by 0.1"]
    (folders[1] / "metrics.jsonl").write_text(lines[0])
    assert trees.distances(folders[1], folders[0]) == ["steps are [0] and not [0, 1]"]


NOT_RESUMED = """
import sys
from pathlib import Path
from soaking import jobs, plans, processes, trying

processes.ready()
train = {"epochs": 40, "batch_size": 10, "device": "cpu", "precision": "fp32"}
values = {"data": {**jobs.DIGITS, "workers": 0}, "student": {"model": "digits/cnn_4_8"}, "train": train}
line = ("train", "asked.yaml", "--out", "out")
parts = (plans.Part("kill", 0.0, 6, 1, 0),)
for name, resume in (("resumed", True), ("begun", False)):
    scratch = Path(sys.argv[1]) / name
    scratch.mkdir()
    report = trying.attempt(plans.Plan(0, jobs.Job("train", line, values, resume=resume), parts, 1, False), scratch)
    print(report.done["kills"], *report.lost)
"""
"""The second is done as nobody should: what was killed is begun anew in the same folder."""


@pytest.mark.slow
def test_what_does_not_go_on_is_seen(tmp_path: Path) -> None:
    paths = [str(ROOT / name) for name in ("src", "tests", "tests/helpers")]
    done = subprocess.run(
        [sys.executable, "-c", NOT_RESUMED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    resumed, begun = done.stdout.split("\n", 1)
    assert resumed == "1"
    assert begun.startswith("1 the end: exit status 2: ")


@pytest.mark.slow
def test_a_minute_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "soak.csv"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--hours", "0.017", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["lost"] == "0"
    assert min(int(row[key]) for key in ("commands", "kills", "resumes")) > 0
