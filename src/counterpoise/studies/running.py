"""Runs as jobs: what is done, what is left, and one of them trained, wherever that is.

A finished run folder is the state. Beside it, FOLDER.origin.json says where its sittings were, and whether it diverged.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest.mock import patch

from counterpoise import config
from counterpoise.config import keys
from counterpoise.errors import ConfigError, CounterpoiseError, DivergedError, Interrupted, RunError
from counterpoise.studies import provenance
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.standing import Present
from counterpoise.system import documents

State = Literal["done", "diverged", "begun", "new"]
RELEASED_SECONDS = 60
"""How long to wait for a folder that a dying worker may still hold."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `done`, `diverged`, `left` for another call, or an error to be mended."""

    kind: Literal["done", "diverged", "left", "error"]
    message: str = ""


class Backend(Protocol):
    """Trains jobs somewhere, each by `work`; calls `ended` in this process as they end, in any order."""

    def __call__(
        self, jobs: Sequence[TrainingJob], until: float | None, ended: Callable[[TrainingJob, Outcome], None]
    ) -> None: ...


def beside(folder: Path) -> Path:
    """The file that says where the sittings of a run were."""
    return folder.with_name(f"{folder.name}.origin.json")


def note(folder: Path) -> dict[str, Any]:
    """What is noted beside a run: its `sittings`, and the message where it `diverged`."""
    try:
        found = documents.read_json(beside(folder))
    except (OSError, ValueError):
        found = {}
    return {"sittings": [], "diverged": None, **(found if isinstance(found, dict) else {})}


def state(job: TrainingJob) -> State:
    """Where a job stands. Raises RunError where its folder holds another run."""
    from counterpoise.engine.run_folder import RunFolder

    folder = RunFolder(job.folder)
    if not folder.run_file.is_file():
        return "new"
    differing = keys.differences(started(folder.run_file), job.run)
    _refuse(job, [f"{key}: {old!r} there, {new!r} here" for key, (old, new) in differing.items()])
    if folder.summary.is_file():
        return "done"
    return "diverged" if note(folder.path)["diverged"] else "begun"


def _refuse(job: TrainingJob, differing: Sequence[str]) -> None:
    if differing:
        raise RunError(
            f"{job.folder} holds another run than {job.name} of this file:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nGive another 'out' (--out), or move that folder away."
        )


def started(run_file: Path) -> config.Run:
    """The run file of a run folder. Raises ConfigError where it is damaged."""
    return _started(run_file, run_file.stat().st_mtime_ns)


@lru_cache(maxsize=10_000)
def _started(run_file: Path, written: int) -> config.Run:
    return config.kept(run_file)


def work(job: TrainingJob, until: float | None, threads: int | None = None, cwd: Path | None = None) -> Outcome:
    """Train a job in this process to its end, or until time.time() is at `until`; go on with what is there.

    Args:
        threads: of torch on the CPU, and the cores that processes which read may take; None: as they are.
        cwd: folder that relative paths in the run start from.
    """
    import torch

    if until is not None and time.time() >= until:
        return Outcome("left")
    before = torch.get_num_threads()
    cores = {}
    if threads is not None:
        torch.set_num_threads(threads)
        cores = {"LOKY_MAX_CPU_COUNT": str(threads)}  # as `machine.cores` reads it
    try:
        with contextlib.chdir(cwd or Path.cwd()), patch.dict(os.environ, cores):
            return _work(job, until)
    except CounterpoiseError as error:
        return Outcome("error", str(error))
    except OSError as error:
        return Outcome("error", f"{error.filename}: {error.strerror}" if error.filename else str(error))
    finally:
        torch.set_num_threads(before)


def _work(job: TrainingJob, until: float | None) -> Outcome:
    from counterpoise.engine import runs
    from counterpoise.system.files import held, make_folder, write_text

    folder = job.folder
    if (lock := folder / ".lock").exists():  # a process that is about to end, and held this run before, lets go of it
        with contextlib.suppress(RunError), held(lock, RELEASED_SECONDS):
            pass
    found = state(job)
    if found in ("done", "diverged"):
        return Outcome(found, note(folder)["diverged"] or "")
    make_folder(folder.parent)
    noted = note(folder) if found == "begun" else {"sittings": [], "diverged": None}
    sitting = provenance.here(job.run)
    if sitting not in noted["sittings"]:
        noted["sittings"].append(sitting)
    write_text(beside(folder), json.dumps(noted, indent=1) + "\n")
    deadline = None if until is None else time.monotonic() + until - time.time()
    verb = runs.distill if job.distils else runs.train
    try:
        verb(job.run, resume=folder.is_dir(), deadline=deadline)
    except DivergedError as error:
        write_text(beside(folder), json.dumps({**noted, "diverged": str(error)}, indent=1) + "\n")
        return Outcome("diverged", str(error))
    except Interrupted:
        if until is not None and time.time() >= until:
            return Outcome("left")
        raise KeyboardInterrupt from None  # a plain one: it may have to travel out of a worker
    return Outcome("done")


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the folder of a comparison. Raises RunError where another process does."""
    from counterpoise.system.files import held, make_folder

    make_folder(out)
    with held(out / ".lock", 2, busy=f"Another process is at work in {out}. Wait for it, or give another --out."):
        yield


def refuse_foreign(out: Path, heads: Mapping[str, str]) -> None:
    """Raises ConfigError where a file in `out` that is to be written is somebody else's.

    Args:
        heads: what ours begin with, by name; what is empty tells nothing, and goes by the others.
    """
    there = [name for name in heads if (out / name).is_file()]
    own = {name for name in there if heads[name] and _begins(out / name, heads[name])}
    for name in there:
        if name not in own and (heads[name] or not own):
            raise ConfigError(
                f"{out / name} is there already, and is none that this command wrote: it would be replaced. "
                "Give another --out, or move that file away."
            )


def _begins(file: Path, head: str) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(head)) == head.encode()


def run_all(
    jobs: Sequence[TrainingJob],
    backend: Backend,
    until: float | None,
    say: Callable[[str], None],
    present: Present | None = None,
) -> tuple[list[TrainingJob], dict[str, str]]:
    """Train all jobs that are not done; `present`: what their data and teachers are, where that was looked at before.

    Returns:
        Jobs that are left for another call, and the errors, by name, of those that cannot go on.

    Raises:
        RunError: a folder holds another run. ConfigError: one that has not begun would never reach its milestones.
        KeyboardInterrupt: asked to stop; what was begun is saved.
    """
    from counterpoise.engine.optimization import never_reached
    from counterpoise.engine.run_folder import RunFolder

    present = present or Present(say)
    states = {job.name: state(job) for job in jobs}
    for job in jobs:  # of one that goes on this is seen when it does
        if states[job.name] in ("done", "diverged"):
            folder = RunFolder(job.folder)
            _refuse(job, present.differences(started(folder.run_file), folder.identity(), job.run))
    # What is half done comes first, so that a table grows by whole runs.
    waiting = [job for which in ("begun", "new") for job in jobs if states[job.name] == which]
    for job in waiting:
        if states[job.name] == "new" and (late := never_reached(job.run.train)) is not None:
            raise ConfigError(f"The run of {job.name}: {late}")
    left = {job.name: job for job in waiting}
    errors: dict[str, str] = {}
    begin = time.perf_counter()

    def ended(job: TrainingJob, outcome: Outcome) -> None:
        if outcome.kind == "left":
            return
        left.pop(job.name, None)
        if outcome.kind == "error":
            known = outcome.message in errors.values()
            errors[job.name] = outcome.message
            say(f"{job.name}: {'the same' if known else outcome.message}")
            return
        done = len(jobs) - len(left) - len(errors)
        why = f". {outcome.message}" if outcome.message else ""
        say(f"{done}/{len(jobs)}  {job.name}  {outcome.kind}  ({time.perf_counter() - begin:.0f} s){why}")

    try:
        if waiting:
            backend(waiting, until, ended)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; what was begun is saved, and the same command goes on.") from None
    return list(left.values()), errors
