"""What a fit is asked for, checked: run, candidates, budget, runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.deploy import base
from counterpoise.deploy.base import Format
from counterpoise.deploy.measuring import timing
from counterpoise.errors import ConfigError, unknown
from counterpoise.studies import plan as comparing
from counterpoise.studies.fitting import candidates as choosing
from counterpoise.studies.fitting.budget import Budget, parse
from counterpoise.studies.fitting.candidates import Candidate, Candidates
from counterpoise.studies.plan import Job


@dataclass(frozen=True)
class Plan:
    """A fit.

    Attributes:
        values: of the run file, without what is chosen.
        run: the same with the first candidate, to see what all have in common.
        threads, rounds: as the runtime is measured.
        keep: share of the candidates that goes on from each rung to the next.
        val_images: training images held out to choose by; None is a tenth.
        within: points that the final export in 8 bits may lose; layers stay in float until it loses no more.
    """

    values: dict[str, Any]
    run: config.Run
    out: Path
    budget: Budget
    candidates: tuple[Candidate, ...]
    format: Format
    threads: int
    rounds: int
    seconds: float
    keep: float
    val_images: int | None
    rungs: tuple[int, ...] | None
    within: float
    metric: str

    def job(self, candidate: Candidate, epochs: int) -> Job:
        """A candidate's run of so many epochs, on what is left of the training images."""
        values = comparing.shortened(self._with(candidate), epochs)
        values = config.merge(values, {"data": {"held_out": self.val_images}})
        return self._placed(
            values, candidate, f"{epochs} epochs", self.out / "trials" / candidate.student / f"epochs-{epochs}"
        )

    def final(self, candidate: Candidate) -> Job:
        """The winner's run: all training images, all epochs."""
        return self._placed(self._with(candidate), candidate, "final", self.out / "final" / candidate.student)

    def climb(self, count: int) -> tuple[int, ...]:
        """The epochs of each rung for so many candidates: half of a run's in the last one, and half again before."""
        if self.rungs is not None:
            return self.rungs if count > 1 else ()
        steps, left = 0, count
        while left > 1:
            left = max(math.ceil(left * self.keep - 1e-9), 1)
            steps += 1
        whole = self.run.train.epochs
        return tuple(sorted({max(1, whole // 2**step) for step in range(1, steps + 1)}))

    def _with(self, candidate: Candidate) -> dict[str, Any]:
        return with_student(self.values, candidate)

    def _placed(self, values: dict[str, Any], candidate: Candidate, what: str, folder: Path) -> Job:
        run, distils = comparing.complete(values, f"run of {candidate.student}")
        return Job((candidate.student, what), comparing.placed(run, folder, run.seed), distils)


def with_student(values: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    """A run file's values with a candidate as the student; weights of another network are left out."""
    student = {key: value for key, value in values.get("student", {}).items() if key not in ("model", "checkpoint")}
    return {**values, "student": config.merge(student, candidate.section())}


def resolve(
    run_file: str | Path,
    *,
    budget: str,
    runtime: str,
    students: Sequence[str] = (),
    sizes: Sequence[int] = (),
    precisions: Sequence[str] = (),
    candidates: str | Path | None = None,
    out: str | Path | None = None,
    threads: int = 1,
    rounds: int = 9,
    seconds: float = 0.2,
    keep: float = 0.5,
    val_images: int | None = None,
    rungs: Sequence[int] | None = None,
    within: float = 0.5,
) -> Plan:
    """The plan that these arguments of `fit` ask for. Raises ConfigError, and MissingExtraError for the runtime."""
    path = Path(run_file)
    values = config.read(path)
    place = Path(out) if out is not None else values.pop("out", None)
    values.pop("out", None)
    if place is None:
        raise ConfigError("fit needs a folder for measurements and runs: give --out.")
    limits = parse(budget)
    asked = Candidates(students=[]) if candidates is None else choosing.read(Path(candidates))
    asked = asked.model_copy(
        update={
            "students": [*asked.students, *students],
            "sizes": list(sizes) or asked.sizes,
            "precisions": list(precisions) or asked.precisions,
        }
    )
    found = tuple(choosing.expand(asked))
    chosen = base.find(runtime)
    for precision in dict.fromkeys(candidate.precision for candidate in found):
        if precision not in chosen.precisions:
            raise ConfigError(f"{runtime}: {unknown('Precision', precision, chosen.precisions)}")
    if isinstance(values.get("data"), str):
        values["data"] = {"path": values["data"]}
    if not 0 < keep < 1:
        raise ConfigError(f"keep must be a share between 0 and 1, got {keep}.")
    if rungs is not None and (not rungs or rungs[0] < 1 or list(rungs) != sorted(set(rungs))):
        raise ConfigError(f"rungs are epochs that rise from 1 on, got {', '.join(map(str, rungs)) or 'nothing'}.")
    timing.Settings(threads=(threads,), rounds=rounds, seconds=seconds)
    first, _ = comparing.complete(with_student(values, found[0]), f"run file {path}")
    return Plan(
        values=values,
        run=first,
        out=Path(place),
        budget=limits,
        candidates=found,
        format=chosen,
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        keep=keep,
        val_images=val_images,
        rungs=None if rungs is None else tuple(rungs),
        within=within,
        metric=comparing.headline(first),
    )
