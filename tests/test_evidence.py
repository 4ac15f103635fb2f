"""The scripts behind docs/evidence.md: files that resolve, and choices that follow the held-out images."""

from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

import counterpoise
from counterpoise.studies import plan, search_plan

EVIDENCE = Path(__file__).resolve().parents[1] / "benchmarks" / "evidence"
RESULTS = EVIDENCE.parent / "results"
BALANCED = ("balance", "balance-entropy", "balance-head-tail", "balance-on-dkd", "balance-on-dist")


def test_every_method_of_the_search_has_the_same_chances() -> None:
    found = search_plan.read(EVIDENCE / "search.yaml")  # refuses weights that are not all of the total
    assert {"alone", "kd", "dkd", "dist", "kd-standardized", "reverse-kl", "jsd", "balance"} <= set(found.design)
    for points in found.design.values():
        assert len(points) == found.plan.trials == 16
        assert {"learning_rate", "weight_decay"} <= set(points[0])
    ranges = found.ranges["balance"]
    assert (ranges["total"].low, ranges["total"].high) == (0.5, 30)
    assert (ranges["temperature"].low, ranges["temperature"].high) == (1, 8)
    assert (ranges["share"].low, ranges["share"].high) == (0.1, 0.9)
    assert found.plan.val_images == 5000


@pytest.mark.parametrize("name", ["resnet8x4", "resnet20", "patient"])
def test_comparisons_of_the_gpu_are_recipe_a_but_for_what_they_say(name: str) -> None:
    found = plan.read(EVIDENCE / f"gpu-{name}.yaml")
    assert found.plan.baseline == "kd"
    assert found.plan.primary == "balance"
    for job in found.jobs:
        assert job.run.train.epochs == 240
        assert job.run.train.precision == "bf16"


def searched(folder: Path, scores: dict[str, float]) -> None:
    methods = {name: {"objective": {"cross_entropy": {"weight": 0.1}}} for name in scores}
    common = {"student": {"model": "cifar/resnet8"}, "data": {"path": "data"}}
    folder.mkdir()
    final = {"out": "x", "run": common, "methods": methods, "seeds": [1], "baseline": "kd", "primary": "balance"}
    (folder / "final.yaml").write_text(yaml.safe_dump(final))
    lines = ["method,trial,top1_1_epochs,top1_3_epochs"]
    for name, score in scores.items():
        lines += [f"{name},0,99.0,", f"{name},1,10.0,{score}", f"{name},2,10.0,{score - 1}"]
    (folder / "search.csv").write_text("\n".join(lines) + "\n")


def test_rule_host_and_rival_are_the_best_of_the_last_rung(tmp_path: Path) -> None:
    scores = dict.fromkeys(["alone", "kd", "dkd", "dist", "kd-standardized", "reverse-kl", "jsd", *BALANCED], 30.0)
    searched(tmp_path / "search", {**scores, "dist": 31.0, "balance-head-tail": 33.0, "balance-on-dist": 32.0})
    done = subprocess.run(
        [sys.executable, EVIDENCE / "choose.py", tmp_path / "search", tmp_path],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "rule balance-head-tail, host balance-on-dist, rival dist, balanced balance-head-tail" in done.stdout
    small, large = (yaml.safe_load((tmp_path / f"{name}.yaml").read_text()) for name in ("resnet8", "resnet20"))
    assert list(small["methods"])[-3:] == ["balance", "balance-head-tail", "balance-on-dist"]
    assert (small["primary"], len(small["seeds"])) == ("balance", 5)
    assert list(large["methods"]) == ["alone", "kd", "dist", "balance-head-tail"]
    assert large["run"]["student"] == {"model": "cifar/resnet20"}
    assert large["primary"] == "balance-head-tail"


def test_the_map_has_few_images_and_what_was_not_picked(tmp_path: Path) -> None:
    scores = dict.fromkeys(["alone", "kd", "dkd", "dist", "kd-standardized", "reverse-kl", "jsd", *BALANCED], 30.0)
    searched(tmp_path / "search", {**scores, "balance-head-tail": 33.0, "balance-on-dist": 32.0})
    subprocess.run([sys.executable, EVIDENCE / "choose.py", tmp_path / "search", tmp_path], check=True)
    few, family = (yaml.safe_load((tmp_path / f"{name}.yaml").read_text()) for name in ("few-10", "family"))
    assert few["run"]["data"]["held_out"] == 45_000
    assert list(family["methods"]) == ["kd", "balance-entropy", "balance-on-dkd"]


@pytest.mark.parametrize("name", ["dist", "precision", "few-25"])
def test_comparisons_of_the_cores_have_the_values_that_the_search_found(name: str) -> None:
    with (RESULTS / "evidence_resnet8_results.csv").open(newline="", encoding="utf-8") as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    compared = plan.read(EVIDENCE / f"{name}.yaml")
    chosen = {job.cell[-1]: job.run for job in compared.jobs if job.cell[-1] in found}
    assert len(chosen) == {"dist": 2, "precision": 1, "few-25": 3}[name]
    for method, run in chosen.items():
        row, optimizer = found[method], run.train.optimizer
        assert (optimizer.learning_rate, optimizer.weight_decay) == (
            float(row["learning_rate"]),
            float(row["weight_decay"]),
        )
        expected = json.loads(row["objective"])
        assert run.objective.keys() == expected.keys()
        for term, part in run.objective.items():
            assert part.model_dump(exclude_unset=True, exclude_none=True) == pytest.approx(expected[term])


@pytest.mark.parametrize(("name", "changed"), [("stronger", set()), ("longer", {"epochs", "evaluate_every"})])
def test_what_follows_the_table_of_teachers_keeps_its_setting(name: str, changed: set[str]) -> None:
    before = {job.cell[1]: job.run for job in plan.read(EVIDENCE / "teachers.yaml").jobs}
    after = plan.read(EVIDENCE / f"{name}.yaml")
    assert (after.plan.baseline, after.plan.primary) == ("kd", "balance")
    for job in after.jobs:
        then, now = before[job.cell[1]], job.run
        assert (now.objective, now.student, now.data) == (then.objective, then.student, then.data)
        values, former = now.train.model_dump(), then.train.model_dump()
        assert {key for key in values if values[key] != former[key]} == changed


def test_a_teacher_is_kept_at_half_the_size_with_its_recipe(tmp_path: Path) -> None:
    run = tmp_path / "run"
    values = {
        "data": {"source": "digits", "options": {"train_size": 100}},
        "student": {"model": "digits/cnn_8_16"},
        "train": {"epochs": 1, "precision": "fp32", "device": "cpu"},
        "out": str(run),
    }
    counterpoise.train(values)
    kept = tmp_path / "teacher.safetensors"
    subprocess.run([sys.executable, EVIDENCE / "keep.py", run, kept], check=True, capture_output=True)
    whole = load_file(run / "student" / "model.safetensors")
    for name, value in load_file(kept).items():
        torch.testing.assert_close(value.to(whole[name].dtype), whole[name], rtol=1e-3, atol=1e-6)
    with safe_open(kept, "pt") as file:
        assert yaml.safe_load(file.metadata()["recipe"])["student"]["model"] == "digits/cnn_8_16"
    teacher = {"model": "digits/cnn_8_16", "checkpoint": str(kept), "accept_chance": True}
    distilled = {**values, "teacher": teacher, "out": str(tmp_path / "d")}
    assert counterpoise.distill({**distilled, "student": {"model": "digits/cnn_4_8"}}).last["top1"] > 0


def test_rows_of_finished_runs_are_kept_by_several_at_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    kept_rows = runpy.run_path(str(EVIDENCE / "kept_rows.py"))["KeptRows"]
    kept = kept_rows(path, "the command")
    with ThreadPoolExecutor(4) as lanes:
        list(lanes.map(lambda seed: kept.add({"way": "two, heads", "share": 0.1, "seed": seed}), range(100)))
    again = kept_rows(path, "another command")
    assert sorted(row["seed"] for row in again.rows(way="two, heads", share=0.1)) == list(range(100))
    assert [row["command"] for row in again.rows(seed=7)] == ["the command"]
    assert again.rows(seed=7, share=0.2) == []
