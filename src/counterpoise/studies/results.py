"""Results as rows, one a run: read from run folders, kept in results.csv, summed up by cell.

A row outlives its run folder: where the folder is gone, the row stands for it, if it is of the same run and origin.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.config.keys import asked, flatten
from counterpoise.errors import ConfigError, RunError, shown
from counterpoise.objectives.base import needs_teacher
from counterpoise.statistics import Unit
from counterpoise.studies import provenance, standing
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import note, started, state
from counterpoise.studies.standing import Present
from counterpoise.system import documents
from counterpoise.system.files import write_text

Row = dict[str, str]
OLD_DEFAULTS = {"train.schedule.milestones": [150.0, 180.0, 210.0]}
"""What was left out as a default when rows were first written: of another value now, and the hash stays."""
CLOCK = ("seconds", "images_per_second")
"""Columns that another day would fill otherwise; all others come back."""
COLUMNS = (
    "pair", "method", "task", "student", "teacher", "seed", "fold", "status", "metric", "last", "best", "best_epoch",
    "teacher_metric", "epochs", "batch_size", "learning_rate", "weight_decay", "total_weight", "weights",
    "temperatures", "objective", "params", "bytes", *CLOCK, "precision", "device", "threads", "versions",
    "commit", "code", "origin", "data", "teacher_sha256", "identity", "run_sha256", "plan_sha256",
)  # fmt: skip


def row_of(job: TrainingJob, metric: str) -> Row | None:
    """The row of a job; None where it is not done."""
    from counterpoise.engine.run_folder import RunFolder

    status = state(job)
    if status not in ("done", "diverged"):
        return None
    folder = job.folder
    noted, identity = note(folder), RunFolder(folder).identity()
    run = started(folder / "run.yaml")
    sitting = noted["sittings"][-1] if noted["sittings"] else {}
    values: dict[str, Any] = {
        "pair": job.cell[0],
        "method": job.cell[1],
        "task": run.task,
        "student": run.student.model or run.student.checkpoint,
        "teacher": "" if run.teacher is None else run.teacher.model or run.teacher.checkpoint or run.teacher.store,
        "seed": run.seed,
        "fold": run.data.fold,
        "status": status,
        "metric": metric,
        **_objective(run),
        "epochs": run.train.epochs,
        "batch_size": run.train.batch_size,
        "learning_rate": run.train.optimizer.learning_rate,
        "weight_decay": run.train.optimizer.weight_decay,
        "precision": run.train.precision,
        "device": sitting.get("device", ""),
        "threads": sitting.get("threads", ""),
        "commit": sitting.get("commit") or "",
        "code": sitting.get("code", "")[:12],
        "versions": " ".join(f"{name} {version}" for name, version in sitting.get("versions", {}).items()),
        "origin": provenance.key(noted["sittings"]),
        "plan_sha256": plan_hash(job.run),
        "data": identity.get("data", ""),
        "teacher_sha256": identity.get("teacher", ""),
        "identity": standing.digest(identity),
    }
    if status == "done":
        try:
            values |= _scores(folder, metric)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise RunError(f"The summary or the student.json of {folder} is damaged: {error!r}.") from None
    return {column: _text(values.get(column, "")) for column in COLUMNS}


def value(row: Row) -> float:
    """The metric of a run; nan where it diverged. Raises ConfigError where its data gives none: top-5 of 5 classes."""
    if row["status"] == "diverged":
        return math.nan
    if not row["last"]:
        raise ConfigError(f"metric: {row['metric']} is not told of these data, so nothing can be chosen by it.")
    return float(row["last"])


def score(job: TrainingJob, metric: str) -> float:
    """The same of a job that is done."""
    row = row_of(job, metric)
    assert row is not None
    return value(row)


def named(jobs: Sequence[TrainingJob], metric: str) -> str:
    """What a metric is called where its runs were judged by their agreement with the teacher, for want of labels."""
    from counterpoise.tasks import leading

    for job in jobs:
        try:
            return leading(metric, documents.read_json(job.folder / "summary.json", within=job.folder)["last"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return metric


def _scores(folder: Path, metric: str) -> dict[str, Any]:
    from counterpoise.tasks import leading

    summary = documents.read_json(folder / "summary.json", within=folder)
    metric = leading(metric, summary["last"])
    found: dict[str, Any] = {
        "metric": metric,
        "last": summary["last"].get(metric, ""),  # top-5 of five classes or fewer is none
        "best": summary["best"].get(metric, ""),
        "best_epoch": summary["best"].get("epoch", ""),
        "teacher_metric": summary["teacher"].get(metric, ""),
        "params": summary["parameters"],
        **{key: summary[key] for key in ("bytes", *CLOCK)},
    }
    student = folder / "student" / "student.json"
    if student.is_file():
        found["run_sha256"] = documents.read_json(student, within=folder)["provenance"]["run_sha256"]
    return found


def _objective(run: config.Run) -> dict[str, Any]:
    terms = {name: term.model_dump(mode="json", exclude_none=True) for name, term in run.objective.items()}
    numbers = {f"{name}.{key}": value for name, term in terms.items() for key, value in term.items()}
    return {
        "objective": json.dumps(terms),
        "total_weight": total_weight(run.objective),
        **{
            f"{kind}s": json.dumps({key: value for key, value in numbers.items() if key.endswith(kind)})
            for kind in ("weight", "temperature")
        },
    }


def total_weight(objective: Mapping[str, config.Term]) -> float | None:
    """What all terms that listen to the teacher weigh together; of Balance, both sides. None where one is scheduled."""
    total = 0.0
    for name, term in objective.items():
        if not needs_teacher(term.objective or name):
            continue
        arguments = term.arguments
        inner: list[Any] = [1.0]
        if (term.objective or name) in ("balance", "binary_balance"):
            inner = [arguments.get(f"{side}_weight", 1.0) for side in ("forward", "reverse")]
        if not isinstance(term.weight, int | float) or not all(isinstance(value, int | float) for value in inner):
            return None
        total += term.weight * sum(inner)
    return total


def plan_hash(run: config.Run) -> str:
    """sha256 of a run as it was asked for, without what may move, and without defaults: a new option moves no hash."""
    defaults = flatten(config.Run())
    values = {
        key: value
        for key, value in flatten(run).items()
        if asked(key) and value not in (defaults.get(key), OLD_DEFAULTS.get(key, defaults.get(key)))
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def read_csv(path: Path) -> list[Row]:
    """The rows of an older results.csv; none where there is no file. Raises ConfigError where it is something else."""
    if not path.is_file():
        return []
    try:
        rows = documents.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {documents.why_unread(error)}. Give another --out.") from None
    if rows and not {"pair", "method", "seed", "last", "origin", "plan_sha256"} <= rows[0].keys():
        raise ConfigError(f"{path} is no table of counterpoise compare: give another --out.")
    found = [{column: row.get(column) or "" for column in COLUMNS} for row in rows]
    for number, row in enumerate(found, 1):
        if (column := _odd(row)) is not None:
            given = shown(row[column])
            raise ConfigError(f"{path} is damaged: {column} of row {number} is {given}, expected a number.")
    return found


def _odd(row: Row) -> str | None:
    """The column of a row that holds no number where one is expected."""
    for column, kind in (("seed", int), ("last", float), ("best", float), ("fold", _fold)):
        try:
            kind(row[column] or ("" if column == "seed" else "0"))
        except ValueError:
            return column
    return None


def _fold(text: str) -> tuple[int, ...]:
    return tuple(map(int, str(text).split("/")))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _text(row.get(column)) for column in columns} for row in rows)
    write_text(path, text.getvalue())


def names(row: Row) -> tuple[str, ...]:
    """Pair and method of a row, as the cell of a job has them."""
    return row["pair"], row["method"]


def key(row: Row) -> tuple[str, ...]:
    """What a row has in common with its job alone: jobs whose data differ in their path have one hash."""
    return *names(row), row["plan_sha256"]


def key_of(job: TrainingJob) -> tuple[str, ...]:
    """The same of a job."""
    return *job.cell, plan_hash(job.run)


def renamed(older: Sequence[Row], jobs: Sequence[TrainingJob], present: Present) -> list[Row]:
    """Older rows under the names of the jobs that they stand for: a pair or a method may be called otherwise now.

    A row belongs to the job of its own names. Without one it goes to a job of the same run, data and teacher that has
    no row of its origin; where nobody can say which data it is of, to the only one of the same run.
    """
    alike: dict[str, list[TrainingJob]] = {}
    for job in jobs:
        alike.setdefault(plan_hash(job.run), []).append(job)
    said = [{job.cell: present.stands(row, job.run) for job in alike.get(row["plan_sha256"], ())} for row in older]
    own = [answers.get(names(row), False) is not False for row, answers in zip(older, said, strict=True)]
    taken = {(*key(row), row["origin"]): names(row) for row, is_own in zip(older, own, strict=True) if is_own}
    found = []
    for row, answers, is_own in zip(older, said, own, strict=True):
        before = names(row)
        free = [] if is_own else [
            cell for cell, answer in answers.items()
            if answer is not False and taken.get((*cell, row["plan_sha256"], row["origin"]), before) == before
        ]  # fmt: skip
        sure = [cell for cell in free if answers[cell]] or (free if len(free) == 1 else [])
        for pair, method in sure[:1]:
            row = {**row, "pair": pair, "method": method}
            taken[*key(row), row["origin"]] = before
        found.append(row)
    return found


def settled(jobs: Sequence[TrainingJob], older: Sequence[Row], metric: str, pool: bool, present: Present) -> set[str]:
    """Names of the jobs that have no folder, and need none: a row of the same run, metric and origin is there.

    With `pool`, of any origin. Where data or teacher cannot be looked at, the rows are taken for theirs.
    """

    def stands(row: Row, job: TrainingJob) -> bool:
        said = present.stands(row, job.run)
        known = said is True or (said is None and present.of(job.run) is None)
        return known and is_of(row, metric)

    found = set()
    rows: dict[tuple[str, ...], list[Row]] = {}
    for row in older:
        rows.setdefault(key(row), []).append(row)
    for job in jobs:
        if state(job) == "new":
            own = [row for row in rows.get(key_of(job), []) if stands(row, job)]
            if own and (pool or any(row["origin"] == provenance.key([provenance.here(job.run)]) for row in own)):
                found.add(job.name)
    return found


def gather(jobs: Sequence[TrainingJob], older: Sequence[Row], metric: str) -> list[Row]:
    """Rows of all jobs that are done, in their order, and older rows that no folder here stands for."""
    identity = itemgetter("pair", "method", "plan_sha256", "origin", "data", "teacher_sha256")
    here = [row for job in jobs if (row := row_of(job, metric)) is not None]
    known = {identity(row) for row in here}
    known |= {(*each[:4], "", "") for each in known}  # a run that diverged, as an earlier version told it
    others = [row for row in older if identity(row) not in known]
    order = {key_of(job): index for index, job in enumerate(jobs)}
    return sorted([*here, *others], key=lambda row: order.get(key(row), len(order)))


def is_of(row: Row, metric: str) -> bool:
    """Whether a row tells a metric, or the agreement with a teacher in it."""
    from counterpoise.tasks import AGREEMENT

    return row["metric"] in (metric, AGREEMENT + metric)


def asked_for(rows: Sequence[Row], jobs: Sequence[TrainingJob], metric: str, present: Present) -> list[Row]:
    """The rows that are runs of this compare file: results.csv may hold those of an older one, or of other data."""
    wanted = {key_of(job): job for job in jobs}
    return [
        row
        for row in rows
        if is_of(row, metric)
        and (job := wanted.get(key(row))) is not None
        and present.stands(row, job.run) is not False
    ]


def once(rows: Sequence[Row]) -> list[Row]:
    """The first row of each job, whatever its origin."""
    return list({key(row): row for row in reversed(rows)}.values())[::-1]


def origins(rows: Iterable[Row]) -> dict[str, str]:
    """What the origins of rows are, in words."""
    return {
        row["origin"]: f"{row['device']}, {row['versions']}, commit {row['commit'][:12] or 'unknown'}"
        for row in sorted(rows, key=lambda row: row["origin"])
    }


def by_seed(rows: Iterable[Row], pair: str, method: str, when: str = "last") -> dict[Unit, float]:
    """The metric of a cell's runs that did not diverge, by seed, or by fold and seed."""
    return {
        unit(row): float(row[when])
        for row in rows
        if row["pair"] == pair and row["method"] == method and row["status"] == "done" and row[when]
    }


def unit(row: Mapping[str, str]) -> Unit:
    fold = row.get("fold")
    return (int(fold.partition("/")[0]), int(row["seed"])) if fold else int(row["seed"])


def spread(values: Iterable[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation (n - 1), of what there is of them."""
    found = list(values)
    return statistics.fmean(found) if found else None, statistics.stdev(found) if len(found) > 1 else None
