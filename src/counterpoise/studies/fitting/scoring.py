"""How accurate candidates are: distilled by successive halving, in 8 bits as their runtime answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from counterpoise import tasks
from counterpoise.studies import halving, results
from counterpoise.studies.fitting.candidates import Candidate
from counterpoise.studies.fitting.costing import CALIBRATION, Ledger
from counterpoise.studies.fitting.plan import FitPlan
from counterpoise.studies.halving import Race
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import Backend, run_all
from counterpoise.studies.standing import Present


def race(
    plan: FitPlan,
    candidates: Sequence[Candidate],
    ledger: Ledger,
    backend: Backend,
    until: float | None,
    tell: Callable[[str], None],
) -> Race[Candidate]:
    """Distil candidates rung after rung, the better part going on, until one is left or time is up."""
    present = Present(tell)
    return halving.race(
        {"": candidates},
        plan.rungs(len(candidates)),
        plan.asked.keep,
        jobs_of=lambda _, candidate, epochs: [plan.job(candidate, epochs)],
        score=lambda _, candidate, jobs: score(plan, candidate, jobs[0], ledger),
        train=lambda jobs: run_all(jobs, backend, until, tell, present),
        tell=tell,
    )


def score(plan: FitPlan, candidate: Candidate, job: TrainingJob, ledger: Ledger) -> float:
    """The metric of a candidate's run on its held-out images; in 8 bits or half precision, that of its export."""
    row = results.row_of(job, plan.metric)
    assert row is not None
    if candidate.precision == "float32" or row["status"] == "diverged":
        return results.value(row)
    known = ("score", candidate.name, row["run_sha256"], str(plan.format.versions()), row["identity"])
    key = " ".join(filter(None, known))  # runs of earlier versions did not note whose they are
    if key not in ledger.entries:
        ledger.keep([{"key": key, "name": candidate.name, "score": exported_score(plan, candidate, job.folder)}])
    return float(ledger.entries[key]["score"])


def exported_score(plan: FitPlan, candidate: Candidate, run: Path) -> float:
    """The metric of a run's student, exported and answering in its runtime, on the run's held-out images."""
    import tempfile

    from counterpoise.deploy import agreement, pictures
    from counterpoise.deploy import job as exporting
    from counterpoise.deploy.options import Export

    wanted = Export(to=plan.format.name, precision=candidate.precision)
    job = exporting.settled(exporting.prepare(run, plan.format, wanted))
    settings = exporting.calibrated(job, CALIBRATION) if candidate.precision == "int8" else None
    assert job.data is not None
    with tempfile.TemporaryDirectory(dir=plan.out, prefix=".measuring-") as folder:
        exporting.make(job, Path(folder), settings)
        shown = pictures.pairs(job.data.val, job.student, job.section, job.request)
        task, runtime = tasks.get(job.student.task), job.opened(Path(folder))
        found = agreement.compare(job.network, runtime, shown, task, job.student.num_classes, job.at_once)
    return math.nan if found.export is None else found.export
