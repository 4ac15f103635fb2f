"""Compare and search files that are wrong, as their writer sees it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterpoise import config
from counterpoise.studies import plan
from counterpoise.studies.results import plan_hash

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def changed(values: Values, changes: Values) -> Values:
    values = copy.deepcopy(values)
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return values


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"baseline": "kb"}, ["baseline", "Method 'kb' is unknown", "Available: alone, balance, kd"]),
        ({"primary": "balanse"}, ["primary", "Did you mean 'balance'"]),
        ({"primary": "kd"}, ["primary", "is the baseline itself"]),
        ({"primary_pair": "al"}, ["primary_pair", "Pair 'al' is unknown", "Did you mean 'all'"]),
        ({"sedes": 3}, ["sedes: unknown section. Did you mean 'seeds'"]),
        ({"seeds": 0}, ["seeds: needs at least one"]),
        ({"seeds": [1, 1]}, ["seeds: names a seed twice"]),
        ({"seeds": 10**12}, ["seeds: at most 10,000 seeds"]),
        ({"methods.kd": "a\0b"}, ["'a\\x00b' has a null character"]),
        ({"methods.kd": "~nobody-here/kd.yaml"}, ["begins with the home of somebody who has none here"]),
        ({"methods": {"a/b": {}}}, ["methods", "names become folders", "'a/b'"]),
        ({"methods.kd.train": {"epochs": 3}}, ["differ in more", "train.epochs: 2 (alone), 3 (kd), 2 (balance)"]),
        ({"methods.kd.student": {"model": "digits/cnn_8_16"}}, ["student.model: 'digits/cnn_4_8' (alone)"]),
        ({"methods.kd.teacher": {"checkpoint": "other"}}, ["teacher.checkpoint: 'other' (kd)"]),
        (
            {"methods.other": {"objective": {"forward_kl": {}}}, "methods.kd": {"objective": {"forward_kl": {}}}},
            ["Methods 'kd' and 'other'", "are the same run"],
        ),
        ({"differs": ["train.epoch"]}, ["no run has a key 'train.epoch'. Did you mean 'train.epochs'"]),
        ({"methods.kd.trian": {}}, ["run all/kd of the compare file", "trian", "Did you mean 'train'"]),
        ({"methods.kd.objective.forward_kl.temperatur": 1}, ["all/kd", "Did you mean 'temperature'"]),
        ({"methods.kd.objective": {"forward_k": {}}}, ["all/kd", "Did you mean 'forward_kl'"]),
        (
            {"run.task": "segmentation", "methods.alone.objective.cross_entropy.class_weight": "frequncy"},
            ["all/alone", "class_weight must be numbers from 0 on", "'frequncy'"],
        ),
        ({"run.teacher": None}, ["all/kd", "listen to a teacher, and no teacher"]),
        (
            {"pairs": {"photos": {}, "scenes": {"task": "segmentation"}}},
            ["several tasks: classification (photos/alone) and segmentation (scenes/alone)", "a compare file for each"],
        ),
        ({"run": "nowhere.yaml"}, ["nowhere.yaml does not exist"]),
        ({"methods": 3}, ["methods: input should be", "got 3"]),
        ({"metric": "dice"}, ["metric in the compare file", "'dice' is unknown", "loss, top1, top5"]),
        ({"metric": "top-1"}, ["Did you mean 'top1'"]),
        (
            {"run.task": "segmentation", "metric": "top1"},
            ["of segmentation 'top1' is unknown", "case_dice", "miou"],
        ),
    ],
)
def test_a_wrong_compare_file_is_explained(
    comparison: Values, write: Write, run: Run, changes: Values, messages: list[str]
) -> None:
    code, _, error = run("compare", write(changed(comparison, changes)))
    assert code == 2
    for message in messages:
        assert message in error
    assert "Traceback" not in error
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"ranges.learning_rate.low": 0.4}, ["ranges.learning_rate", "an empty range: low is 0.4 and high is 0.4"]),
        ({"ranges.decay": {"low": 1}}, ["ranges.decay", "needs low and high, or choices"]),
        ({"ranges.learning_rate": {"low": 1, "high": 2}}, ["chooses train.optimizer.learning_rate"]),
        ({"ranges.weight_decay.key": "train.optimizer.decay"}, ["chooses train.optimizer.weight_decay"]),
        ({"ranges.extra": {"key": "train.epoch", "low": 1, "high": 2}}, ["train.epoch", "Did you mean 'epochs'"]),
        (
            {"ranges.x": {"key": "train.epochs", "choices": [1, 2]}},
            ["ranges.x of", "chooses train.epochs", "any value"],
        ),
        ({"ranges.x": {"key": "seed", "choices": [7]}}, ["ranges.x of", "chooses seed", "gives each trial itself"]),
        ({"ranges.x": {"key": "train", "choices": [{"epochs": 1}]}}, ["ranges.x of", "chooses train.epochs"]),
        ({"ranges.x": {"key": "data.held_out", "low": 1, "high": 9}}, ["chooses data.held_out", "on other pictures"]),
        ({"methods.balance.ranges": {"share": {"low": 0.0, "high": 1}}}, ["share", "must lie within [0.1, 0.9]"]),
        ({"methods.balance.ranges": {"tau": {"low": 1, "high": 2}}}, ["tau", "is used nowhere"]),
        ({"methods.balance.objective.balance.forward_weight": "$totl"}, ["Range 'totl' is unknown"]),
        ({"methods.balance.objective.balance.weight": 2}, ["weigh", "together where $total is", "no more and no less"]),
        ({"methods.balance.objective.balance": {"weight": 1}}, ["must be parts of $total"]),
        (
            {
                "methods.balance.ranges": {"total": {"low": 1, "high": 9}},
                "methods.kd": {
                    "objective": {"forward_kl": {"weight": "$total"}},
                    "ranges": {"total": {"low": 1, "high": 60}},
                },
            },
            ["ranges.total of method kd", "another than that of a method before it"],
        ),
        (
            {f"methods.{name}": {"objective": {"forward_kl": {"weight": "$total"}}} for name in ("kd", "other")},
            ["Methods 'kd' and 'other'", "are the same run"],
        ),
        ({"final.baseline": "alne"}, ["final.baseline", "Did you mean 'alone'"]),
        ({"final.seeds": [0, 1]}, ["final.seeds", "must be fresh", "[0]"]),
        ({"rungs": [2, 1]}, ["rungs are epochs that rise"]),
        ({"val_images": 90}, ["data.held_out must leave something to train on: 90 of 90 images"]),
        ({"trails": 3}, ["trails: unknown section. Did you mean 'trials'"]),
        ({"metric": "miou"}, ["metric in the search file", "'miou' is unknown"]),
        ({"metric": "loss"}, ["keeps what is largest"]),
    ],
)
def test_a_wrong_search_file_is_explained(
    searched: Values, write: Write, run: Run, changes: Values, messages: list[str]
) -> None:
    code, _, error = run("search", write(changed(searched, changes)))
    assert code == 2
    for message in messages:
        assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--minutes", "0"], "--minutes must be more than 0"),
        (["--on", "rai"], "Did you mean 'ray'"),
        (["--cluster.num_gpus", "1"], "--cluster is for --on ray"),
        (["--on", "slurm", "--cluster.partitoin", "x"], "Did you mean 'partition'"),
        (["--on", "ray", "--cluster.num_gpus", "many"], "num_gpus"),
    ],
)
def test_wrong_flags_are_explained(
    comparison: Values, write: Write, run: Run, arguments: list[str], message: str
) -> None:
    code, _, error = run("compare", write(comparison), *arguments)
    assert code == 2
    assert message in error


def test_dice_may_be_compared(comparison: Values, write: Write) -> None:
    changes = {"run.task": "segmentation", "metric": "dice", "run.student.model": "digits/unet_4_8"}
    assert plan.read(write(changed(comparison, changes))).metric == "dice"


@pytest.mark.parametrize(
    ("epochs", "schedule", "known"),
    [
        (30, {"name": "cosine"}, "44136fa355b3678a"),
        (240, {"name": "multistep"}, "a6326aa965363a4a"),
        (240, {"name": "multistep", "milestones": [150, 180, 210]}, "a6326aa965363a4a"),
        (100, {"name": "multistep", "milestones": [30, 60, 90]}, "d8b02f8d538645a5"),
        (100, {"name": "multistep", "milestones": [0.3, 0.6, 0.9]}, "d8b02f8d538645a5"),
    ],
)
def test_rows_that_were_written_when_milestones_were_epochs_still_count(
    epochs: int, schedule: Values, known: str
) -> None:
    assert plan_hash(config.resolve({"train": {"epochs": epochs, "schedule": schedule}})).startswith(known)


def test_a_short_rung_keeps_the_shape_of_the_whole_run() -> None:
    schedule = {"name": "multistep", "milestones": [150, 180, 210]}
    short = plan.shortened({"seed": 1, "train": {"epochs": 240, "schedule": schedule}}, 30)
    assert short == {"seed": 1, "train": {"epochs": 30, "schedule": {**schedule, "milestones": [0.625, 0.75, 0.875]}}}
    assert plan.shortened({"train": {"epochs": 240, "schedule": schedule}}, 240)["train"]["schedule"] == schedule
    warm = {"name": "cosine", "warmup_epochs": 5}
    shorter = plan.shortened({"train": {"epochs": 20, "schedule": warm}}, 2)
    assert shorter["train"]["schedule"] == {**warm, "warmup_epochs": 0.5}
    assert plan.shortened({"train": {"epochs": 20, "schedule": warm}}, 20)["train"]["schedule"] == warm


def test_what_differs_may_be_named(comparison: Values) -> None:
    values = changed(comparison, {"methods.kd.train": {"epochs": 3}, "differs": ["train.epochs"]})
    found = plan.resolve(values, "file", Path())
    assert {job.cell[1]: job.run.train.epochs for job in found.jobs} == {"alone": 2, "kd": 3, "balance": 2}


def test_runs_come_seed_after_seed_and_alone_has_no_teacher(comparison: Values) -> None:
    pairs = {"small": {}, "large": {"student": {"model": "digits/cnn_8_16"}}}
    found = plan.resolve({**comparison, "pairs": pairs}, "file", Path())
    cells = [(pair, method) for pair in pairs for method in comparison["methods"]]
    assert [(job.cell, job.run.seed) for job in found.jobs] == [(cell, seed) for seed in (0, 1) for cell in cells]
    assert found.primary == ("small", "balance")
    assert found.metric == "top1"
    for job in found.jobs:
        assert (job.run.teacher is None) == (job.cell[1] == "alone") == (not job.distils)
        assert job.run.out == Path("out", "runs", *job.cell, f"seed-{job.run.seed}")


def test_methods_and_what_they_share_may_be_run_files(comparison: Values, write: Write, tmp_path: Path) -> None:
    write(comparison["run"], "common.yaml")
    write({"base": "terms.yaml", "objective": {"forward_kl": {"weight": 3.6, "temperature": 2.0}}}, "kd.yaml")
    write({"objective": {"cross_entropy": {"weight": 1.0}}}, "terms.yaml")
    methods = {**comparison["methods"], "kd": "kd.yaml"}
    found = plan.read(write({**comparison, "run": "common.yaml", "methods": methods}))
    assert found.jobs == plan.resolve(comparison, "file", tmp_path).jobs


def test_values_may_be_laid_over_a_run_file(comparison: Values, write: Write, tmp_path: Path) -> None:
    write(comparison["run"], "common.yaml")
    write({"objective": {"cross_entropy": {"weight": 1.0}}}, "terms.yaml")
    kd = {"base": "terms.yaml", "objective": {"forward_kl": {"weight": 3.6, "temperature": 2.0}}}
    found = plan.read(
        write({**comparison, "run": {"base": "common.yaml"}, "methods": {**comparison["methods"], "kd": kd}})
    )
    assert found.jobs == plan.resolve(comparison, "file", tmp_path).jobs
