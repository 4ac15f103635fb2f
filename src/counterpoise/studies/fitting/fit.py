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

from counterpoise.data import sources
from counterpoise.data.checking import told
from counterpoise.deploy import folder as deployed
from counterpoise.deploy.export import export
from counterpoise.deploy.measuring import measure as measuring
from counterpoise.errors import ConfigError, NothingFits, RunError
from counterpoise.models import folder as student_folder
from counterpoise.studies import results
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.fitting import costing, frontier, phone, scoring
from counterpoise.studies.fitting.budget import Cost, Costs, costs_of, shown
from counterpoise.studies.fitting.candidates import Candidate
from counterpoise.studies.fitting.costing import Entry, Ledger
from counterpoise.studies.fitting.plan import Plan, resolve
from counterpoise.studies.plan import Job
from counterpoise.studies.running import Backend, alone_in, folder_of, run_all
from counterpoise.system import documents
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

SHARE_HELD_OUT = 0.1
"""Of the training images, to choose by, unless told otherwise."""


FINAL = "final-"
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
    metrics: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] | None = None
    next_step: str = ""
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def fit(
    run_file: str | Path,
    *,
    budget: str,
    runtime: str,
    measured: Sequence[str | Path] = (),
    fanout: Fanout | None = None,
    **options: Any,
) -> FitResult:
    """The most accurate of some students that keeps a budget on a runtime.

    Args:
        run_file: data, teacher or store, objective and training; its student is chosen here.
        budget: such as "latency<=15ms, size<=4MB"; of latency, size, memory, multiply_adds, parameters.
        runtime: onnx, openvino, executorch, ...
        measured: instead of measuring here, outputs of the benchmark tools on a phone for `candidates_to`'s bundle.
        options: students, sizes, precisions, candidates, out, threads, rounds, seconds, keep, val_images, rungs,
            within; see `plan.resolve`.

    Raises:
        ConfigError: whatever is wrong with budget, candidates, run file or measurements.
        MissingExtraError: the runtime is not installed.
        NothingFits: no candidate keeps the budget; the message has the nearest, and what it would take.
        RunError: `out` holds other runs, or another process is at work there.
        KeyboardInterrupt: Ctrl-C; what was begun is saved.
    """
    fanout = fanout or Fanout()
    until = fanout.until()
    plan = _with_held_out(resolve(run_file, budget=budget, runtime=runtime, **options))
    backend = fanout.backend()
    with alone_in(plan.out):
        costing.clear(plan.out)
        if fanout.show:
            for line in told([plan.run.data.model_copy(update={"held_out": plan.val_images or 0})]):
                fanout.console().print(line)
        return _fit(plan, [Path(file) for file in measured], backend, until, fanout.console().print)


def candidates_to(run_file: str | Path, folder: str | Path, *, budget: str, runtime: str, **options: Any) -> list[Path]:
    """Write the untrained candidates into a folder, to be measured on a phone; raises as `fit` does."""
    plan = _with_held_out(resolve(run_file, budget=budget, runtime=runtime, **options))
    with alone_in(plan.out):
        return phone.bundle(plan, Path(folder))


def _fit(
    plan: Plan, measured: Sequence[Path], backend: Backend, until: float | None, tell: Callable[[str], None]
) -> FitResult:
    ledger = Ledger(plan.out / costing.MEASUREMENTS)
    if measured:
        entries, finals = phone.read(plan, measured)
    else:
        entries, finals = costing.measure(plan, ledger, tell), {}
    costs = {name: {} if "failed" in entry else costs_of(entry, plan.threads) for name, entry in entries.items()}
    status = {name: frontier.FAILED for name, entry in entries.items() if "failed" in entry}
    for candidate in plan.candidates:
        if candidate.name not in status:
            _require(plan, costs[candidate.name])
            if plan.budget.excess(costs[candidate.name]):
                status[candidate.name] = frontier.OVER
    for name, entry in entries.items():
        if "failed" in entry:
            tell(f"{name} is left out: {entry['failed']}")
    keeping = [candidate for candidate in plan.candidates if candidate.name not in status]
    keeping.sort(
        key=lambda candidate: costs[candidate.name].get("latency", Cost(0.0, 0.0)).value
    )  # of equals, the faster

    def tabled(scores: Mapping[str, Mapping[int, float]], kept: Sequence[Candidate], won: bool) -> list[dict[str, Any]]:
        names = {candidate.name for candidate in kept}
        known = {candidate.name: f"after {max(scores.get(candidate.name) or [0])} epochs" for candidate in keeping}
        known |= dict.fromkeys(names, frontier.WINNER if won else "in the race")
        rows = frontier.rows(plan, entries, scores, {**known, **status})
        frontier.write(plan, rows)
        return rows

    if not keeping:
        tabled({}, [], False)
        raise NothingFits(nothing_fits(plan, entries, costs))
    tell(f"{len(keeping)} of {len(plan.candidates)} candidates keep {plan.budget}")
    race = scoring.climb(plan, keeping, ledger, backend, until, tell)
    done = not race.left and not race.errors
    if done and race.epochs and math.isnan(race.scores[race.kept[0].name][race.epochs[-1]]):
        raise NothingFits("All candidates that keep the budget diverged: lower train.optimizer.learning_rate.")
    rows = tabled(race.scores, race.kept, done)
    result = FitResult(
        plan.out, str(plan.budget), plan.format.name, plan.metric, rows, left=race.left, errors=race.errors
    )
    if not done:
        return result
    winner = race.kept[0]
    result = replace(result, winner=winner.name, promised=_told(plan, costs[winner.name]))
    tell(f"{winner.name} is chosen, and trained in full")
    job = plan.final(winner)
    left, errors = run_all([job], backend, until, tell)
    if left or errors:
        return replace(result, left=[job.name for job in left], errors=errors)
    result = _shipped(plan, winner, job, result)
    assert result.export is not None
    subject = measuring.find([result.export], None)[0]
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
    costs_now = costs_of(entry, plan.threads)
    _require(plan, costs_now)
    excess = plan.budget.excess(costs_now)
    return _written(replace(result, measured=_told(plan, costs_now), holds=not excess))


def _summary(path: Path) -> dict[str, Any]:
    """What a finished run says of itself. Raises RunError where that is gone or damaged."""
    try:
        values = documents.read_json(path, within=path.parent)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise RunError(f"{path} is damaged: it is no summary of a run.")
    return values


def _shipped(plan: Plan, winner: Candidate, job: Job, result: FitResult) -> FitResult:
    """Export the winner's run, where that is not done yet."""
    run = folder_of(job)
    row = results.row_of(job, plan.metric)
    if row is None or row["status"] != "done":
        raise NothingFits(f"{winner.name}, the best after few epochs, diverged when it was trained in full, in {run}.")
    summary = _summary(run / "summary.json")
    place = plan.out / "final" / f"{winner.name}-{plan.format.name}"
    sha256 = student_folder.read(run / "student")[0].weights_sha256
    if not deployed.is_export(place) or deployed.read(place).student_sha256 != sha256:
        within = plan.within if winner.precision == "int8" else None
        export(
            run,
            to=plan.format.name,
            precision=winner.precision,
            batch=costing.BATCH,
            out=place,
            overwrite=place.exists(),
            within=within,
        )
    agreement = deployed.read(place).agreement
    return replace(result, student=run / "student", export=place, metrics=summary["last"], agreement=agreement)


def _with_held_out(plan: Plan) -> Plan:
    """The plan with as many images held out as are to choose by."""
    images = len(sources.load(plan.run.data).train)
    count = plan.val_images if plan.val_images is not None else max(1, round(SHARE_HELD_OUT * images))
    if not 1 <= count < images:
        raise ConfigError(f"val_images must be 1 or more, and fewer than the {images} training images, got {count}.")
    return replace(plan, val_images=count)


def _require(plan: Plan, costs: Costs) -> None:
    """Raises ConfigError where a quantity of the budget is not known."""
    for name in plan.budget.missing(costs):
        if name == "latency":
            raise ConfigError("The measured latencies have no interval: the benchmark tool must have run 6 times each.")
        raise ConfigError(f"The budget limits {name}, which is not known of what was measured: leave it out.")


def nothing_fits(plan: Plan, entries: Mapping[str, Entry], costs: Mapping[str, Costs]) -> str:
    """Which candidate comes nearest, and what it would take."""
    measured = {name: found for name, found in costs.items() if found}
    failed = [f"{name}: {entry['failed']}" for name, entry in entries.items() if "failed" in entry]
    also = "".join(f"\n  {line}" for line in failed[:5])
    if not measured:
        return f"No candidate can be exported to {plan.format.name} and run:{also}"
    nearest = min(measured, key=lambda name: max(plan.budget.excess(measured[name]).values()))
    excess = plan.budget.excess(measured[nearest])
    over = ", ".join(
        f"{quantity} {_between(quantity, measured[nearest])}, {_times(times)} {shown(quantity, limit)}"
        for quantity, times in excess.items()
        for limit in [plan.budget.limits[quantity]]
    )
    return (
        f"No candidate keeps {plan.budget} on {plan.format.name} with {plan.threads} "
        f"thread{'s' if plan.threads > 1 else ''}. Nearest is {nearest}: {over}. It would take a candidate that costs "
        f'less, or --budget "{plan.budget.loosened(measured[nearest])}". All are in {plan.out}/frontier.csv.'
        + (f"\nLeft out:{also}" if failed else "")
    )


def _between(quantity: str, costs: Costs) -> str:
    cost = costs[quantity]
    if cost.value == cost.high:
        return shown(quantity, float(f"{cost.value:.4g}"))
    return f"{cost.value:.4g} (up to {shown(quantity, float(f'{cost.high:.4g}'))})"


def _times(excess: float) -> str:
    return f"{100 * (excess - 1):.2g}% over" if excess < 2 else f"{excess:,.3g} times"


def _told(plan: Plan, costs: Costs) -> dict[str, list[float]]:
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
    told = result.agreement or {}
    answers = f": {told['metric']} {told['export']:.2f} on {told['images']} images of val" if told.get("metric") else ""
    yield f"Export: {result.export}{answers}"
    for name, (value, high) in (result.measured or result.promised).items():
        yield f"  {name}: {shown(name, float(f'{value:.4g}'))}, up to {shown(name, float(f'{high:.4g}'))}"
    if result.holds is None:
        yield result.next_step
    else:
        verdict = "The export keeps" if result.holds else "The export does not keep"
        yield (f"{verdict} {result.budget}: measured again in a fresh process, at the upper end of the 95% interval.")
