"""Fits of digits: real measurements, real training, real exports."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import counterpoise
from counterpoise import config
from counterpoise.commands import app
from counterpoise.data import sources
from counterpoise.deploy.measuring import measure
from counterpoise.studies.fitting import budget, costing, plan, scoring
from counterpoise.studies.fitting.options import FitOptions

Run = Callable[..., tuple[int, str, str]]
# Of one picture: 11,600, 101,696 and 350,848 multiply-adds. The last lies 17% above the budget.
SMALL, CHOSEN, OVER = (f"digits-cnn_{name}-float32" for name in ("4_8", "16_32", "32_64"))
STUDENTS = ("--students", "digits/cnn_4_8", "digits/cnn_16_32", "digits/cnn_32_64")
BUDGET = ("--budget", "multiply_adds<=0.3M, latency<=500ms, memory<=1000MB", "--runtime", "onnx")
QUICK = ("--rounds", "6", "--seconds", "0.001", "--val-images", "30", "--quiet")


def rows(out: Path = Path("fit")) -> dict[str, dict[str, str]]:
    with (out / "frontier.csv").open(newline="") as file:
        return {row["candidate"]: row for row in csv.DictReader(file)}


def lines(out: Path = Path("fit")) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def done(teacher: Path, write_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.yaml and the fit of it."""
    folder = tmp_path_factory.mktemp("fitted")
    run_file = write_run(folder)
    assert app.run(["fit", str(run_file), *BUDGET, *STUDENTS, *QUICK, "--out", str(folder / "fit")]) == 0
    return folder


@pytest.fixture
def fitted(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """run.yaml of a copy of it, which is the working folder."""
    shutil.copytree(done, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy" / "run.yaml"


@pytest.fixture
def again(fitted: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Fit again in the copy, with these arguments; exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = app.run(["fit", str(fitted), *arguments, *QUICK, "--out", "fit"])
        return code, *capfd.readouterr()

    return call


def test_a_fit_finds_the_best_that_keeps_the_budget(done: Path) -> None:
    table = rows(done / "fit")
    assert {name: row["status"] for name, row in table.items()} == {
        SMALL: "after 2 epochs",
        CHOSEN: "winner",
        OVER: "over budget",
    }
    assert float(table[CHOSEN]["top1_2_epochs"]) > float(table[SMALL]["top1_2_epochs"])
    assert table[OVER]["top1_2_epochs"] == ""
    result = json.loads((done / "fit" / "fit.json").read_text())
    assert (result["winner"], result["holds"]) == (CHOSEN, True)
    assert result["measured"]["multiply_adds"] == result["promised"]["multiply_adds"] == [0.101696, 0.101696]
    assert result["measured"]["latency"][0] <= result["measured"]["latency"][1] <= 500
    assert result["agreement"]["same"] == 100.0
    assert result["metrics"]["epoch"] == 4
    assert (done / "fit" / "frontier.svg").stat().st_size > 1000
    places = ("trials/digits-cnn_16_32/epochs-2", "final/digits-cnn_16_32")
    trial, final = ((done / "fit" / place / "run.yaml").read_text() for place in places)
    assert "held_out: 30" in trial  # so that val chooses nothing
    assert "held_out: 0" in final
    assert not list((done / "fit").glob(".measuring-*"))


def test_an_untrained_candidate_costs_what_its_trained_export_costs(done: Path) -> None:
    """Were its weights zeros and ones as a layer begins with, an exporter would optimize them away."""
    found = {line["name"]: line for line in lines(done / "fit")}
    untrained, trained = found[CHOSEN], found[f"final-{CHOSEN}"]
    assert untrained["bytes"] == pytest.approx(trained["bytes"], abs=200)
    assert untrained["parameters"] == trained["parameters"]


def test_what_was_measured_is_not_measured_again(again: Run) -> None:
    before = lines()
    code, out, _ = again(*BUDGET, *STUDENTS)
    assert code == 0
    assert "The export keeps multiply_adds<=0.3M" in " ".join(out.split())
    assert lines() == before
    Path("fit/frontier.csv").write_text("mine")
    code, _, error = again(*BUDGET, *STUDENTS)
    assert (code, "frontier.csv is there already" in error, Path("fit/frontier.csv").read_text()) == (2, True, "mine")


def test_runs_of_other_data_do_not_stand_for_it(again: Run, fitted: Path) -> None:
    fitted.write_text(fitted.read_text().replace("train_size: 100", "train_size: 90"))
    code, _, error = again("--budget", "multiply_adds<=0.3M", "--runtime", "onnx", "--students", "digits/cnn_16_32")
    assert (code, "data.options.train_size: 100 there, 90 here" in error) == (2, True)


def test_a_measurement_stands_only_for_the_same_network_task_and_data(fitted: Path) -> None:
    asked = FitOptions(budget="latency<=1s", runtime="onnx", students=["digits/cnn_4_8"], out="fit")
    values = yaml.safe_load(fitted.read_text())

    def key(changed: dict[str, Any], of: str = "classes") -> str:
        fitted.write_text(yaml.safe_dump(config.merge(values, changed)))
        planned = plan.resolve(fitted, asked)
        return costing.key(planned, planned.candidates[0], of)

    first = key({})
    same = [{"train": {"epochs": 3}}, {"data": {"workers": 1}}, {"student": {"freeze": ["features"]}}]
    assert {key(changed) for changed in same} == {first}
    others: list[dict[str, Any]] = [
        {"data": {"channels": 1}},
        {"data": {"fit": "pad"}},
        {"student": {"two_heads": True}},
        {"student": {"arguments": {"dropout": 0.1}}},
        {"task": "segmentation"},
    ]
    assert len({first, key({}, "other classes"), *map(key, others)}) == 2 + len(others)


def test_where_nothing_fits_it_says_what_comes_nearest_and_what_it_would_take(again: Run) -> None:
    code, _, error = again("--budget", "size<=1KB, latency<=500ms", "--runtime", "onnx", *STUDENTS)
    assert code == 2
    assert f"Nearest is {SMALL}: size" in error
    assert {row["status"] for row in rows().values()} == {"over budget"}
    found = re.search(r'--budget "([^"]+)"', error)
    assert found is not None
    limits = budget.parse(found[1]).limits
    size = float(rows()[SMALL]["megabytes"])
    assert size <= limits["size"] < 1.01 * size
    assert limits["latency"] == 500


def test_candidates_that_cannot_be_built_are_left_out_and_told(again: Run) -> None:
    wrong = ("digits/cnn_0", "timm/no_such_network")
    code, _, error = again(*BUDGET, "--students", *wrong)
    assert code == 2
    assert "No candidate can be exported to onnx and run" in error
    assert "Digits network 'cnn_0' is unknown" in error
    assert again(*BUDGET, *STUDENTS, *wrong)[0] == 0
    assert [row["status"] for row in rows().values()][-2:] == ["failed", "failed"]


def test_time_that_is_up_leaves_the_rest_for_the_next_call(again: Run) -> None:
    code, out, _ = again(*BUDGET, *STUDENTS, "--rungs", "1", "--minutes", "0.0001")
    assert code == 3
    assert "The same command goes on" in out
    assert again(*BUDGET, *STUDENTS, "--rungs", "1")[0] == 0


def test_an_export_that_exceeds_its_promise_is_said_so(again: Run) -> None:
    """The export of the winner takes longer than when it was chosen."""
    path = Path("fit/measurements.jsonl")
    changed = lines()
    for case in changed[-1]["cases"]:
        case["high_ms"] = 900.0
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    code, out, _ = again(*BUDGET, *STUDENTS)
    assert code == 2
    assert "The export does not keep" in out
    assert json.loads(Path("fit/fit.json").read_text())["holds"] is False


def test_wrong_arguments_are_said_before_anything_is_done(run: Run, run_file: Path) -> None:
    for arguments, told in (
        ((*BUDGET,), "There are no candidates"),
        (("--budget", "latency=5ms", "--runtime", "onnx", *STUDENTS), "write latency<=5ms"),
        (("--budget", "size<=1MB", "--runtime", "onxx", *STUDENTS), "Did you mean 'onnx'?"),
        ((*BUDGET, *STUDENTS, "--precisions", "int4"), "Precision 'int4' is unknown. Did you mean 'int8'?"),
        ((*BUDGET, *STUDENTS, "--rounds", "3"), "rounds must be 6 or more"),
        ((*BUDGET, *STUDENTS, "--keep", "1"), "keep: input should be less than 1"),
        ((*BUDGET, *STUDENTS, "--rungs", "4", "2"), "rungs are epochs that rise"),
        ((*BUDGET, *STUDENTS, "--val-images", "100"), "fewer than the 100 training images"),
    ):
        code, _, error = run("fit", run_file, *arguments, "--out", "fit")
        assert (code, told in error) == (2, True), error
        assert not Path("fit").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [12])
def test_a_killed_fit_ends_in_the_same_choice(fitted: Path, host: Any, kills: int) -> None:
    arguments = ["fit", str(fitted), *BUDGET, *STUDENTS[:3], *QUICK, "--out", str(Path("killed").resolve())]
    host.run_and_kill(arguments, 8.0, kills)
    clock = ("latency_ms", "latency_low_ms", "latency_high_ms", "p95_ms", "peak_mb", "frontier")
    whole, killed = (
        [{k: v for k, v in row.items() if k not in clock} for name, row in rows(Path(out)).items() if name != OVER]
        for out in ("fit", "killed")
    )
    assert whole == killed
    keys = [line["key"] for line in lines(Path("killed"))]
    assert len(keys) == len(set(keys)) == 3  # two candidates and the winner's export, each once
    student = "final/digits-cnn_16_32/student/model.safetensors"
    assert Path("fit", student).read_bytes() == Path("killed", student).read_bytes()


@pytest.mark.slow
def test_a_window_is_measured_scored_and_told_as_one(tmp_path: Path) -> None:
    """The winner's export is one window, which the budget is of: so are its untrained self and what scores it."""
    scenes = {"window": [16, 20], "size": [16, 20]}
    options = {"train_size": 16, "val_size": 8, "edge": 24}
    values: dict[str, Any] = {
        "task": "segmentation",
        "data": {"source": "digit_scenes", "options": options, "scenes": scenes, "workers": 0},
        "objective": {"cross_entropy": {"weight": 1.0}},
        "train": {"epochs": 1, "batch_size": 8, "device": "cpu", "precision": "fp32"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    students = {"students": ["digits/unet_4_8"], "precisions": ["int8"]}
    asked = FitOptions(budget="latency<=1s", runtime="onnx", out=str(tmp_path / "fit"), val_images=4, **students)
    planned = plan.resolve(tmp_path / "run.yaml", asked)
    (candidate,) = planned.candidates
    planned.out.mkdir()
    run = counterpoise.train({**values, "student": {"model": "digits/unet_4_8"}, "out": str(tmp_path / "run")})
    score = scoring.exported_score(planned, candidate, run.folder)
    export = counterpoise.export(run.folder, to="onnx", precision="int8", batch=1, min_same=0)
    assert score == pytest.approx(export["agreement"]["export"], abs=2.0)
    subject = costing.untrained(planned, candidate, sources.load(planned.run.data), tmp_path / "untrained")
    (shipped,) = measure.find([export["folder"]], None)
    for known in (subject, shipped):
        assert (known.window, known.size) == (True, (16, 20))
    assert subject.multiply_adds == shipped.multiply_adds
    measured = {"machine": {"name": "here"}, "measured": [{**shipped.values(), "cases": []}]}
    told = list(measure.tables(measured))
    assert "those of one window of 16 x 20" in str(told[-1])
