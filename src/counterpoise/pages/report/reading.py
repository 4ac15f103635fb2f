"""A run folder as it stands: finished, still being written, cut off, damaged or of another version.

Nothing here fails: what cannot be read is named in `missing`, and the rest is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.engine.run_folder import METRICS, RUN_FILE, STUDENT, SUMMARY
from counterpoise.engine.student_epochs import Epoch
from counterpoise.errors import CounterpoiseError, DocumentError, UnfitFileError
from counterpoise.models.folder import shipped_epoch
from counterpoise.statistics import Unit
from counterpoise.system import documents
from counterpoise.system.files import regular

LARGEST = 400_000_000
"""Bytes of a file that is read; a log of a million lines is half of it."""
DEPTH = 4
"""How far below a folder of runs these are looked for: compare keeps them in runs/PAIR/METHOD/seed-N."""


@dataclass
class Reading:
    """What a run folder tells.

    Attributes:
        name: of the folder.
        values: run.yaml as it is written.
        run: the same, resolved; None where this version cannot.
        steps, epochs: lines of metrics.jsonl.
        teacher: the teacher's metrics on the run's evaluation images.
        summary: summary.json, which a finished run has.
        student: student.json, likewise.
        missing: what is not there or cannot be read, a sentence each.
        epoch: whose student the page is about, last or best; None: that which ships.
    """

    folder: Path
    name: str
    values: dict[str, Any] = field(default_factory=dict)
    run: config.Run | None = None
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    epochs: list[Mapping[str, Any]] = field(default_factory=list)
    teacher: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    student: dict[str, Any] | None = None
    missing: list[str] = field(default_factory=list)
    epoch: Epoch | None = None

    @property
    def task(self) -> str:
        """What the student answers, as the run file says."""
        return str(self.values.get("task") or "classification")

    @property
    def shown(self) -> str:
        """Whose student the page is about: that of the last epoch, or of the best."""
        return self.epoch or shipped_epoch(self.provenance)

    @property
    def scores(self) -> dict[str, float]:
        """Metrics of the epoch that is shown; of a run that goes on, of those so far."""
        if self.summary is not None and isinstance(self.summary.get(self.shown), dict):
            return numbers(self.summary[self.shown])
        found = [numbers(line.get("val")) for line in self.epochs]
        if self.shown == "best":  # the headline comes first
            return max(found, key=lambda scores: next(iter(scores.values()), 0.0), default={})
        return found[-1] if found else {}

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the best epoch, where it is told."""
        return numbers((self.summary or {}).get("best"))

    @property
    def remarks(self) -> list[str]:
        """What the run says of its teacher, a sentence or two each."""
        found = (self.summary or {}).get("remarks")
        return [remark for remark in found if isinstance(remark, str)] if isinstance(found, list) else []

    @property
    def seed(self) -> int:
        """The run's seed."""
        seed = self.values.get("seed", 0)
        return seed if isinstance(seed, int) else 0

    @property
    def fold(self) -> tuple[int, int]:
        """Which fold was held out, from 1, and of how many; 0 and 0 where there are none."""
        return (0, 0) if self.run is None or self.run.data.fold is None else self.run.data.fold_of

    @property
    def unit(self) -> Unit:
        """What it shares with runs of other methods: its seed, and its fold where there is one."""
        return (self.fold[0], self.seed) if self.fold[1] else self.seed

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What student.json says of where it comes from."""
        return mapping((self.student or {}).get("provenance"))

    @property
    def weights(self) -> str:
        """sha256 of the student's weights."""
        return str((self.student or {}).get("weights_sha256") or "")

    @property
    def data(self) -> str:
        """Fingerprint of the training images; empty of a run that has not come to its end."""
        return str(self.provenance.get("data_fingerprint") or "")

    @property
    def teacher_weights(self) -> str:
        """sha256 of the teacher's weights."""
        return str(self.teacher_told.get("sha256") or "")

    @property
    def teacher_told(self) -> Mapping[str, Any]:
        """What student.json says of the teacher."""
        return mapping(self.provenance.get("teacher"))


def read(folder: Path, epoch: Epoch | None = None) -> Reading:
    """What there is in a run folder; nothing outside it is read, wherever links in it lead."""
    reading = Reading(folder, folder.resolve().name, epoch=epoch)
    text = inside(reading, RUN_FILE)
    if text is not None:
        try:
            values = documents.parse_yaml(text)
            if isinstance(values, dict) and values:
                reading.values = values
                reading.run = config.resolve(values, f"run file {RUN_FILE}")
            else:
                reading.missing.append(f"{RUN_FILE} does not hold the sections of a run.")
        except DocumentError as error:
            reading.missing.append(f"{RUN_FILE} is not YAML: {error}")
        except CounterpoiseError as error:
            reading.missing.append(f"{RUN_FILE} is of another version or damaged, and is shown as it stands. {error}")
    _metrics(reading)
    reading.summary = _json(reading, SUMMARY)
    reading.student = _json(reading, f"{STUDENT}/student.json")
    if reading.summary is None and text is not None:
        reading.missing.insert(0, f"The run is not finished: {_progress(reading)}.")
    if reading.summary is not None and not reading.scores:
        reading.missing.append(f"{SUMMARY} holds no metrics.")
    if reading.summary is not None and reading.student is None:
        reading.missing.append(f"{STUDENT}/student.json is missing or damaged: the student cannot be asked.")
    return reading


def find(path: Path) -> list[Path]:
    """The run folders that a path means: itself, or those below it. Empty where there are none."""
    if _is_run(path):
        return [path]
    return sorted(child for child in below(path, lambda folder: not _is_run(folder)) if _is_run(child))


def below(folder: Path, enter: Callable[[Path], bool] = lambda _: True) -> Iterator[Path]:
    """What lies in a folder and, DEPTH levels down, in its folders to be entered; no links, no hidden files."""
    level = [folder] if folder.is_dir() else []
    for _ in range(DEPTH):
        children = sorted(child for one in level for child in one.iterdir())
        children = [child for child in children if not child.is_symlink() and not child.name.startswith(".")]
        yield from children
        level = [child for child in children if child.is_dir() and enter(child)]


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def finite(value: Any) -> float | None:
    """A number, where it is one and finite."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return float(value) if fits else None


def numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    found = {str(name): finite(value) for name, value in mapping(values).items()}
    return {name: value for name, value in found.items() if value is not None}


def spelled(text: str | None) -> float | None:
    """The finite number of a cell of a table."""
    try:
        return finite(float(text or ""))
    except ValueError:
        return None


def table(file: Path, missing: list[str], rows: int = 500) -> list[dict[str, str]]:
    """The first rows of a CSV file; none, and in `missing` why, where it cannot be read."""
    try:
        return documents.read_csv(file, rows=rows)
    except (OSError, ValueError) as error:
        missing.append(f"{file.name} cannot be read: {documents.why_unread(error)}.")
        return []


def inside(reading: Reading, name: str) -> str | None:
    """The text of a file in the run folder; None, and why, where it cannot be read. A missing one is told elsewhere."""
    path = reading.folder / name
    try:
        regular(path, within=reading.folder, limit=LARGEST)
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if name in (RUN_FILE, METRICS):
            reading.missing.append(f"There is no {name}.")
    except UnfitFileError as error:
        reading.missing.append(f"{name} {error.strerror}, so it was not read.")
    except OSError as error:
        reading.missing.append(f"{name} cannot be read: {error.strerror}.")
    return None


def _json(reading: Reading, name: str) -> dict[str, Any] | None:
    text = inside(reading, name)
    if text is None:
        return None
    try:
        values = documents.parse_json(text)
    except ValueError:
        reading.missing.append(f"{name} is damaged or cut off.")
        return None
    if not isinstance(values, dict):
        reading.missing.append(f"{name} is not what it should be.")
        return None
    return values


def _metrics(reading: Reading) -> None:
    text = inside(reading, METRICS)
    if text is None:
        return
    lines = text.split("\n")
    if lines[-1]:  # being written just now, or cut off
        reading.missing.append(f"The last line of {METRICS} is not complete.")
    bad = 0
    for text_line in lines[:-1]:
        try:
            line = mapping(documents.parse_json(text_line))
        except ValueError:
            line = {}
        kind = line.get("kind")
        if kind == "step":
            reading.steps.append(line)
        elif kind == "epoch":
            reading.epochs.append(line)
        elif kind == "teacher":
            reading.teacher = numbers(line.get("val"))
        elif kind != "pull":  # whose remark is in summary.json
            bad += 1
    if bad:
        reading.missing.append(f"{bad} lines of {METRICS} cannot be read, and are left out.")
    if not reading.epochs:
        reading.missing.append("The student has not been evaluated yet.")


def _progress(reading: Reading) -> str:
    epochs = mapping(reading.values.get("train")).get("epochs")
    step = max((numbers(line).get("step", 0) for line in (*reading.steps[-1:], *reading.epochs[-1:])), default=0)
    return f"{len(reading.epochs)} evaluations and {step:.0f} steps are logged, of {epochs or 'unknown'} epochs"
