"""How accurate candidates are: distilled by successive halving, in 8 bits as their runtime answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from counterpoise import tasks
from counterpoise.studies import ranges, results
from counterpoise.studies.fitting.candidates import Candidate
from counterpoise.studies.fitting.costing import CALIBRATION, Ledger
from counterpoise.studies.fitting.plan import Plan
from counterpoise.studies.plan import Job
from counterpoise.studies.running import Backend, folder_of, run_all
from counterpoise.studies.standing import Present


@dataclass
class Climb:
    """What the rungs came to.

    Attributes:
        epochs: of each rung.
        scores: the metric on held-out images, by candidate and epochs; nan where a run diverged.
        kept: the candidates that are left, in order; the winner alone when all rungs are in.
        left, errors: runs that are left for another call; messages of those that cannot go on, by name.
    """

    epochs: tuple[int, ...]
    scores: dict[str, dict[int, float]]
    kept: list[Candidate]
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def climb(
    plan: Plan,
    candidates: Sequence[Candidate],
    ledger: Ledger,
    backend: Backend,
    until: float | None,
    tell: Callable[[str], None],
) -> Climb:
    """Distil candidates rung after rung, the better part going on, until one is left or time is up."""
    found = Climb(plan.climb(len(candidates)), {candidate.name: {} for candidate in candidates}, list(candidates))
    present = Present(tell)
    for number, epochs in enumerate(found.epochs):
        jobs = {candidate.student: plan.job(candidate, epochs) for candidate in found.kept}
        tell(f"rung {number + 1} of {len(found.epochs)}: {len(found.kept)} candidates, {epochs} epochs")
        left, found.errors = run_all(list(jobs.values()), backend, until, tell, present)
        found.left = [job.name for job in left]
        if left or found.errors:
            return found
        for candidate in found.kept:
            found.scores[candidate.name][epochs] = score(plan, candidate, jobs[candidate.student], ledger)
        last = number + 1 == len(found.epochs)
        reached = {index: found.scores[candidate.name][epochs] for index, candidate in enumerate(found.kept)}
        found.kept = [found.kept[index] for index in ranges.halve(reached, 1e-9 if last else plan.keep)]
    return found


def score(plan: Plan, candidate: Candidate, job: Job, ledger: Ledger) -> float:
    """The metric of a candidate's run on its held-out images; in 8 bits or half precision, that of its export."""
    row = results.row_of(job, plan.metric)
    assert row is not None
    if row["status"] != "done":
        return math.nan
    if candidate.precision == "float32":
        return results.value(row)
    known = ("score", candidate.name, row["run_sha256"], str(plan.format.versions()), row["identity"])
    key = " ".join(filter(None, known))  # runs of earlier versions did not note whose they are
    if key not in ledger.entries:
        ledger.keep([{"key": key, "name": candidate.name, "score": exported_score(plan, candidate, folder_of(job))}])
    return float(ledger.entries[key]["score"])


def exported_score(plan: Plan, candidate: Candidate, run: Path) -> float:
    """The metric of a run's student, exported and answering in its runtime, on the run's held-out images."""
    import tempfile

    from counterpoise.deploy import agreement, pictures
    from counterpoise.deploy import job as exporting

    job = exporting.settled(exporting.prepare(run, plan.format, candidate.precision))
    settings = exporting.calibrated(job, CALIBRATION) if candidate.precision == "int8" else None
    assert job.data is not None
    with tempfile.TemporaryDirectory(dir=plan.out, prefix=".measuring-") as folder:
        exporting.make(job, Path(folder), settings)
        runtime = plan.format.open(Path(folder))
        shown = pictures.pairs(job.data.val, job.student, job.section, job.request)
        task = tasks.get(job.student.task)
        found = agreement.compare(job.network, runtime, shown, task, job.student.num_classes, job.request.batch)
    return math.nan if found.export is None else found.export
