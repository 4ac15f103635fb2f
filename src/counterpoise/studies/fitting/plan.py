"""What a fit is asked for, checked: run, candidates, budget, runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.deploy import base
from counterpoise.deploy.base import Format
from counterpoise.deploy.measuring import timing
from counterpoise.errors import ConfigError, unknown
from counterpoise.studies import plan
from counterpoise.studies.fitting import candidates as choosing
from counterpoise.studies.fitting.budget import Budget, parse
from counterpoise.studies.fitting.candidates import Candidate, Candidates
from counterpoise.studies.fitting.options import FitOptions
from counterpoise.studies.plan import TrainingJob


@dataclass(frozen=True)
class FitPlan:
    """A fit, checked.

    Attributes:
        values: of the run file, without what is chosen.
        run: the same with the first candidate, to see what all have in common.
        held_out: how many training images are held out to choose by.
    """

    asked: FitOptions
    values: dict[str, Any]
    run: config.Run
    out: Path
    budget: Budget
    candidates: tuple[Candidate, ...]
    format: Format
    held_out: int
    metric: str

    def job(self, candidate: Candidate, epochs: int) -> TrainingJob:
        """A candidate's run of so many epochs, on what is left of the training images."""
        values = plan.shortened(with_student(self.values, candidate), epochs)
        values = config.merge(values, {"data": {"held_out": self.held_out}})
        return _job(values, candidate, f"{epochs} epochs", self.out / "trials" / candidate.student / f"epochs-{epochs}")

    def final(self, candidate: Candidate) -> TrainingJob:
        """The winner's run: all training images, all epochs."""
        return _job(with_student(self.values, candidate), candidate, "final", self.out / "final" / candidate.student)

    def rungs(self, count: int) -> tuple[int, ...]:
        """The epochs of each rung for so many candidates: half of a run's in the last one, and half again before."""
        if self.asked.rungs is not None:
            return tuple(self.asked.rungs) if count > 1 else ()
        steps, left = 0, count
        while left > 1:
            left = max(math.ceil(left * self.asked.keep - 1e-9), 1)
            steps += 1
        whole = self.run.train.epochs
        return tuple(sorted({max(1, whole // 2**step) for step in range(1, steps + 1)}))


def _job(values: dict[str, Any], candidate: Candidate, what: str, folder: Path) -> TrainingJob:
    run, distils = plan.complete(values, f"run of {candidate.student}")
    return TrainingJob((candidate.student, what), plan.placed(run, folder, run.seed), distils)


def with_student(values: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    """A run file's values with a candidate as the student; weights of another network are left out."""
    student = {key: value for key, value in values.get("student", {}).items() if key not in ("model", "checkpoint")}
    return {**values, "student": config.merge(student, candidate.section())}


def resolve(run_file: str | Path, asked: FitOptions) -> FitPlan:
    """The plan of what is asked for. Raises ConfigError, and MissingExtraError for the runtime."""
    path = Path(run_file)
    values = config.read(path)
    of_file = values.pop("out", None)
    out = asked.out or of_file
    if out is None:
        raise ConfigError("fit needs a folder for measurements and runs: give --out.")
    budget = parse(asked.budget)
    named = Candidates(students=[]) if asked.candidates is None else choosing.read(Path(asked.candidates))
    named = named.model_copy(
        update={
            "students": [*named.students, *(asked.students or ())],
            "sizes": asked.sizes or named.sizes,
            "precisions": asked.precisions or named.precisions,
        }
    )
    candidates = tuple(choosing.expand(named))
    runtime = base.converter(asked.runtime)
    for precision in dict.fromkeys(candidate.precision for candidate in candidates):
        if precision not in runtime.precisions:
            raise ConfigError(f"{asked.runtime}: {unknown('Precision', precision, runtime.precisions)}")
    if "within" in asked.model_fields_set and all(candidate.precision != "int8" for candidate in candidates):
        raise ConfigError("within is of 8 bits, and no candidate is of int8: leave it out, or name that precision.")
    timing.Settings(threads=(asked.threads,), rounds=asked.rounds, seconds=asked.seconds)
    run, _ = plan.complete(with_student(values, candidates[0]), f"run file {path}")
    held_out = plan.held_out(run, asked.val_images)
    metric = plan.metric_of(run, None, f"run file {path}")
    return FitPlan(asked, values, run, Path(out), budget, candidates, runtime, held_out, metric)
