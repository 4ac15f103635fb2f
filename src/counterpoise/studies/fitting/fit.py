"""`counterpoise fit`: measure candidates, distil those that keep the budget, and measure the winner again.

The folder is the state: measurements.jsonl has what was measured, trials/ and final/ have the runs. A fit that was
killed goes on from there, and ends in the same choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from counterpoise.config.options import keywords
from counterpoise.data.checking import overview
from counterpoise.deploy import folder as deployed
from counterpoise.deploy.export import export
from counterpoise.deploy.measuring import measure as measuring
from counterpoise.errors import ConfigError, NothingFits
from counterpoise.models import folder as student_folder
from counterpoise.studies import plan as studies_plan
from counterpoise.studies import results
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.fitting import costing, frontier, phone, scoring
from counterpoise.studies.fitting.budget import Cost, Costs, costs_of, shown
from counterpoise.studies.fitting.candidates import Candidate
from counterpoise.studies.fitting.costing import Entry, Ledger
from counterpoise.studies.fitting.options import FitOptions
from counterpoise.studies.fitting.plan import FitPlan, resolve
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import Backend, alone_in, refuse_foreign, run_all
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

FINAL = "final-"
HEADS = {"frontier.csv": "candidate,", "fit.json": '{\n  "out"', costing.MEASUREMENTS: '{"key"'}
"""What a fit writes, and what each begins with."""
AGAIN = "The promise rests on the untrained network so far. To see that the export keeps it, measure that, too:"


@dataclass(frozen=True)
class FitResult:
    """What a call came to.

    Attributes:
        frontier: a row a candidate, as in frontier.csv.
        winner: name of the chosen candidate; None as long as runs are left.
        student, export: folders of the winner.
        promised: what the winner cost untrained, by which it was chosen; `measured`, what its export costs; each by
            quantity of the budget as [value, upper end of the interval].
        holds: whether the export keeps the budget, at the upper end; None where it was not measured.
        window: height and width of the window, where times and multiply-adds are those of one; None: of a picture.
        metrics: of the winner on the data's own val.
        agreement: of the export with the student.
        left: names of runs that are left for another call.
        errors: messages of those that cannot go on.
    """

    out: Path
    budget: str
    runtime: str
    metric: str
    frontier: list[dict[str, Any]]
    winner: str | None = None
    student: Path | None = None
    export: Path | None = None
    promised: dict[str, list[float]] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    holds: bool | None = None
    window: list[int] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] | None = None
    next_step: str = ""
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@keywords(FitOptions)
def fit(run_file: str | Path, asked: FitOptions) -> FitResult:
    """The most accurate of some students that keeps a budget on a runtime.

    Args:
        run_file: data, teacher or store, objective and training; its student is chosen here.

    Raises:
        ConfigError: whatever is wrong with budget, candidates, run file or measurements.
        MissingExtraError: the runtime is not installed.
        NothingFits: no candidate keeps the budget; the message has the nearest, and what it would take.
        RunError: `out` holds other runs, or another process is at work there.
        KeyboardInterrupt: Ctrl-C; what was begun is saved.
    """
    fanout = asked.fanout or Fanout()
    until, say = fanout.until(), fanout.console().print
    plan = resolve(run_file, asked)
    backend = fanout.backend()
    with alone_in(plan.out):
        refuse_foreign(plan.out, HEADS)
        costing.clear(plan.out)
        if fanout.show:
            for line in overview([plan.run.data.model_copy(update={"held_out": plan.held_out})]):
                say(line)
        for line in studies_plan.held_out_instead(plan.run, plan.held_out):
            say(line)
        return _fit(plan, [Path(file) for file in asked.measured or ()], backend, until, say)


def candidates_to(run_file: Path, folder: Path, asked: FitOptions) -> list[Path]:
    """Write the untrained candidates into a folder, to be measured on a phone; raises as `fit` does."""
    plan = resolve(run_file, asked)
    with alone_in(plan.out):
        return phone.bundle(plan, folder)


def _fit(
    plan: FitPlan, measured: Sequence[Path], backend: Backend, until: float | None, tell: Callable[[str], None]
) -> FitResult:
    ledger = Ledger(plan.out / costing.MEASUREMENTS)
    entries, finals = phone.read(plan, measured) if measured else (costing.measure(plan, ledger, tell), {})
    costs: dict[str, Costs] = {}
    status: dict[str, str] = {}
    for name, entry in entries.items():
        if "failed" in entry:
            status[name] = frontier.FAILED
            tell(f"{name} is left out: {entry['failed']}")
            continue
        costs[name] = _known(plan, entry)
        if plan.budget.excess(costs[name]):
            status[name] = frontier.OVER
    keeping = [candidate for candidate in plan.candidates if candidate.name not in status]
    if not keeping:
        frontier.write(plan, entries, {}, status)
        raise NothingFits(nothing_fits(plan, entries, costs))
    # Of equals, the faster.
    keeping.sort(key=lambda candidate: costs[candidate.name].get("latency", Cost(0.0, 0.0)).value)
    tell(f"{len(keeping)} of {len(plan.candidates)} candidates keep {plan.budget}")
    race = scoring.race(plan, keeping, ledger, backend, until, tell)
    scores, kept = race.scores[""], race.kept[""]
    if race.over and math.isnan(next(reversed(scores[kept[0]].values()), 0.0)):
        raise NothingFits("All candidates that keep the budget diverged: lower train.optimizer.learning_rate.")
    for candidate in keeping:
        status[candidate.name] = f"after {max(scores[candidate], default=0)} epochs"
    status |= dict.fromkeys((candidate.name for candidate in kept), frontier.WINNER if race.over else "in the race")
    rows = frontier.write(plan, entries, {candidate.name: reached for candidate, reached in scores.items()}, status)
    result = FitResult(
        plan.out, str(plan.budget), plan.format.name, plan.metric, rows, left=race.left, errors=race.errors
    )
    if not race.over:
        return result
    winner = kept[0]
    result = replace(result, winner=winner.name, promised=_values(plan, costs[winner.name]))
    tell(f"{winner.name} is chosen, and trained in full")
    job = plan.final(winner)
    left, errors = run_all([job], backend, until, tell)
    if left or errors:
        return replace(result, left=[job.name for job in left], errors=errors)
    result = _shipped(plan, winner, job, result)
    assert result.export is not None
    subject = measuring.find([result.export], None)[0]
    result = replace(result, window=list(subject.size) if subject.window else None)
    subject = replace(subject, name=f"{FINAL}{winner.name}", multiply_adds=entries[winner.name]["multiply_adds"])
    if not measured:
        tell("measured again")
        entry = costing.measure_final(plan, winner, subject, ledger)
    elif subject.name in finals:
        entry = finals[subject.name]
        phone.check_same(entry, subject)
    else:
        bundle = phone.bundle_of_final(plan, subject)
        result = replace(result, next_step=f"{AGAIN} sh {bundle}/measure.sh, and add --measured {bundle}/results.txt")
        return _written(result)
    final = _known(plan, entry)
    return _written(replace(result, measured=_values(plan, final), holds=not plan.budget.excess(final)))


def _shipped(plan: FitPlan, winner: Candidate, job: TrainingJob, result: FitResult) -> FitResult:
    """Export the winner's run, where that is not done yet."""
    run = job.folder
    row = results.row_of(job, plan.metric)
    if row is None or row["status"] != "done":
        raise NothingFits(f"{winner.name}, the best after few epochs, diverged when it was trained in full, in {run}.")
    folder = plan.out / "final" / f"{winner.name}-{plan.format.name}"
    sha256 = student_folder.read(run / "student")[0].weights_sha256
    if not deployed.is_export(folder) or deployed.read(folder).student_sha256 != sha256:
        within = plan.asked.within if winner.precision == "int8" else None
        export(
            run,
            to=plan.format.name,
            precision=winner.precision,
            batch=costing.BATCH,
            out=folder,
            overwrite=folder.exists(),
            within=within,
        )
    agreement = deployed.read(folder).agreement
    student, _ = student_folder.read(run / "student")
    metrics = student.metrics[student_folder.shipped_epoch(student.provenance)]
    return replace(result, student=run / "student", export=folder, metrics=metrics, agreement=agreement)


def _known(plan: FitPlan, entry: Entry) -> Costs:
    """The costs of an entry. Raises ConfigError where a quantity of the budget is not among them."""
    costs = costs_of(entry, plan.asked.threads)
    for name in plan.budget.limits:
        if name not in costs and name == "latency":
            raise ConfigError("The measured latencies have no interval: the benchmark tool must have run 6 times each.")
        if name not in costs:
            raise ConfigError(f"The budget limits {name}, which is not known of what was measured: leave it out.")
    return costs


def nothing_fits(plan: FitPlan, entries: Mapping[str, Entry], costs: Mapping[str, Costs]) -> str:
    """Which candidate comes nearest, and what it would take."""
    failed = [f"{name}: {entry['failed']}" for name, entry in entries.items() if "failed" in entry]
    also = "".join(f"\n  {line}" for line in failed[:5])
    if not costs:
        return f"No candidate can be exported to {plan.format.name} and run:{also}"
    nearest = min(costs, key=lambda name: max(plan.budget.excess(costs[name]).values()))
    excess = plan.budget.excess(costs[nearest])
    over = ", ".join(
        f"{quantity} {_between(quantity, costs[nearest])}, {_times(times)} {shown(quantity, limit)}"
        for quantity, times in excess.items()
        for limit in [plan.budget.limits[quantity]]
    )
    return (
        f"No candidate keeps {plan.budget} on {plan.format.name} with {plan.asked.threads} "
        f"thread{'s' if plan.asked.threads > 1 else ''}. Nearest is {nearest}: {over}. It would take a candidate that "
        f'costs less, or --budget "{plan.budget.loosened(costs[nearest])}". All are in {plan.out}/frontier.csv.'
        + (f"\nLeft out:{also}" if failed else "")
    )


def _between(quantity: str, costs: Costs) -> str:
    cost = costs[quantity]
    if cost.value == cost.high:
        return shown(quantity, float(f"{cost.value:.4g}"))
    return f"{cost.value:.4g} (up to {shown(quantity, float(f'{cost.high:.4g}'))})"


def _times(excess: float) -> str:
    return f"{100 * (excess - 1):.2g}% over" if excess < 2 else f"{excess:,.3g} times"


def _values(plan: FitPlan, costs: Costs) -> dict[str, list[float]]:
    return {name: [costs[name].value, costs[name].high] for name in plan.budget.limits}


def _written(result: FitResult) -> FitResult:
    """fit.json beside the frontier."""
    write_text(result.out / "fit.json", json.dumps(asdict(result), indent=2, default=str) + "\n")
    return result


def tables(result: FitResult) -> Iterator[Any]:
    """The result for a terminal."""
    grid = Grid(
        f"candidates for {result.budget} on {result.runtime}",
        [*names("candidate"), *texts("status"), *numbers("ms", "up to", "MB", result.metric)],
    )
    for row in sorted(result.frontier, key=lambda row: (row["latency_ms"] is None, row["latency_ms"])):
        cells = [row["latency_ms"], row["latency_high_ms"], row["megabytes"]]
        grid.add(
            row["candidate"],
            row["status"],
            *("-" if cell is None else f"{cell:.3g}" for cell in cells),
            "" if row["score"] is None else f"{row['score']:.2f}",
        )
    yield grid
    if result.student is None:
        return
    score = result.metrics.get(result.metric)
    yield (f"{result.winner}: {result.metric} {score:.2f} on val after the whole training. Student: {result.student}")
    answers = ""
    if (found := result.agreement) and found.get("metric"):
        answers = f": {found['metric']} {found['export']:.2f} on {found['images']} images of val"
    yield f"Export: {result.export}{answers}"
    for name, (value, high) in (result.measured or result.promised).items():
        yield f"  {name}: {shown(name, float(f'{value:.4g}'))}, up to {shown(name, float(f'{high:.4g}'))}"
    if result.window is not None:
        yield f"  window: {measuring.of_window(result.window)}"
    if result.holds is None:
        yield result.next_step
    else:
        verdict = "The export keeps" if result.holds else "The export does not keep"
        yield (f"{verdict} {result.budget}: measured again in a fresh process, at the upper end of the 95% interval.")
