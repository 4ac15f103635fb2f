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
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from counterpoise import config
from counterpoise.errors import MissingExtraError, RunError
from counterpoise.studies import halving, plan, results, search_plan
from counterpoise.studies.compare import CompareResult, run_comparison
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.halving import Race
from counterpoise.studies.ranges import Range
from counterpoise.studies.results import Row
from counterpoise.studies.running import alone_in, refuse_foreign, run_all
from counterpoise.studies.search_plan import Search
from counterpoise.studies.standing import Present
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

STUDIES = "optuna.journal"
HEADS = {"search.csv": "method,trial,", "trials.csv": "trial,pair,", "final.yaml": "out: ", STUDIES: '{"op_code"'}
"""What a search writes, and what each begins with."""
Trials = Race[int]
"""By method and trial; scores are means over seeds."""


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
    final: CompareResult | None = None
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
    say = fanout.console().print
    with alone_in(found.plan.out):
        refuse_foreign(found.plan.out, HEADS)
        present = Present(say)
        base = config.resolve(found.common, f"run of the {found.origin}")
        for line in plan.held_out_instead(base, found.plan.val_images):
            say(line)
        trials: Trials = halving.race(
            {method: range(found.plan.trials) for method in found.plan.methods},
            found.rungs,
            found.plan.keep,
            jobs_of=lambda method, trial, epochs: [found.job(method, trial, epochs, seed) for seed in found.plan.seeds],
            score=lambda method, trial, jobs: fmean(results.score(job, found.metric) for job in jobs),
            train=lambda jobs: run_all(jobs, backend, until, say, present),
            tell=say,
            decided=lambda trials: hand_over(found, trials),
        )
        write_rows(found, trials)
        budget = spent(found)
        if not trials.over:
            return SearchResult(found.plan.out, found.metric, budget, {}, None, trials.left, trials.errors)
        winners = {method: trial for method, (trial,) in trials.kept.items()}
        chosen = {
            method: {
                "trial": trial,
                "score": trials.scores[method][trial][found.rungs[-1]],
                **found.design[method][trial],
            }
            for method, trial in winners.items()
        }
        for method, row in chosen.items():
            if math.isnan(row["score"]):
                raise RunError(f"All trials of method {method} diverged: its ranges reach too far.")
        values = found.final(winners)
        write_text(found.plan.out / "final.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    if not final:
        return SearchResult(found.plan.out, found.metric, budget, chosen)
    comparison = plan.resolve(values, f"compare file {found.plan.out / 'final.yaml'}", Path(file).parent)
    ended = run_comparison(comparison, fanout, backend, until)
    return SearchResult(found.plan.out, found.metric, budget, chosen, ended, ended.left, ended.errors)


def hand_over(found: Search, trials: Trials) -> None:
    """Put trials that are decided into Optuna's storage, a study a method, for its dashboard and analyses."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Anew each time, from what is in: a journal that was being written when the power went could not be read.
    path = found.plan.out / f".{STUDIES}.partial"
    for left in (path, path.with_name(f"{path.name}.lock")):  # Optuna would wait for ever for a lock that a kill left
        left.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path)))
    states = optuna.trial.TrialState
    for method, scores in trials.scores.items():
        study = optuna.create_study(storage=storage, study_name=method, direction="maximize")
        distributions = {name: _distribution(chosen) for name, chosen in found.ranges[method].items()}
        for trial, by_epochs in scores.items():
            reached = max(by_epochs)
            last, diverged = reached == found.rungs[-1], math.isnan(by_epochs[reached])
            if trial in trials.kept[method] and not last:
                continue
            done = last and not diverged
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


def write_rows(found: Search, trials: Trials) -> None:
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
        for method, scores in trials.scores.items()
        for trial, by_epochs in scores.items()
    ]
    results.write_rows(found.plan.out / "search.csv", columns, rows)
    results.write_rows(found.plan.out / "trials.csv", ["trial", *results.COLUMNS], runs(found))


def runs(found: Search) -> Iterator[Row]:
    """The runs of this search that have ended, as rows."""
    plan = found.plan
    for method, epochs, trial, seed in product(plan.methods, found.rungs, range(plan.trials), plan.seeds):
        job = found.job(method, trial, epochs, seed)
        if job.folder.is_dir() and (row := results.row_of(job, found.metric)) is not None:
            yield {**row, "pair": "search", "method": method, "trial": job.cell[1]}


def spent(found: Search) -> list[dict[str, Any]]:
    """What each method got: trials, runs, epochs, images seen in training, and seconds."""
    from counterpoise.data import sources

    rows = list(runs(found))
    data = found.job(next(iter(found.plan.methods)), 0, found.rungs[0], found.plan.seeds[0]).run.data
    images = len(sources.load(data).train) * data.scenes.crops if rows else 0
    budget = []
    for method in found.plan.methods:
        own = [row for row in rows if row["method"] == method]
        epochs = sum(int(row["epochs"]) for row in own)
        budget.append(
            {
                "method": method,
                "ranges": len(found.ranges[method]),
                "trials": found.plan.trials,
                "seeds": len(found.plan.seeds),
                "runs": len(own),
                "diverged": sum(row["status"] == "diverged" for row in own),
                "epochs": epochs,
                "images": epochs * images,
                "seconds": sum(float(row["seconds"]) for row in own if row["seconds"]),
            }
        )
    return budget


def tables(result: SearchResult) -> Iterator[Any]:
    """Budgets and winners for a terminal."""
    _, *columns = result.budget[0]
    grid = Grid("what each method got", [*names("method"), *numbers(*columns)])
    for row in result.budget:
        method, *counts = row.values()
        grid.add(method, *(f"{count:,.1f}" if isinstance(count, float) else f"{count:,}" for count in counts))
    yield grid
    if result.winners:
        title = "what was chosen on held-out training images"
        chosen = Grid(title, [*names("method"), *numbers("trial", result.metric), *texts("values")])
        for method, row in result.winners.items():
            values = (f"{name} {_shown(value)}" for name, value in row.items() if name not in {"trial", "score"})
            chosen.add(method, str(row["trial"]), f"{row['score']:.2f}", ", ".join(values))
        yield chosen
    yield f"Trials are in {result.out}/search.csv, Optuna's studies in {result.out}/{STUDIES}."


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
