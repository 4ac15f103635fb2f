"""`counterpoise search`: every method gets the same trials, epochs and seeds to find its values.

Trials are trained on the training images less `val_images` of them, which they are scored on (`data.held_out`); the
data's own val, the test set of the final comparison, is not looked at. The points are drawn beforehand, and a rung is
halved when all its runs are in: what comes out is a function of the search file, whatever was killed on the way.

A rung of few epochs is a run of its own with the whole learning rate schedule, not the beginning of a longer one: under
schedules that fall to zero the beginning of a run says little of its end, and favors small learning rates. It costs the
epochs of the lower rungs once more, for every method alike, and they are counted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoise.errors import MissingExtraError, RunError
from counterpoise.studies import plan, ranges, results, search_plan
from counterpoise.studies.compare import Result, run_comparison
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.plan import Job
from counterpoise.studies.ranges import Point, Range
from counterpoise.studies.running import Backend, alone_in, folder_of, run_all, state
from counterpoise.studies.search_plan import Search
from counterpoise.studies.standing import Present
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

STUDIES = "optuna.journal"
Scores = dict[str, dict[int, dict[int, float]]]
"""Mean over seeds of the metric on held-out images, by method, trial and epochs; nan where a run diverged."""


@dataclass(frozen=True)
class SearchResult:
    """What a call came to.

    Attributes:
        budget: what each method got.
        winners: trial, score and values by method; empty until all rungs are in.
        left: names of runs that are left for another call.
    """

    out: Path
    metric: str
    budget: list[dict[str, Any]]
    winners: dict[str, dict[str, Any]]
    final: Result | None = None
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def search(
    file: str | Path, *, out: str | Path | None = None, final: bool = True, fanout: Fanout | None = None
) -> SearchResult:
    """Choose each method's values as a search file says, then compare the winners.

    Raises:
        ConfigError: whatever is wrong with the file, or chances that are not equal.
        MissingExtraError: Optuna is not there (extra: search).
        RunError: `out` holds other runs, another process is at work there, or all trials of a method diverged.
        KeyboardInterrupt: Ctrl-C; what was begun is saved.
    """
    fanout = fanout or Fanout()
    until = fanout.until()
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingExtraError("search", "search") from None
    found = search_plan.read(Path(file), None if out is None else Path(out))
    backend = fanout.backend()
    with alone_in(found.plan.out):
        scores, left, errors = _climb(found, fanout, backend, until)
        write_rows(found, scores)
        budget = spent(found)
        if left or errors:
            return SearchResult(found.plan.out, found.metric, budget, {}, None, left, errors)
        won = winners(found, scores)
        values = found.final(won)
        write_text(found.plan.out / "final.yaml", results.dump_yaml(values))
    told = {
        method: {"trial": trial, "score": scores[method][trial][found.rungs[-1]], **found.design[method][trial]}
        for method, trial in won.items()
    }
    if not final:
        return SearchResult(found.plan.out, found.metric, budget, told)
    comparison = plan.resolve(values, f"compare file {found.plan.out / 'final.yaml'}", Path(file).parent)
    ended = run_comparison(comparison, fanout, backend, until)
    return SearchResult(found.plan.out, found.metric, budget, told, ended, ended.left, ended.errors)


def _climb(
    found: Search, fanout: Fanout, backend: Backend, until: float | None
) -> tuple[Scores, list[str], dict[str, str]]:
    """Rung after rung, as far as time allows; scores, and what is left or cannot go on."""
    say = fanout.console().print
    present = Present(say)
    scores: Scores = {method: {trial: {} for trial in range(found.plan.trials)} for method in found.plan.methods}
    kept = {method: list(range(found.plan.trials)) for method in found.plan.methods}
    for rung, epochs in enumerate(found.rungs):
        jobs = rung_jobs(found, kept, epochs)
        every = [job for cell in jobs.values() for job in cell]
        say(f"rung {rung + 1} of {len(found.rungs)}: {epochs} epochs, {len(every)} runs")
        left, errors = run_all(every, backend, until, say, present)
        if left or errors:
            return scores, [job.name for job in left], errors
        for (method, trial), cell in jobs.items():
            scores[method][trial][epochs] = statistics.fmean(_score(job, found.metric) for job in cell)
        if rung + 1 < len(found.rungs):
            kept = {
                method: ranges.halve({trial: scores[method][trial][epochs] for trial in trials}, found.plan.keep)
                for method, trials in kept.items()
            }
        hand_over(found, scores, kept, last=rung + 1 == len(found.rungs))
    return scores, [], {}


def rung_jobs(found: Search, kept: Mapping[str, Sequence[int]], epochs: int) -> dict[tuple[str, int], list[Job]]:
    """The runs of a rung, by method and trial."""
    return {
        (method, trial): [found.job(method, trial, epochs, seed) for seed in found.plan.seeds]
        for method, trials in kept.items()
        for trial in trials
    }


def _score(job: Job, metric: str) -> float:
    row = results.row_of(job, metric)
    assert row is not None
    return results.value(row) if row["status"] == "done" else math.nan


def winners(found: Search, scores: Scores) -> dict[str, int]:
    """The best trial of each method on the last rung. Raises RunError where all of them diverged."""
    chosen = {}
    for method, trials in scores.items():
        reached = {trial: by[found.rungs[-1]] for trial, by in trials.items() if found.rungs[-1] in by}
        if all(map(math.isnan, reached.values())):
            raise RunError(f"All trials of method {method} diverged: its ranges reach too far.")
        chosen[method] = ranges.halve(reached, 1e-9)[0]
    return chosen


def hand_over(found: Search, scores: Scores, kept: Mapping[str, Sequence[int]], last: bool) -> None:
    """Put trials that are decided into Optuna's storage, a study a method, for its dashboard and analyses."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Anew each time, from what is in: a journal that was being written when the power went could not be read.
    path = found.plan.out / f".{STUDIES}.partial"
    path.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path)))
    for method, trials in scores.items():
        study = optuna.create_study(storage=storage, study_name=method, direction="maximize")
        distributions = {name: _distribution(chosen) for name, chosen in found.ranges[method].items()}
        for trial, by_epochs in trials.items():
            if trial in kept[method] and not last:
                continue
            reached = max(by_epochs)
            diverged = math.isnan(by_epochs[reached])
            states = optuna.trial.TrialState
            done = reached == found.rungs[-1] and not diverged
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.FAIL if diverged else states.COMPLETE if done else states.PRUNED,
                    value=by_epochs[reached] if done else None,
                    params=found.design[method][trial],
                    distributions=distributions,
                    intermediate_values={at: score for at, score in by_epochs.items() if not math.isnan(score)},
                    user_attrs={"trial": trial},
                )
            )
    path.replace(found.plan.out / STUDIES)


def _distribution(chosen: Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if chosen.choices is not None:
        return CategoricalDistribution(chosen.choices)
    assert chosen.low is not None
    assert chosen.high is not None
    return FloatDistribution(chosen.low, chosen.high, log=chosen.log)


def write_rows(found: Search, scores: Scores) -> None:
    """search.csv: one line a trial, its values and its score at each rung; trials.csv: one line a run."""
    names = sorted(set().union(*found.ranges.values()))
    columns = ["method", "trial", *names, *(f"{found.metric}_{epochs}_epochs" for epochs in found.rungs)]
    rows = [
        {
            "method": method,
            "trial": trial,
            **found.design[method][trial],
            **{f"{found.metric}_{epochs}_epochs": score for epochs, score in by_epochs.items()},
        }
        for method, trials in scores.items()
        for trial, by_epochs in trials.items()
    ]
    results.write_rows(found.plan.out / "search.csv", columns, rows)
    runs = [
        {**row, "pair": "search", "method": job.cell[0], "trial": job.cell[1]}
        for job in begun(found)
        if (row := results.row_of(job, found.metric)) is not None
    ]
    results.write_rows(found.plan.out / "trials.csv", ["trial", *results.COLUMNS], runs)


def begun(found: Search) -> Iterator[Job]:
    """The runs of this search that have a folder."""
    for method in found.plan.methods:
        for epochs in found.rungs:
            for trial in range(found.plan.trials):
                for seed in found.plan.seeds:
                    job = found.job(method, trial, epochs, seed)
                    if folder_of(job).is_dir() and state(job) != "new":
                        yield job


def spent(found: Search) -> list[dict[str, Any]]:
    """What each method got: trials, runs, epochs, images seen in training, and seconds."""
    from counterpoise.data import sources

    jobs = list(begun(found))
    images = len(sources.load(jobs[0].run.data).train) if jobs else 0
    budget = []
    for method in found.plan.methods:
        own = [job for job in jobs if job.cell[0] == method]
        rows = [row for job in own if (row := results.row_of(job, found.metric)) is not None]
        epochs = sum(int(row["epochs"]) for row in rows)
        budget.append(
            {
                "method": method,
                "ranges": len(found.ranges[method]),
                "trials": found.plan.trials,
                "seeds": len(found.plan.seeds),
                "runs": len(rows),
                "diverged": sum(row["status"] == "diverged" for row in rows),
                "epochs": epochs,
                "images": epochs * images,
                "seconds": sum(float(row["seconds"]) for row in rows if row["seconds"]),
            }
        )
    return budget


def tables(result: SearchResult) -> Iterator[Any]:
    """Budgets and winners for a terminal."""
    grid = Grid("what each method got", [*names("method"), *numbers(*(c for c in result.budget[0] if c != "method"))])
    for row in result.budget:
        grid.add(
            row["method"],
            *(
                f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
                for key, value in row.items()
                if key != "method"
            ),
        )
    yield grid
    if result.winners:
        title = "what was chosen on held-out training images"
        chosen = Grid(title, [*names("method"), *numbers("trial", result.metric), *texts("values")])
        for method, row in result.winners.items():
            values = ", ".join(f"{name} {_shown(value)}" for name, value in _values(row).items())
            chosen.add(method, str(row["trial"]), f"{row['score']:.2f}", values)
        yield chosen
    yield f"Trials are in {result.out}/search.csv, Optuna's studies in {result.out}/{STUDIES}."


def _values(row: Mapping[str, Any]) -> Point:
    return {name: value for name, value in row.items() if name not in {"trial", "score"}}


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
