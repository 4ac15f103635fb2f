"""`counterpoise advise`: short runs on the user's own data say which objective, temperature and weight to begin with.

All candidates have the teacher's gradient at one or two strengths beside that of the labels, at the first step: so what
is compared is which way a term pulls, not how hard. The better part of them goes on from rung to rung, on training
images that are held out; the best two are then trained anew beside the run file's own objective, over seeds that chose
nothing. The data's own val is not looked at. The folder is the state: the same command goes on with what was stopped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from counterpoise import config
from counterpoise.config.options import keywords
from counterpoise.data.checking import overview
from counterpoise.errors import ConfigError, RunError
from counterpoise.statistics import Unit, paired
from counterpoise.studies import halving, plan, results
from counterpoise.studies.advising import candidates as trying
from counterpoise.studies.advising.candidates import GIVEN, Candidate
from counterpoise.studies.advising.options import AdviseOptions
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.halving import Race
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import alone_in, refuse_foreign, run_all
from counterpoise.studies.standing import Present
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

GO_ON = 2
"""How many are trained anew beside the run file's own."""
ADVICE = "advice.yaml"


@dataclass(frozen=True)
class Advice:
    """What a call came to.

    Attributes:
        metric: by which it was chosen, on training images held out.
        tried: a row a candidate: its name, and its score by the epochs of each rung.
        compared: a row each of the best and the run file's own over fresh seeds: mean, standard deviation, and its
            difference from the run file's own with a 95% interval.
        best: the name of what to begin with; "as given" where nothing is ahead of it; None as long as runs are left.
        objective: its terms, as a run file has them.
        shown: whether its lead is more than chance would give.
        left: names of runs that are left for another call.
        errors: messages of those that cannot go on, by name.
    """

    out: Path
    metric: str
    epochs: int
    val_images: int
    tried: list[dict[str, Any]]
    compared: list[dict[str, Any]] = field(default_factory=list)
    best: str | None = None
    objective: dict[str, Any] = field(default_factory=dict)
    shown: bool = False
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """Advice that is asked for, checked."""

    asked: AdviseOptions
    values: dict[str, Any]
    run: config.Run
    out: Path
    held_out: int
    rungs: tuple[int, ...]
    metric: str

    def job(self, candidate: Candidate, epochs: int, seed: int) -> TrainingJob:
        """A candidate's run of so many epochs, on what is left of the training images."""
        values = plan.shortened({**self.values, "objective": dict(candidate.objective)}, epochs)
        values = config.merge(values, {"data": {"held_out": self.held_out}})
        run, distils = plan.complete(values, f"run of '{candidate.name}'")
        place = self.out / "runs" / _folder(candidate.name) / f"epochs-{epochs}" / f"seed-{seed}"
        run = plan.telling(plan.placed(run, place, seed), self.metric)
        return TrainingJob((candidate.name, f"{epochs} epochs"), run, distils)


@keywords(AdviseOptions)
def advise(run_file: str | Path, asked: AdviseOptions) -> Advice:
    """Which objective, temperature and weight to begin with on the data of a run file, from short runs.

    Args:
        run_file: data, teacher or its store, student, objective and training; its objective is what others are
            compared with.

    Raises:
        ConfigError: whatever is wrong with the run file, or a run that listens to no teacher.
        RunError: `out` holds other runs, another process is at work there, or all candidates diverged.
        KeyboardInterrupt: Ctrl-C; what was begun is saved.
    """
    fanout = asked.fanout or Fanout()
    until, say = fanout.until(), fanout.console().print
    found = _plan(Path(run_file), asked)
    backend = fanout.backend()
    with alone_in(found.out):
        refuse_foreign(found.out, {"tried.csv": "candidate,", "advice.csv": "candidate,", ADVICE: "# "})
        if fanout.show:
            for line in overview([found.run.data.model_copy(update={"held_out": found.held_out})]):
                say(line)
        for line in plan.held_out_instead(found.run, found.held_out):
            say(line)
        tried = trying.candidates(_held_out(found), found.run, asked.strengths)
        for line in tried.lines():
            say(line)
        present = Present(say)

        def train(jobs: Sequence[TrainingJob]) -> tuple[list[TrainingJob], dict[str, str]]:
            return run_all(jobs, backend, until, say, present)

        def race_of(rungs: Sequence[int]) -> Race[Candidate]:
            return halving.race(
                {"": tried.candidates},
                rungs,
                asked.keep,
                jobs_of=lambda _, one, epochs: [found.job(one, epochs, found.run.seed)],
                score=lambda _, one, jobs: results.score(jobs[0], found.metric),
                train=train,
                tell=say,
                decided=_told_apart,
            )

        race = _first_that_tells(race_of, found, tried.candidates[0], say)
        rows = [
            {"candidate": one.name, **{f"{epochs} epochs": score for epochs, score in reached.items()}}
            for one, reached in race.scores[""].items()
        ]
        epochs = found.rungs[-1]
        advice = Advice(found.out, found.metric, epochs, found.held_out, rows, left=race.left, errors=race.errors)
        if not race.over:
            return advice
        chosen = _best(race.scores[""])
        seeds = [found.run.seed + 1 + number for number in range(asked.seeds)]
        jobs = {(one.name, seed): found.job(one, epochs, seed) for seed, one in product(seeds, chosen)}
        say(f"the best and yours: {epochs} epochs, {len(jobs)} runs of fresh seeds")
        left, errors = train(list(jobs.values()))
        if left or errors:
            return Advice(
                found.out, found.metric, epochs, found.held_out, rows, left=[job.name for job in left], errors=errors
            )
        return _ended(found, advice, chosen, jobs, seeds)


def _plan(path: Path, asked: AdviseOptions) -> _Plan:
    values = config.read(path)
    origin = f"run file {path}"
    of_file = values.pop("out", None)
    out = asked.out or (f"{of_file}-advice" if of_file is not None else None)
    if out is None:
        raise ConfigError("advise needs a folder for its runs: give --out.")
    run, distils = plan.complete(values, origin)
    if not distils:
        raise ConfigError(f"The {origin} has no term that listens to a teacher, so there is nothing to advise on.")
    metric = plan.metric_of(run, None, origin, largest=True)
    held_out = plan.held_out(run, asked.val_images)
    whole = run.train.epochs
    rungs = tuple(asked.rungs or sorted({max(1, whole // part) for part in (16, 8, 4)}))
    return _Plan(asked, values, run, Path(out), held_out, rungs, metric)


def _held_out(found: _Plan) -> dict[str, Any]:
    return config.merge(found.values, {"data": {"held_out": found.held_out}})


def _best(scores: dict[Candidate, dict[int, float]]) -> list[Candidate]:
    """The run file's own, and the best others of those that came farthest. Raises RunError where all diverged."""
    farthest = sorted(scores, key=lambda one: (len(scores[one]), _known(list(scores[one].values())[-1])), reverse=True)
    others = [one for one in farthest if one.name != GIVEN and not math.isnan(list(scores[one].values())[-1])][:GO_ON]
    if not others:
        raise RunError("All candidates diverged: lower train.optimizer.learning_rate.")
    return [*(one for one in scores if one.name == GIVEN), *others]


def _folder(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)


class _AllAlikeError(Exception):
    """After the first rung all candidates score the same, so that no order would mean anything."""


def _told_apart(race: Race[Candidate]) -> None:
    """Raises _AllAlikeError."""
    epochs = min(next(iter(race.scores[""].values())))
    scores = {reached[epochs] for reached in race.scores[""].values()}
    if len(scores) == 1:
        raise _AllAlikeError(f"After {epochs} epochs all candidates score {scores.pop():.2f}")


def _first_that_tells(
    race_of: Callable[[Sequence[int]], Race[Candidate]], found: _Plan, one: Candidate, say: Callable[[str], None]
) -> Race[Candidate]:
    """The race from the first rung on whose runs tell candidates apart. Raises RunError where none does; `one` of them
    says there what the teacher scores."""
    why, rungs = "", found.rungs
    for begun in range(len(rungs)):
        try:
            return race_of(rungs[begun:])
        except _AllAlikeError as alike:
            why = str(alike)
            if begun + 1 < len(rungs):
                say(f"{why}: all go on to the next rung")
    row = results.row_of(found.job(one, rungs[-1], found.run.seed), found.metric) or {}
    teacher = f", and their teacher {float(row['teacher_metric']):.2f}" if row.get("teacher_metric") else ""
    raise RunError(
        f"{why}{teacher}: runs as short as these learn nothing that tells them apart. Give them more epochs (--rungs 4 "
        "8 16, in another --out), a larger learning rate, or a better teacher."
    )


def _known(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _ended(
    found: _Plan,
    advice: Advice,
    chosen: Sequence[Candidate],
    jobs: dict[tuple[str, int], TrainingJob],
    seeds: Sequence[int],
) -> Advice:
    """Compare over fresh seeds, and write what was found."""
    scores: dict[str, dict[Unit, float]] = {
        one.name: {seed: results.score(jobs[one.name, seed], found.metric) for seed in seeds} for one in chosen
    }
    rows: list[dict[str, Any]] = []
    for one in chosen:
        own = scores[one.name]
        mean, std = results.spread(own.values())
        rows.append({"candidate": one.name, "mean": mean, "std": std, "seeds": len(seeds)})
        if one.name != GIVEN and not any(math.isnan(value) for value in (*own.values(), *scores[GIVEN].values())):
            told = paired(own, scores[GIVEN])
            rows[-1] |= {"difference": told.mean, "low": told.low, "high": told.high}
    best, row = max(zip(chosen, rows, strict=True), key=lambda pair: _known(pair[1]["mean"]))
    shown = best.name != GIVEN and row.get("low", -math.inf) > 0
    objective = dict(best.objective)
    columns = ["candidate", *(f"{epochs} epochs" for epochs in found.rungs)]
    results.write_rows(found.out / "tried.csv", columns, advice.tried)
    columns = ["candidate", "mean", "std", "seeds", "difference", "low", "high"]
    results.write_rows(found.out / "advice.csv", columns, rows)
    text = yaml.safe_dump({"objective": objective}, sort_keys=False, allow_unicode=True)
    write_text(
        found.out / ADVICE, f"# {best.name}: {found.metric} {row['mean']:.2f} after {advice.epochs} epochs\n{text}"
    )
    return Advice(
        found.out, found.metric, advice.epochs, found.held_out, advice.tried, rows, best.name, objective, shown
    )


def tables(advice: Advice) -> Iterator[Any]:
    """What was tried, what to begin with, and what is not known, for a terminal."""
    columns = list(dict.fromkeys(key for row in advice.tried for key in row))[1:]
    tried = Grid(
        f"{advice.metric} on {advice.val_images:,} training images held out", [*names("candidate"), *numbers(*columns)]
    )
    for row in sorted(advice.tried, key=lambda row: [_known(row.get(key, math.nan)) for key in columns[::-1]])[::-1]:
        tried.add(row["candidate"], *("" if key not in row else f"{row[key]:.2f}" for key in columns))
    yield tried
    if advice.best is None:
        return
    title = f"over {advice.compared[0]['seeds']} fresh seeds, {advice.epochs} epochs"
    compared = Grid(title, [*names("candidate"), *numbers(advice.metric, "minus yours"), *texts("95% interval")])
    for row in advice.compared:
        difference = (
            ("", "")
            if "difference" not in row
            else (f"{row['difference']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}")
        )
        compared.add(row["candidate"], f"{row['mean']:.2f} ± {row['std']:.2f}", *difference)
    yield compared
    yield from _said(advice)


def _said(advice: Advice) -> Iterator[str]:
    if advice.best == GIVEN:
        yield "Keep your objective: nothing that was tried is ahead of it."
    elif advice.shown:
        yield f"Begin with '{advice.best}', which is ahead of yours: its objective is in {advice.out / ADVICE}."
    else:
        yield (
            f"Begin with '{advice.best}' or with yours: its mean is higher, and the interval includes zero, so that no "
            f"difference is shown. Its objective is in {advice.out / ADVICE}."
        )
    yield (
        f"Not known: whether the order holds after more than {advice.epochs} epochs, at another learning rate than the "
        "run file's, and for other students. `counterpoise search` asks that, for as long as it is given."
    )
