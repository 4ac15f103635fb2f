"""Advice on tiny students of digits: gradients of one strength, nothing of val seen, the same after a kill."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise import config
from counterpoise.engine.matching import gradient_norms
from counterpoise.objectives import base as objectives
from counterpoise.studies import plan
from counterpoise.studies.advising import candidates as trying
from counterpoise.studies.advising.candidates import ALONE, GIVEN

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
QUICK = ("--rungs", "2", "4", "--keep", "0.2", "--seeds", "2", "--strengths", "2", "--val_images", "20")


@pytest.fixture
def asked(comparison: Values) -> Values:
    """The values of a run file that distils with KD."""
    train = {**comparison["run"]["train"], "batch_size": 5, "optimizer": {"learning_rate": 0.1}}
    return {**comparison["run"], **comparison["methods"]["kd"], "train": train, "out": "taught"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_advice_compares_the_best_over_fresh_seeds_and_goes_on_where_it_was_stopped(
    asked: Values, write: Write, run: Run
) -> None:
    Path("taught-advice").mkdir()
    Path("taught-advice/tried.csv").write_text("mine")
    code, _, error = run("advise", str(write(asked)), *QUICK)
    assert (code, "tried.csv is there already" in error) == (2, True)
    Path("taught-advice/tried.csv").unlink()
    code, out, error = run("advise", str(write(asked)), *QUICK, "--json")
    assert code == 0, error
    told = json.loads(out)
    assert told["out"] == "taught-advice"
    tried = {row["candidate"]: row for row in told["tried"]}
    assert {GIVEN, ALONE, "reverse, T 2, strength 2", "both sides, T 1, strength 2", "dist, strength 2"} <= set(tried)
    assert len(tried) == 13
    went_on = [name for name, row in tried.items() if "4 epochs" in row]
    first = sorted((row["2 epochs"] for row in tried.values()), reverse=True)
    assert min(tried[name]["2 epochs"] for name in went_on) == first[2]  # a fifth of 13, and what is begun counts
    compared = {row["candidate"]: row for row in told["compared"]}
    assert len(compared) == 3
    assert GIVEN in compared
    assert told["best"] == max(compared, key=lambda name: compared[name]["mean"])
    assert yaml.safe_load(Path("taught-advice/advice.yaml").read_text()) == {"objective": told["objective"]}
    assert [row["candidate"] for row in rows(Path("taught-advice/advice.csv"))] == list(compared)
    files = [config.read(path) for path in Path("taught-advice/runs").rglob("run.yaml")]
    assert {values["data"]["held_out"] for values in files} == {20}
    seeds = {values["seed"] for values in files if values["train"]["epochs"] == 2}
    assert seeds == {0}
    assert {1, 2} <= {values["seed"] for values in files}
    again = (*QUICK, "--out", "stopped")
    assert run("advise", str(write(asked)), *again, "--minutes", "0.0001")[0] == 3
    assert not Path("stopped/advice.yaml").exists()
    assert run("advise", str(write(asked)), *again)[0] == 0
    for name in ("tried.csv", "advice.csv", "advice.yaml"):
        assert Path("stopped", name).read_bytes() == Path("taught-advice", name).read_bytes()


def test_the_gradient_of_each_candidate_is_as_long_as_asked(asked: Values) -> None:
    values = {key: value for key, value in asked.items() if key != "out"}
    run, _ = plan.complete(values, "run")
    found = {one.name: one for one in trying.candidates(values, run, [1.0, 4.0]).candidates}
    for name in ("reverse, T 1, strength 1", "both sides, T 4, strength 4", "dist, strength 4"):
        one = found[name]
        norms = [gradient_norms({**values, "seed": seed, "objective": dict(one.objective)}) for seed in range(3)]
        teacher, labels = (sum(each[term] for each in norms) for term in ("teacher", "cross_entropy"))
        assert teacher / labels == pytest.approx(one.strength, rel=1e-3)
    assert found[GIVEN].objective["forward_kl"]["weight"] == 3.6


def test_what_is_not_tried_and_what_strengths_are_measured_by_are_said(asked: Values) -> None:
    heard = {key: value for key, value in asked.items() if key != "out"}
    run, _ = plan.complete({**heard, "objective": {"forward_kl": {"weight": 3.6, "temperature": 2.0}}}, "run")
    tried = trying.candidates(heard | {"objective": {"forward_kl": {"weight": 3.6, "temperature": 2.0}}}, run, [1.0])
    assert ALONE not in {one.name for one in tried.candidates}
    assert "as long as that of the terms of the run file" in " ".join(tried.lines())
    left = trying.Tried(tried.candidates, tried.beside, {"cwd": "it is for scenes"})
    assert "cwd is left out: it is for scenes" in list(left.lines())


def test_a_part_that_the_run_file_holds_out_itself_is_said_to_be_another(asked: Values, write: Write, run: Run) -> None:
    own = {**asked, "data": {**asked["data"], "held_out": 30}}
    _, _, told = run("advise", str(write(own)), "--minutes", "0.0001", *QUICK)
    assert "data.held_out of the run file is 30: to choose by, 20 training images are held out instead" in told


def test_nothing_is_advised_where_no_teacher_is_heard(asked: Values, write: Write, run: Run) -> None:
    code, _, error = run("advise", str(write({**asked, "objective": {"cross_entropy": {}}})))
    assert code == 2
    assert "no term that listens to a teacher" in error
    code, _, error = run("advise", str(write(asked)), "--val_images", "60")
    assert code == 2
    assert "fewer than the 60 training images" in error
    code, _, error = run("advise", str(write(asked)), "--strengths", "0")
    assert code == 2
    assert "strengths" in error


@pytest.mark.slow
def test_no_order_is_told_where_all_score_alike(asked: Values, write: Write, run: Run) -> None:
    still = {**asked, "train": {**asked["train"], "optimizer": {"learning_rate": 1e-12}}}
    code, _, error = run("advise", str(write(still)), *QUICK)
    assert code == 2
    assert "After 2 epochs all candidates score" in error
    assert "all go on to the next rung" in error
    assert re.search(r"Error: After 4 epochs all candidates score [\d.]+, and their teacher [\d.]+: ", error)
    assert not Path("taught-advice/advice.yaml").exists()


@pytest.mark.parametrize("task", ["classification", "segmentation", "multilabel", "multilabel_segmentation"])
def test_every_task_has_both_sides_at_every_temperature(task: str) -> None:
    shapes = trying.shapes(task)
    for temperature in trying.TEMPERATURES:
        for side in ("forward", "both sides", "reverse"):
            assert f"{side}, T {temperature:g}" in shapes
    for term in shapes.values():
        arguments = {key: value for key, value in term.items() if key != "objective"}
        assert objectives.find(term["objective"]).kind(**arguments) is not None
