"""What candidates cost, untrained, on the runtime that is to run them. What was measured is kept, a line each.

In float the cost does not depend on the weights. In 8 bits it does where layers stay in float: a candidate is measured
with none of them, and the trained winner again with those that were chosen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from counterpoise import tasks
from counterpoise.data import sources
from counterpoise.data.sources.base import Splits
from counterpoise.deploy import job as exporting
from counterpoise.deploy import pictures
from counterpoise.deploy.base import Request
from counterpoise.deploy.measuring import counting, subjects, timing
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.deploy.network import Deployed
from counterpoise.errors import ConfigError, CounterpoiseError, MeasureError, RunError
from counterpoise.studies.fitting.candidates import Candidate
from counterpoise.studies.fitting.plan import FitPlan, with_student
from counterpoise.studies.plan import complete
from counterpoise.system import documents
from counterpoise.system.files import sync_folder
from counterpoise.system.machine import processor

if TYPE_CHECKING:
    from counterpoise.engine.student import Student

MEASUREMENTS = "measurements.jsonl"
TOGETHER = 6
"""Candidates that are measured in turn at a time: each is held open by a process."""
BATCH = 1
"""Pictures that exports of a fit take: the budget is that of one, and some runtimes plan memory for the most."""
CALIBRATION = {"images": 32}
"""Of an untrained candidate, whose ranges mean nothing yet."""
UNTRAINED = ("pretrained", "checkpoint", "weights", "freeze")
OF_TRAINING = {
    "held_out",
    "unlabeled",
    "balance",
    "workers",
    "memory_limit_gb",
    "shuffle",
    "block_size",
    "shuffle_window",
}
"""What a section of a run file says beside what an export costs."""

Entry = dict[str, Any]
"""As `measure` has it, with `key`; instead of cases `failed`, where a candidate cannot be exported or run."""


class Ledger:
    """measurements.jsonl: appended line by line, so that a kill loses the last one at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        try:
            text = documents.read_text(path, limit=documents.JSON_BYTES, errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error}.") from None
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # the last one, of a process that was killed
                entry = documents.parse_json(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self.entries[entry["key"]] = entry

    def keep(self, entries: Sequence[Entry]) -> None:
        """Add entries, on disk when this returns."""
        cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" if cut else "")
            for entry in entries:
                self.entries[entry["key"]] = entry
                file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)


def measure(plan: FitPlan, ledger: Ledger, tell: Callable[[str], None]) -> dict[str, Entry]:
    """An entry for each candidate by name, measured where the ledger has none from this machine."""
    data = sources.load(plan.run.data)
    keys = {candidate.name: key(plan, candidate, repr(data.train.classes)) for candidate in plan.candidates}
    left = [candidate for candidate in plan.candidates if keys[candidate.name] not in ledger.entries]
    if left:
        tell(f"{len(left)} of {len(plan.candidates)} candidates to measure on {plan.format.name}")
    for start in range(0, len(left), TOGETHER):
        part = left[start : start + TOGETHER]
        with tempfile.TemporaryDirectory(dir=plan.out, prefix=".measuring-") as folder:
            found, failed = exports(plan, part, data, Path(folder))
            entries = [{"key": keys[name], "name": name, "failed": why} for name, why in failed.items()]
            entries += timed(plan, found, keys)
        ledger.keep(entries)
        tell(f"measured {min(start + TOGETHER, len(left))} of {len(left)}")
    return {name: ledger.entries[found] for name, found in keys.items()}


def exports(
    plan: FitPlan, wanted: Sequence[Candidate], data: Splits, folder: Path
) -> tuple[list[Subject], dict[str, str]]:
    """Untrained candidates as exports in folders of their own; and why others cannot be exported, by name."""
    found, failed = [], {}
    for candidate in wanted:
        try:
            found.append(untrained(plan, candidate, data, folder / candidate.name))
        except CounterpoiseError as error:
            failed[candidate.name] = str(error)
    return found, failed


def timed(plan: FitPlan, found: list[Subject], keys: Mapping[str, str]) -> Iterator[Entry]:
    """Entries of exports, measured in turn; one that fails is left out of the next attempt."""
    settings = timing.Settings((plan.asked.threads,), (1,), plan.asked.rounds, plan.asked.seconds)
    while found:
        try:
            cases = timing.time_all(found, settings)
        except MeasureError as error:
            yield {"key": keys[error.name], "name": error.name, "failed": str(error)}
            found = [subject for subject in found if subject.name != error.name]
            continue
        for subject, own in zip(found, cases, strict=True):
            values = {**subject.values(), "cases": [asdict(case) for case in own]}
            yield {"key": keys[subject.name], **values}
        return


def measure_final(plan: FitPlan, winner: Candidate, subject: Subject, ledger: Ledger) -> Entry:
    """The entry of the winner's export: measured in a fresh process, where these very files were not."""
    content = hashlib.sha256(b"".join(file.read_bytes() for file in subject.files)).hexdigest()
    found = key(plan, winner, content)
    if found not in ledger.entries:
        ledger.keep(list(timed(plan, [subject], {subject.name: found})))
    entry = ledger.entries[found]
    if "failed" in entry:
        raise CounterpoiseError(entry["failed"])
    return entry


def untrained(plan: FitPlan, candidate: Candidate, data: Splits, folder: Path) -> Subject:
    """Export a candidate with weights of chance. Raises whatever is wrong with it."""
    from counterpoise.engine.networks import build_student

    run, _ = complete(with_student(plan.values, candidate), f"run of {candidate.name}")
    run = run.model_copy(update={"student": run.student.model_copy(update={"pretrained": False})})
    classes = data.train.classes
    if not classes:
        raise ConfigError("fit needs data with labels: the teacher's word does not tell which candidate is better.")
    torch.manual_seed(run.seed)
    network = build_student(run, classes)
    tasks.get(run.task).ready(network, run)
    as_if_trained(network)
    size = pictures.size_of(network, None, data.val, run.data)
    around = None if tasks.get(run.task).whole else pictures.mean_color(network)
    request = Request(candidate.precision, size, BATCH, around=around, channels=network.channels)
    student = cast("Student", network)
    job = exporting.ExportJob(student, Deployed(network), plan.format, request, data, run.data, 1)
    job = exporting.settled(job)  # as the winner's export is
    folder.mkdir(parents=True)
    exporting.make(job, folder, exporting.calibrated(job, CALIBRATION) if candidate.precision == "int8" else None)
    return subjects.export(
        candidate.name,
        plan.format,
        folder,
        precision=candidate.precision,
        size=job.request.size,
        batch=BATCH,
        channels=network.channels,
        parameters=counting.parameters(network),
        multiply_adds=counting.multiply_adds(job.graph, job.request.size, network.channels),
        window=job.request.window is not None,
    )


def as_if_trained(network: nn.Module) -> None:
    """No number as it is initialized: the zeros and ones that a layer starts with would be optimized away."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.is_floating_point() and value.ndim == 1:
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(0.5 + noise if name.endswith(("weight", "running_var")) else noise - 0.5)
    network.eval()


def key(plan: FitPlan, candidate: Candidate, of: str) -> str:
    """What a measurement depends on, as a short hash: network, task, data, runtime, how it is measured, the machine.

    of: the classes of the data for an untrained candidate, a hash of the files for an export.
    """
    student = with_student(plan.values, candidate)["student"]
    found = [
        {name: value for name, value in student.items() if name not in UNTRAINED},
        candidate.precision,
        plan.run.task,
        plan.run.data.model_dump(mode="json", exclude=OF_TRAINING),
        plan.format.name,
        plan.format.versions(),
        (plan.asked.threads, plan.asked.rounds, plan.asked.seconds),
        (processor(), timing.cores()),
        of,
    ]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:16]


def clear(out: Path) -> None:
    """Remove what a killed process was measuring."""
    for folder in out.glob(".measuring-*"):
        shutil.rmtree(folder, ignore_errors=True)
