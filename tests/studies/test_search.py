"""Searches of tiny students: equal chances, and the same winners whatever was killed."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.studies import results, search, search_plan

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tables(out: Path) -> dict[str, Any]:
    """All that must not depend on kills or on the folder."""
    final = yaml.safe_load((out / "final.yaml").read_text())
    final.pop("out")
    runs = [{k: v for k, v in row.items() if k not in results.CLOCK} for row in rows(out / "trials.csv")]
    files = ("search.csv", "final/table.csv", "final/differences.csv")
    return {"final": final, "runs": runs, **{name: (out / name).read_bytes() for name in files}}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [20])
def test_a_killed_search_ends_in_the_same_tables(searched: Values, write: Write, host: Any, kills: int) -> None:
    file = str(write(searched))
    seconds = host.run(["search", file, "--out", str(Path("whole").resolve()), "--quiet"])
    host.run_and_kill(["search", file, "--out", str(Path("killed").resolve()), "--quiet"], seconds, kills)
    assert tables(Path("killed")) == tables(Path("whole"))


def test_every_method_gets_the_same(searched: Values, write: Write, run: Run) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    file = write(searched)
    Path("out").mkdir()
    Path("out/.optuna.journal.partial.lock").symlink_to("out/.optuna.journal.partial")  # of a search that was killed
    code, out, _ = run("search", file, "--no-final")
    assert code == 0
    assert not list(Path("out").glob(".optuna*"))
    assert not Path("out/final").exists()
    assert "what each method got" in out
    budget = search.spent(search_plan.read(file))
    for row in budget:
        # Three trials of one epoch, and two of them again of two; 60 images are left of 90.
        assert (row["trials"], row["runs"], row["epochs"], row["images"]) == (3, 5, 7, 420)

    trials = {(row["method"], int(row["trial"])): row for row in rows(Path("out/search.csv"))}
    for trial in range(3):
        assert len({trials[method, trial]["learning_rate"] for method in ("alone", "balance")}) == 1
        assert 0.1 <= float(trials["balance", trial]["share"]) <= 0.9
    for method in ("alone", "balance"):
        first = {trial: float(trials[method, trial]["top1_1_epochs"]) for trial in range(3)}
        went_on = {trial for trial in first if trials[method, trial]["top1_2_epochs"]}
        assert went_on == set(sorted(first, key=lambda trial: (-first[trial], trial))[:2])

    storage = JournalStorage(JournalFileBackend("out/optuna.journal"))
    study = optuna.load_study(study_name="balance", storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "PRUNED"]
    final = yaml.safe_load(Path("out/final.yaml").read_text())
    best = study.best_trial.user_attrs["trial"]
    winner = final["methods"]["balance"]
    assert str(winner["train"]["optimizer"]["learning_rate"]) == trials["balance", best]["learning_rate"]
    both = sum(winner["objective"]["balance"][f"{side}_weight"] for side in ("forward", "reverse"))
    assert both == pytest.approx(float(trials["balance", best]["total"]))


def test_trials_never_see_the_test_set_and_finals_train_on_everything(searched: Values, write: Write, run: Run) -> None:
    file = write({**searched, "rungs": [1], "trials": 1})
    assert run("search", file, "--quiet")[0] == 0
    trial = config.resolve(config.read(Path("out/trials/alone/trial-000/epochs-1/seed-0/run.yaml")))
    final = config.resolve(config.read(Path("out/final/runs/all/alone/seed-1/run.yaml")))
    own, whole = sources.load(trial.data), sources.load(final.data)

    def pictures(images: Any) -> list[bytes]:
        return [images.identity(index) for index in range(len(images))]

    assert (len(own.train), len(own.val), len(whole.train)) == (60, 30, 90)
    assert sorted(pictures(own.train) + pictures(own.val)) == sorted(pictures(whole.train))
    assert own.train.positions is not None
    assert pictures(own.train) == [whole.train.identity(index) for index in own.train.positions.tolist()]
    assert final.train.epochs == 2
    assert {row["seed"] for row in rows(Path("out/final/results.csv"))} == {"1", "2"}


def test_trials_that_diverge_lose_and_cost_what_they_cost(searched: Values, write: Write, run: Run) -> None:
    searched = copy.deepcopy(searched)
    searched["ranges"]["learning_rate"] |= {"low": 0.1, "high": 1e36}
    file = write({**searched, "trials": 4, "rungs": [1], "final": {"seeds": 1}})
    code, _, error = run("search", file, "--no-final")
    assert code == 0, error
    found = {(row["method"], row["trial"]): row for row in rows(Path("out/search.csv"))}
    scores = [float(row["top1_1_epochs"]) for row in found.values()]
    assert any(map(math.isnan, scores))
    assert not all(map(math.isnan, scores))


def test_a_search_that_is_out_of_time_says_what_is_left(searched: Values, write: Write, run: Run) -> None:
    Path("out").mkdir()
    for name in ("search.csv", "optuna.journal"):
        Path("out", name).write_text("mine")
        code, _, error = run("search", write(searched), "--quiet")
        assert (code, f"{name} is there already" in error) == (2, True)
        Path("out", name).unlink()
    code, out, _ = run("search", write(searched), "--minutes", "0.0001", "--quiet")
    assert code == 3
    assert "6 runs are left" in out
    assert "what was chosen" not in out


def test_a_complete_store_of_all_training_images_serves_a_part_of_them(
    searched: Values, write: Write, run: Run
) -> None:
    """Recorded once, for trials and finals: the students are those of the live teacher."""
    searched = {**searched, "rungs": [1], "trials": 1, "final": {"seeds": 1, "baseline": "alone"}}
    searched["run"]["data"] = {**searched["run"]["data"], "views": {"crop": "pad", "padding": 1, "flip": False}}
    assert run("search", write(searched), "--out", "live", "--quiet")[0] == 0
    counterpoise.record(searched["run"], out="store", precision="float32")
    searched["run"]["teacher"] = {"store": "store"}
    assert run("search", write(searched), "--out", "stored", "--quiet")[0] == 0
    for folder in ("trials/balance/trial-000/epochs-1/seed-0", "final/runs/all/balance/seed-1"):
        live, stored = (load_file(Path(out, folder, "student/model.safetensors")) for out in ("live", "stored"))
        for name, weight in live.items():
            torch.testing.assert_close(stored[name], weight, rtol=1e-4, atol=1e-5)
