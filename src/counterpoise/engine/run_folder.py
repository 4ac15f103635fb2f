"""The folder of a run: what it is called, who may write it, and whether a run may start or go on there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from counterpoise import config, tasks
from counterpoise.config import keys
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.summary import Found
from counterpoise.engine import state
from counterpoise.errors import CounterpoiseError, RunError
from counterpoise.system import documents
from counterpoise.system.files import expanded, held, make_folder, reason, sweep, sync_folder, write_text

RUN_FILE = "run.yaml"
METRICS = "metrics.jsonl"
DATA = "data.json"
IDENTITY = "identity.json"
LOCK = ".lock"
CHECKPOINT = Path("checkpoints", "last.safetensors")
BEST = Path("checkpoints", "best.safetensors")
STUDENT = "student"
SUMMARY = "summary.json"
CASES = "cases.csv"
REPORT = "report.html"
RECEIPT = "receipt.json"
OURS = (
    RUN_FILE,
    METRICS,
    DATA,
    IDENTITY,
    "checkpoints",
    STUDENT,
    SUMMARY,
    CASES,
    REPORT,
    RECEIPT,
    "tensorboard",
    "wandb",
    "trackers.json",
    LOCK,
)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = path = expanded(Path(path))
        self.run_file = path / RUN_FILE
        self.metrics = path / METRICS
        self.checkpoint = path / CHECKPOINT
        self.best = path / BEST
        self.student = path / STUDENT
        self.summary = path / SUMMARY
        self.cases = path / CASES

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. Raises RunError where another process does; a process that dies lets go.

        A folder that was made for this and is still empty afterwards, because the run could not start, goes again.
        """
        new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        make_folder(self.path)
        busy = f"Another process is writing run folder {self.path}. Wait for it, or give another --out."
        ours = [Path(name) for name in OURS if name != REPORT]  # which is written without the lock
        entered = False
        try:
            with held(self.path / LOCK, 0, busy=busy):
                entered = True
                sweep(*(self.path / each for each in (*ours, CHECKPOINT, BEST)))
                yield
        finally:
            with contextlib.suppress(OSError):
                if entered and new and [entry.name for entry in self.path.iterdir()] in ([], [LOCK]):
                    (self.path / LOCK).unlink(missing_ok=True)
                    for folder in new:
                        folder.rmdir()

    def check_free(self, overwrite: bool) -> None:
        """Raises RunError unless the folder is empty, or holds a run that may be overwritten."""
        names = [entry.name for entry in self.path.iterdir()] if self.path.exists() else []
        # Nothing but our own files without a run file: a run that was killed while it started.
        ours = {LOCK, CHECKPOINT.parts[0], METRICS, f".{RUN_FILE}.partial"}
        there = sorted(name for name in names if name not in ours)
        if not there:
            return
        if RUN_FILE not in there:
            raise RunError(f"{self.path} is not empty and holds no run ({there[0]}, ...): give another --out.")
        if not overwrite:
            raise RunError(f"Run folder {self.path} exists. Go on with --resume, or replace it with --overwrite.")

    def start(self, run: config.Run, begin: Callable[[], None] | None = None) -> None:
        """Clear an older run, if there is one, and write the resolved run file.

        begin: puts down what the run begins with; a run that has its run file has that, too.
        """
        # The run file last: what has none is taken for a folder of somebody else's.
        names = sorted((name for name in OURS if name != LOCK), key=lambda name: name == RUN_FILE)
        try:
            for entry in (self.path / name for name in names):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise RunError(f"The older run in {self.path} could not be removed: {reason(error)}.") from error
        make_folder(self.checkpoint.parent)
        if begin is not None:
            begin()
        write_text(self.run_file, config.dump(run))

    def write_found(self, found: Found) -> None:
        """Write down what was found in the data, as it was printed and as values."""
        write_text(self.path / DATA, json.dumps({"said": found.text(), **found.values}, indent=2) + "\n")

    def note_identity(self, found: Mapping[str, str]) -> None:
        """Write down what the run is trained on, and by whom; see `engine.identify`."""
        write_text(self.path / IDENTITY, json.dumps(found, indent=2) + "\n")

    def identity(self) -> dict[str, str]:
        """What was noted; of runs of earlier versions what their checkpoint or student says, which may be nothing."""
        try:
            return _texts(documents.read_json(self.path / IDENTITY, within=self.path))
        except (OSError, ValueError, CounterpoiseError):
            pass
        if found := state.origin_of(self.checkpoint):
            return found
        try:
            provenance = documents.read_json(self.student / "student.json", within=self.path)["provenance"]
            weights = (provenance["teacher"] or {}).get("sha256", "")
            return _texts({"data": provenance["data_fingerprint"], **({"teacher": weights} if weights else {})})
        except (OSError, ValueError, LookupError, TypeError, AttributeError, CounterpoiseError):
            return {}

    def check_identity(self, found: Mapping[str, str], classes: Sequence[str]) -> None:
        """Raises RunError where the run was trained on other data, or by another teacher."""
        if noted := self.identity():
            state.check_origin(self.checkpoint, noted, found, classes)

    def started(self) -> bool:
        """Whether there is a run to go on with; False where one was killed before it had begun.

        Raises RunError where the folder does not exist.
        """
        if not self.path.is_dir():
            raise RunError(f"{self.path} holds no run to resume: start it without --resume.")
        return self.run_file.is_file()

    def read(self) -> config.Run:
        """The run file in the folder. Raises RunError where there is none."""
        if not self.run_file.is_file():
            raise RunError(f"{self.path} holds no run to resume: start it without --resume.")
        return config.kept(self.run_file)

    def ship(self, epoch: Literal["last", "best"]) -> None:
        """Write down whose weights are the student now, which may change on the way."""
        run = self.read()
        if run.train.ship != epoch:
            train = run.train.model_copy(update={"ship": epoch})
            write_text(self.run_file, config.dump(run.model_copy(update={"train": train})))

    def check_same(self, run: config.Run) -> None:
        """Raises RunError unless `run` is the run that was started here, up to what may change on the way."""
        differing = keys.differences(self.read(), run, resume=True)
        if differing:
            lines = "\n".join(f"  {key}: {old!r} there, {new!r} given" for key, (old, new) in differing.items())
            if "train.epochs" in differing:
                lines += (
                    "\nThe schedule of a run depends on train.epochs, so it gets no more of them. Once it has come to "
                    f"its end, --extend {self.path} with another --out goes on from there, to more epochs, and "
                    f"--student.checkpoint {self.path} starts another run from its student."
                )
            raise RunError(
                f"Run folder {self.path} was started with other options, so it cannot be resumed with these:\n{lines}"
            )

    def read_as_started(self, run: config.Run) -> config.Run:
        """The run with its pictures read as when it was started: what is left open of it is not decided anew.

        Earlier versions decided nothing, and took every fourth band for transparency.
        """
        if run.data.alpha != "auto":
            return run
        started = self.read().data.alpha
        data = run.data.model_copy(update={"alpha": "white" if started == "auto" else started})
        return run.model_copy(update={"data": data})

    def check_decided(self, run: config.Run, images: ImageSet, in_arrays: bool) -> None:
        """Raises RunError where the data decide otherwise than when the run was started.

        Args:
            run: decided.
            images: of the training half; `in_arrays`: whether their source holds them in memory by itself.
        """
        started, views = self.read(), run.data.views
        old = keys.flatten(started)
        differing = [
            f"{key}: {old[key]!r} there, {value!r} now"
            for key, value in keys.flatten(run).items()
            if keys.row(key).auto == "data" and old.get(key) not in (None, "auto", value)
        ]
        if differing:
            raise RunError(
                f"The data decide otherwise than when the run in {self.path} was started:\n  "
                + "\n  ".join(differing)
                + "\nGive the data back as they were, or start a run with another --out."
            )
        # Earlier versions left `auto` in the run file, and padded only what they held in memory.
        extent, limit = images.common_extent, started.data.memory_limit_gb
        padded_now = tasks.get(run.task).whole and started.data.views.crop == "auto" and views.crop == "pad"
        if padded_now and extent and not in_arrays:
            gigabytes = len(images) * images.channels * extent[0] * extent[1] / 1e9
            if gigabytes > limit:
                raise RunError(
                    f"The run in {self.path} was started by an earlier version, which showed these pictures in resized "
                    f"crops, because they take {gigabytes:.3g} GB and data.memory_limit_gb was {limit:g}; now small "
                    "pictures are padded wherever they lie. Let that version finish it, or start it anew with another "
                    "--out."
                )

    def cut_metrics(self, size: int) -> None:
        """Forget the lines that were written after the checkpoint that is resumed."""
        if self.metrics.exists():
            with self._writing_metrics(), self.metrics.open("rb+") as file:
                file.truncate(min(size, self.metrics.stat().st_size))

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl. Raises RunError where the disk is full."""
        with self._writing_metrics(), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @contextlib.contextmanager
    def _writing_metrics(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.metrics} could not be written: {error.strerror}. The checkpoint is intact: --resume goes on."
            ) from error

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl, all of them on disk, and its name."""
        if not self.metrics.exists():
            return 0
        with self._writing_metrics(), self.metrics.open("rb+") as file:
            os.fsync(file.fileno())
            sync_folder(self.path)
            return file.seek(0, os.SEEK_END)


def _texts(found: Any) -> dict[str, str]:
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def default_path(student: str) -> Path:
    """runs/STUDENT-TIME."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in student.rpartition("/")[2])
    return Path("runs", f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}")


def run_hash(run: config.Run) -> str:
    """sha256 of the resolved run file without its `out`."""
    return hashlib.sha256(config.dump(run.model_copy(update={"out": None})).encode()).hexdigest()
