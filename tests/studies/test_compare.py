"""Comparisons of tiny students, run, killed, stopped, spread over processes and moved."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import counterpoise
from counterpoise.engine import interrupt
from counterpoise.pages.report.methods import group
from counterpoise.pages.report.reading import find, read
from counterpoise.studies import fanout, plan, provenance, report, results, running
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.summary import summarize

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tables(out: Path) -> dict[str, Any]:
    """All that must not depend on kills: tables as bytes, rows without what a clock says."""
    plain = [{k: v for k, v in row.items() if k not in results.CLOCK} for row in rows(out / "results.csv")]
    return {"rows": plain, **{name: (out / name).read_bytes() for name in ("table.csv", "differences.csv", "plot.svg")}}


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_comparison_ends_in_the_same_tables(comparison: Values, write: Write, host: Any, kills: int) -> None:
    file = str(write(comparison))
    seconds = host.run(["compare", file, "--out", str(Path("whole").resolve()), "--quiet"])
    host.run_and_kill(["compare", file, "--out", str(Path("killed").resolve()), "--quiet"], seconds, kills)
    assert tables(Path("killed")) == tables(Path("whole"))
    found = rows(Path("whole", "results.csv"))
    assert [(row["method"], row["seed"]) for row in found] == [
        (method, seed) for seed in "01" for method in ("alone", "kd", "balance")
    ]
    first = found[1]
    summary = json.loads(Path("whole/runs/all/kd/seed-0/summary.json").read_text())
    assert float(first["last"]) == summary["last"]["top1"]
    assert float(first["best"]) == summary["best"]["top1"]
    assert (first["total_weight"], json.loads(first["temperatures"])) == ("3.6", {"forward_kl.temperature": 2.0})
    assert {"fp32", "1"} == {first["precision"], first["threads"]}


class Clock:
    """Time that passes with the steps, on machines of any speed: by an hour after 30 of them."""

    def __init__(self) -> None:
        self.asked, self.ahead = 0, 0.0

    def monotonic(self) -> float:
        self.asked += 1
        self.ahead += 3600 * (self.asked % 30 == 0)
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def test_time_that_is_up_leaves_the_rest_for_the_next_call(
    comparison: Values, write: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call does a little, and in the end all is done, with the numbers of a single call."""
    comparison["methods"].pop("alone")
    comparison["run"]["train"] = {**comparison["run"]["train"], "epochs": 3, "batch_size": 4}  # 75 steps
    file = write({**comparison, "seeds": 1})
    assert run("compare", file, "--out", "whole", "--quiet")[0] == 0
    clock = Clock()
    for module in (interrupt, running, fanout):
        monkeypatch.setattr(module, "time", clock)
    half = 0
    while (done := run("compare", file, "--minutes", "5", "--quiet"))[0] != 0:
        code, out, _ = done
        assert code == 3
        assert "Time is up, and" in out
        assert "The same command goes on" in out
        half += any(not (path.parents[1] / "summary.json").exists()
                    for path in Path("out/runs").glob("*/*/*/checkpoints/last.safetensors"))  # fmt: skip
        assert half < 20
    assert half > 2
    assert tables(Path("out")) == tables(Path("whole"))


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(comparison: Values, write: Write, run: Run) -> None:
    file = write({**comparison, "seeds": 1})
    assert run("compare", file, "--out", "one", "--quiet")[0] == 0
    code, _, error = run("compare", file, "--out", "two", "--jobs", "2")
    assert code == 0, error
    assert "3/3" in error
    assert tables(Path("two")) == tables(Path("one"))
    code, out, error = run("compare", file, "--out", "two", "--json")  # nothing is left to train
    assert code == 0
    assert error == ""
    found = json.loads(out)
    assert [row["n"] for row in found["table"]] == [1, 1, 1]
    assert [row["primary"] for row in found["differences"]] == ["yes", "no"]


def test_folds_are_held_out_in_turn(comparison: Values, write: Write, run: Run) -> None:
    comparison.pop("seeds")
    comparison["methods"].pop("balance")
    comparison["run"]["train"] = {**comparison["run"]["train"], "epochs": 1}
    file = write({**comparison, "folds": 2, "primary": "alone"})
    code, out, error = run("compare", file)
    assert code == 0, error
    assert "4/4" in error
    assert "mean ± standard deviation over 2 folds" in out
    assert "Nadeau and Bengio" in out
    found = rows(Path("out/results.csv"))
    assert [(row["method"], row["seed"], row["fold"]) for row in found] == [
        (method, "0", f"{fold}/2") for fold in (1, 2) for method in ("alone", "kd")
    ]
    assert len({row["data"] for row in found}) == 2
    table = rows(Path("out/table.csv"))
    scores = [float(row["last"]) for row in found if row["method"] == "kd"]
    assert float(table[1]["last_mean"]) == pytest.approx(statistics.fmean(scores))
    assert float(table[1]["last_std"]) == pytest.approx(statistics.stdev(scores))
    assert [row["n"] for row in table] == ["2", "2"]
    assert "different data" not in Path("out/table.md").read_text()
    before = tables(Path("out"))
    shutil.rmtree("out/runs/all/alone")
    code, _, error = run("compare", file)  # rows stand for folders that are gone
    assert (code, error) == (0, "")
    assert tables(Path("out")) == before
    methods = group([read(folder) for folder in find(Path("out"))])
    assert [(len(method.runs), method.folds, method.mean("top1")) for method in methods] == [
        (2, 2, pytest.approx(statistics.fmean(scores)))
    ]
    comparison["primary"] = "alone"
    code, _, error = run("compare", write({**comparison, "folds": 1}))
    assert (code, "folds" in error) == (2, True)
    comparison["run"]["data"] = {**comparison["run"]["data"], "fold": "1/3"}
    code, _, error = run("compare", write({**comparison, "folds": 3}))
    assert (code, "asks for folds, and so does data.fold" in error) == (2, True)
    comparison["run"]["data"] = {**comparison["run"]["data"], "fold": None, "held_out": 6}
    code, _, error = run("compare", write({**comparison, "folds": 3}))
    assert (code, "asks for folds, and data.held_out of its runs holds out 6" in error) == (2, True)


def test_seeds_of_one_fold_are_seeds(comparison: Values) -> None:
    comparison["run"]["data"] = {**comparison["run"]["data"], "fold": "2/5"}
    found = plan.resolve({**comparison, "seeds": 3}, "file", Path())
    scores = [
        row(job, fold="2/5", seed=str(job.run.seed), status="done", task="classification", last=f"{place**2}.5")
        for place, job in enumerate(found.jobs)
    ]
    present: Any = SimpleNamespace(stands=lambda row, run: True)
    summed = summarize(found, scores, False, present)
    assert [line["n"] for line in (*summed.table, *summed.differences)] == [3] * 5
    assert not any(math.isnan(line["p"]) for line in summed.differences)
    assert summed.table[0]["last_std"] == pytest.approx(statistics.stdev([0, 9, 36]))
    assert summed.table[0]["last_std_seeds"] is None


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished comparison is kept, once one was run."""
    return tmp_path_factory.mktemp("comparison") / "out"


@pytest.fixture
def finished(comparison: Values, write: Write, run: Run, kept: Path) -> Path:
    """The folder of a finished comparison, each time a copy of the same."""
    if not kept.exists():
        assert run("compare", write(comparison), "--quiet")[0] == 0
        shutil.copytree("out", kept)
    return Path(shutil.copytree(kept, "out", dirs_exist_ok=True))


def test_another_run_in_a_folder_is_refused(comparison: Values, finished: Path, write: Write, run: Run) -> None:
    comparison["methods"]["kd"]["objective"]["forward_kl"]["temperature"] = 4.0
    code, _, error = run("compare", write(comparison))
    assert code == 2
    assert "holds another run than all/kd, seed 0" in error
    assert "objective.forward_kl.temperature: 2.0 there, 4.0 here" in error


def test_rows_stand_for_folders_that_are_gone(finished: Path, write: Write, run: Run, comparison: Values) -> None:
    before = tables(finished)
    shutil.rmtree(finished / "runs")
    code, _, error = run("compare", write(comparison))
    assert (code, error) == (0, "")
    assert tables(finished) == before
    assert not (finished / "runs").exists()


def move(finished: Path, device: str) -> None:
    """As if results.csv came from elsewhere, and the runs of it had stayed there."""
    path = finished / "results.csv"
    found = results.read_csv(path)
    for row in found:
        row["device"], row["origin"] = device, "elsewhere"
    results.write_rows(path, results.COLUMNS, found)
    shutil.rmtree(finished / "runs")


def test_rows_of_another_machine_are_kept_apart(finished: Path, write: Write, run: Run, comparison: Values) -> None:
    move(finished, "cpu abacus")
    code, out, error = run("compare", write(comparison))
    assert code == 0
    assert "6/6" in error  # trained here once more
    assert "of 2 origins, which are kept apart" in out
    assert "cpu abacus" in out
    assert len(rows(finished / "results.csv")) == 12
    table = rows(finished / "table.csv")
    assert [row["n"] for row in table] == ["2"] * 6
    assert {row["origin"] for row in table} == {"elsewhere", rows(finished / "results.csv")[0]["origin"]}


def test_rows_of_another_machine_are_pooled_when_asked(
    finished: Path, write: Write, run: Run, comparison: Values
) -> None:
    move(finished, "cpu abacus")
    comparison["seeds"] = 3
    code, out, error = run("compare", write(comparison), "--pool")
    assert code == 0
    assert "3/3" in error
    assert "of 2 origins are pooled, as asked" in out
    table = rows(finished / "table.csv")
    assert [row["n"] for row in table] == ["3"] * 3


def test_code_of_another_commit_is_another_origin(finished: Path) -> None:
    sitting = {"device": "cpu", "versions": {"torch": "2"}, "code": "a", "commit": "x", "threads": 1}
    assert provenance.key([sitting]) == provenance.key([{**sitting, "threads": 8, "commit": "y"}])
    assert provenance.key([sitting]) != provenance.key([{**sitting, "code": "b"}])
    assert "+" in provenance.key([sitting, {**sitting, "device": "cuda"}])


def test_rows_that_the_file_no_longer_asks_for_stay_and_count_nowhere(
    finished: Path, write: Write, run: Run, comparison: Values
) -> None:
    comparison["methods"].pop("alone")
    code, out, _ = run("compare", write(comparison), "--quiet")
    assert code == 0
    assert "holds 2 runs that this compare file does not ask for" in out
    assert [row["method"] for row in rows(finished / "table.csv")] == ["kd", "balance"]


def test_a_run_that_diverges_is_said_and_not_counted(comparison: Values, write: Write, run: Run) -> None:
    comparison["methods"]["kd"]["train"] = {"optimizer": {"learning_rate": 1e30}}
    comparison["differs"] = ["train.optimizer.learning_rate"]
    file = write(comparison)
    code, out, error = run("compare", file)
    assert code == 0
    assert re.search(r"all/kd, seed 0  diverged .*Loss is not finite at step \d+: term", error)
    assert "0 (2 diverged)" in out
    assert "no common seeds" in out
    _, again, error = run("compare", file)
    assert error == ""  # and not trained again
    assert "all/kd, seed 0" in again
    assert "A smaller learning rate, train.clip_gradient or train.precision fp32 may help." in " ".join(again.split())


def test_runs_that_cannot_start_do_not_end_the_others(comparison: Values, write: Write, run: Run) -> None:
    broken = {"teacher": {"checkpoint": "nowhere"}}
    code, out, error = run("compare", write({**comparison, "pairs": {"good": {}, "broken": broken}}), "--quiet")
    assert code == 2
    assert "4 runs cannot go on" in error
    assert "broken/kd, seed 0" in error
    assert "good" in out
    found = rows(Path("out/results.csv"))
    assert len([row for row in found if row["pair"] == "good"]) == 6


def test_an_error_that_all_methods_share_is_printed_once(comparison: Values, write: Write, run: Run) -> None:
    comparison["methods"].pop("alone")
    comparison["run"]["teacher"] = {"checkpoint": "nowhere"}
    for quiet in ([], ["--quiet"]):
        code, _, error = run("compare", write(comparison), *quiet)
        assert code == 2
        assert error.count("nowhere does not exist") == 1
        assert "4 runs cannot go on" in error


def test_a_run_that_would_never_reach_its_milestones_is_refused_before_the_first(
    comparison: Values, write: Write, run: Run
) -> None:
    comparison["run"]["train"] = {**comparison["run"]["train"], "schedule": {"name": "multistep", "milestones": [9]}}
    code, _, error = run("compare", write(comparison))
    assert code == 2
    assert "all/alone, seed 0" in error
    assert "9 lie beyond the run, which has 2 epochs" in error
    assert not Path("out", "runs").exists()


def pictures(root: Path, *greens: int) -> None:
    """Three dark and three light pictures for train and for val, in each of several folders."""
    for green in greens:
        for half in ("train", "val"):
            for shade, name in ((0, "dark"), (255, "light")):
                folder = root / f"green{green}" / half / name
                folder.mkdir(parents=True)
                for number in range(3):
                    Image.new("RGB", (8, 8), (shade, green, 9 * number)).save(folder / f"{number}.png")


def test_pairs_that_differ_in_their_data_alone_are_each_counted_under_whatever_name(
    comparison: Values, write: Write, run: Run, tmp_path: Path
) -> None:
    """A row belongs to its pair and method, and where they are called otherwise now, to what it is of."""
    pictures(tmp_path, 0, 99)
    base = {**comparison["run"], "teacher": None, "train": {**comparison["run"]["train"], "batch_size": 6, "epochs": 1}}
    del base["data"]
    objectives = {name: {"objective": {"cross_entropy": {"weight": w}}} for name, w in (("one", 1), ("two", 2))}
    pairs = {f"at{green}": {"data": {"path": f"green{green}", "workers": 0}} for green in (0, 99)}
    values = {"out": "out", "run": base, "pairs": pairs, "methods": objectives, "seeds": 1, "baseline": "one"}
    code, out, error = run("compare", write(values), "--quiet")
    assert (code, error) == (0, "")
    assert "does not ask for" not in " ".join(out.split())
    assert [row["n"] for row in rows(Path("out/table.csv"))] == ["1"] * 4
    first = rows(Path("out/results.csv"))
    assert [(row["pair"], row["method"]) for row in first] == [(pair, name) for pair in pairs for name in objectives]
    _, out, _ = run("compare", write(values), "--quiet", "--pool")
    assert [row["n"] for row in rows(Path("out/table.csv"))] == ["1"] * 4
    shutil.rmtree("out/runs")
    # A method is called otherwise, and the names of the pairs have changed places: nothing is trained, nothing is lost.
    values["methods"] = {"one": objectives["one"], "double": objectives["two"]}
    values["pairs"] = {"at0": pairs["at99"], "at99": pairs["at0"]}
    code, out, error = run("compare", write(values))
    assert (code, error) == (0, "")
    assert not Path("out/runs").exists()
    assert "does not ask for" not in " ".join(out.split())
    assert [row["n"] for row in rows(Path("out/table.csv"))] == ["1"] * 4
    assert [row["verdict"] for row in rows(Path("out/differences.csv"))].count("no common seeds") == 0
    new = {"at0": "at99", "at99": "at0", "one": "one", "two": "double"}
    now = {(r["pair"], r["method"]): (r["data"], r["last"]) for r in rows(Path("out/results.csv"))}
    assert now == {(new[r["pair"]], new[r["method"]]): (r["data"], r["last"]) for r in first}


def row(job: TrainingJob, **given: str) -> dict[str, str]:
    known = {"pair": job.cell[0], "method": job.cell[1], "plan_sha256": results.plan_hash(job.run), "metric": "top1"}
    return {**dict.fromkeys(results.COLUMNS, ""), **known, "origin": "here", "data": "some", **given}


def test_runs_of_one_hash_have_a_row_each(comparison: Values) -> None:
    comparison["methods"] = {
        name: {**comparison["methods"]["alone"], "data": {"workers": workers}}
        for name, workers in (("kd", 0), ("balance", 1))
    }
    jobs = plan.resolve({**comparison, "seeds": 1, "differs": ["data.workers"]}, "file", Path()).jobs
    assert len({results.plan_hash(job.run) for job in jobs}) == 1
    present: Any = SimpleNamespace(stands=lambda row, run: True)
    own = [row(job, last=str(number)) for number, job in enumerate(jobs)]
    assert results.renamed(own, jobs, present) == own
    assert (
        results.asked_for(own, jobs, "top1", present) == results.once(own) == results.gather(jobs, own, "top1") == own
    )
    (other,) = results.renamed([{**own[1], "method": "old"}], jobs, present)
    assert other["method"] == "kd"  # the first that has none
    found = results.renamed([own[0], {**own[1], "method": "old"}, {**own[1], "method": "older"}], jobs, present)
    assert [each["method"] for each in found] == ["kd", "balance", "older"]
    present.stands = lambda row, run: None  # nobody can say of which it is
    assert results.renamed([{**own[0], "method": "old"}], jobs, present)[0]["method"] == "old"
    assert results.renamed([{**own[0], "method": "old"}], jobs[:1], present)[0]["method"] == "kd"
    present.stands = lambda row, run: False
    assert results.renamed([{**own[0], "method": "old"}], jobs, present)[0]["method"] == "old"


def test_a_row_of_another_metric_stands_for_no_job(comparison: Values) -> None:
    (job, *_) = plan.resolve(comparison, "file", Path()).jobs
    present: Any = SimpleNamespace(stands=lambda row, run: True)
    for metric, kept in (("top1", True), ("agreement_top1", True), ("top5", False)):
        found = results.settled([job], [row(job, metric=metric)], "top1", True, present)
        assert found == ({job.name} if kept else set())


def test_top5_of_few_classes_is_no_number(comparison: Values, write: Write, run: Run, tmp_path: Path) -> None:
    pictures(tmp_path, 99)
    base = {**comparison["run"], "data": {"path": "green99"}, "teacher": None}
    methods = {name: {"objective": {"cross_entropy": {"weight": w}}} for name, w in (("one", 1), ("two", 2))}
    file = write({"out": "out", "run": base, "methods": methods, "seeds": 1, "baseline": "one", "metric": "top5"})
    assert run("compare", file, "--quiet")[0] == 0
    assert "2 runs tell no top5" in Path("out/table.md").read_text()
    assert {row["last"] + row["best"] for row in rows(Path("out/results.csv"))} == {""}


def test_a_run_of_ones_own_may_be_taken_in(comparison: Values, finished: Path, run: Run, write: Write) -> None:
    """The state is the run folder, whoever trained it."""
    folder = finished / "runs" / "all" / "alone" / "seed-2"
    values = {**comparison["run"], **comparison["methods"]["alone"], "seed": 2, "out": str(folder)}
    counterpoise.train({key: value for key, value in values.items() if key != "teacher"})
    code, _, error = run("compare", write({**comparison, "seeds": 3}))
    assert code == 0
    assert "9/9" in error
    assert "alone, seed 2" not in error


@pytest.mark.parametrize("name", ["table.csv", "differences.csv", "table.md", "plot.png"])
def test_a_table_of_somebody_else_is_not_replaced(comparison: Values, write: Write, run: Run, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    code, _, error = run("compare", write(comparison), "--quiet")
    assert (code, f"{Path('out', name)} is there already" in error, Path("out/runs").exists()) == (2, True, False)
    assert Path("out", name).read_text() == "mine"
    Path("out", name).write_text(report.HEADS[name])  # as if results.csv alone had been put away
    if name != "plot.png":
        running.refuse_foreign(Path("out"), report.HEADS)
        Path("out/plot.svg").touch()
        running.refuse_foreign(Path("out"), report.HEADS)


def test_a_second_call_at_the_same_time_is_refused(comparison: Values, write: Write, run: Run, host: Any) -> None:
    comparison["run"]["train"] = {**comparison["run"]["train"], "epochs": 500}
    file = write(comparison)
    pid = host.start(["compare", str(file), "--out", str(Path("out").resolve()), "--quiet"])
    while not list(Path("out").glob("runs/*/*/*/run.yaml")):
        time.sleep(0.01)
    code, _, error = run("compare", file, "--out", Path("out").resolve())
    os.kill(pid, signal.SIGINT)
    assert code == 2
    assert "Another process is at work in" in error
    assert host.wait() == 130
    assert "the same command goes on" in host.said()
