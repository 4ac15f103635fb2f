"""Every kind of error, and how errors are worded: what was given, what was expected, the nearest choice.

CounterpoiseError               meant for the person at the keyboard: printed without a traceback, exit code 2
+-- ConfigError                 the run file or a flag
|   +-- RunFileError
+-- DataError                   pictures, masks and folders of them
|   +-- Unreachable             a server
|   +-- CorruptImage
|       +-- UnfitMask
+-- ModelError                  networks and their weights
|   +-- OwnCodeError            also a RuntimeError
+-- ObjectiveError              also a ValueError
+-- StoreError                  recorded teachers
+-- RunError                    a run, its folder, the disk
|   +-- DivergedError
+-- ExportError                 from a student to a device
|   +-- DisagreementError
+-- MeasureError
+-- PushError
+-- NothingFits
+-- RuntimeMissingError
+-- MissingExtraError
KeyboardInterrupt
+-- Interrupted                 a run that was stopped, and saved; exit code 130
ValueError
+-- DocumentError               of a text; whoever knows what the text is for says so in one of the above
OSError
+-- UnfitFileError              of a path; as above
"""

from __future__ import annotations

import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

SHOWN = 80
"""Letters of a value that was given which a message shows."""
LONGEST_WORD = 400
"""Letters in a row that a message shows; more than a path of any likely depth."""
LONGEST_LINE = 600
"""Letters of what another library says that a message shows."""
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""Signs that take no room: a hyphen for the end of a line, spaces without width, marks of direction."""


_MEMORY = re.compile(
    r"(can't|cannot) allocate|failed to allocate|out of memory|not enough memory|bad_alloc|\bMemoryError\b",
    re.IGNORECASE,
)


class CounterpoiseError(Exception):
    """Base of every error meant for the person at the keyboard; the command line prints it and exits with 2."""

    def __str__(self) -> str:
        return shortened(super().__str__())


def shown(value: object) -> str:
    """A value that was given, as Python writes it; of a long one its beginning and its length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters in all)"


def shortened(message: str) -> str:
    """A message whose words, which may be what was given, are cut to what can be read, each with its length."""
    return re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:60]}... ({len(word[0]):,} characters in all)", message
    )


class ConfigError(CounterpoiseError):
    """The run file or a flag says something impossible: unknown key, wrong type, value out of range."""


class RunFileError(ConfigError):
    """What stands in the place of the run file is neither there nor named like one."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Run file {path} does not exist.")
        self.path = path


class DataError(CounterpoiseError):
    """Data is missing, unreadable or not of the kind that was asked for."""


class Unreachable(DataError):  # noqa: N818 - it says nothing of the data
    """A server that did not answer, asked several times; the next file of it would wait as long."""


class CorruptImage(DataError):  # noqa: N818 - named by what it says about the file
    """A picture that cannot be read: missing, empty, truncated, not a picture, or absurdly large."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Image {name} cannot be read: {reason}.")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptImage], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # workers send it to the main process


class UnfitMask(CorruptImage):
    """A mask that can be read and is of no use: of another size than its image, or all void. It may be skipped."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.args = (f"Mask {name} {reason}",)


class ModelError(CounterpoiseError):
    """A model cannot be built, or weights do not fit it."""


class OwnCodeError(ModelError, RuntimeError):
    """A network of the user's own fails on images. Where torch's own errors are waited for, it is one of these."""


class ObjectiveError(CounterpoiseError, ValueError):
    """An objective was given tensors or arguments that do not fit."""


class StoreError(CounterpoiseError):
    """A store of teacher logits cannot be written or read, is damaged, or does not fit the run."""


class RunError(CounterpoiseError):
    """A run cannot start, go on or be saved: folder in use, disk full, loss not finite."""


class DivergedError(RunError):
    """The loss or a weight of a run is no longer finite."""


class ExportError(CounterpoiseError):
    """A student cannot be exported: an operator that a format lacks, an export that disagrees, a full disk."""


class DisagreementError(ExportError):
    """An export answers otherwise than the student. why: by how much."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class MeasureError(CounterpoiseError):
    """Something cannot be opened or run by its runtime. name: what was measured."""

    def __init__(self, name: str, runtime: str, why: str) -> None:
        super().__init__(f"{name} cannot be measured with {runtime}: {why}")
        self.name = name


class PushError(CounterpoiseError):
    """The Hub did not take it."""


class NothingFits(CounterpoiseError):  # noqa: N818 - it is what was found, not a fault
    """No candidate keeps the budget, or the trained one does not."""


class RuntimeMissingError(CounterpoiseError):
    """onnxruntime-web is not here and cannot be fetched."""


class MissingExtraError(CounterpoiseError):
    """An optional package is needed; says which extra brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'counterpoise[{extra}]'")


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and stopped with a checkpoint."""

    def __init__(self, verb: str, folder: Path, step: int, code: str = "") -> None:
        again = " ".join(filter(None, (f"counterpoise {verb} --out {folder} --resume", code)))
        super().__init__(f"Stopped at step {step}, saved. Go on with: {again}")


class DocumentError(ValueError):
    """A text that is no YAML or JSON, or holds more than it should."""


class UnfitFileError(OSError):
    """Something that stands where a file is expected, and is not read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EINVAL, why, str(path))

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


_JOBS = {
    "train.tensorboard, train.wandb and train.mlflow write curves, and metrics.jsonl holds them.": "wandb mlflow comet "
    "neptune logger",
    "train.patience stops a run that gets no better, and train.ship says whose weights ship.": "early_stopping "
    "early_stop",
    "The objective is called focal; rare classes also count more with cross_entropy's class_weight.": "focal_loss",
    "train.precision says it: bf16, fp32 or auto.": "amp fp16 half mixed_precision",
    "train.optimizer.learning_rate says it.": "lr learning_rate",
    "train.schedule says it.": "scheduler lr_scheduler",
    "train.device says which; torchrun trains on several.": "gpu gpus accelerator",
    "data.workers says how many.": "num_workers",
    "train.epochs says how many.": "num_epochs max_epochs",
}
INSTEAD = {name: job for job, names in _JOBS.items() for name in names.split()}
"""What does the job of names that people know from elsewhere and that do not exist here."""


def first_line(error: BaseException) -> str:
    """What an error of another library's says, without the lines of its insides or a full stop; else its kind.

    Of what goes on without end, as what a file holds may, the beginning.
    """
    line = (str(error).strip().splitlines() or [""])[0].rstrip(". ") or type(error).__name__
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def damage(error: BaseException) -> str:
    """What an error that a file led to says of the file, where it may say something of the program."""
    if isinstance(error, UnicodeError):
        return "it holds text that is no UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, AssertionError | AttributeError | LookupError | NameError | TypeError | ZeroDivisionError):
        return "it does not hold what it should"
    return first_line(error)


def of_memory(error: BaseException) -> str:
    """What is said of an error of a system or a library that says that memory is used up; empty of any other."""
    words = first_line(error)
    if not isinstance(error, MemoryError) and not (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        if not isinstance(error, RuntimeError | ValueError) or not _MEMORY.search(words):
            return ""
        # torch on the CPU says first where in its own code it was
        words = re.sub(r"^\[.*?\]\s*(\.\s*)?", "", words)
    said = f": {words[:200].rstrip('.: ')}" if words and words != type(error).__name__ else ""
    return (
        f"There is not enough memory{said}. Less at once needs less: smaller batches (train.batch_size), smaller "
        "pictures, fewer workers (data.workers). What was written before is intact."
    )


def look(name: str) -> str:
    """A name as it is seen: the same may be written with an accent as a sign of its own, or an unseen one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name.translate(_UNSEEN))


def nearest(given: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the choice nearest to what was given, or an empty string.

    Of one that looks the same it says how they differ.
    """
    choices = sorted(choices, reverse=True)
    for choice in choices:
        if choice != given and look(choice) == look(given):
            return f" '{choice}' looks the same, and is written otherwise: {choice!a}, not {given!a}."
    plain = {choice.lower(): choice for choice in choices}
    # Short names have half their letters in common by chance.
    close = difflib.get_close_matches(given.lower(), plain, n=1, cutoff=0.5 if len(given) > 5 else 0.6)
    return f" Did you mean '{plain[close[0]]}'?" if close else ""


def hint(given: str, choices: Iterable[str]) -> str:
    """What does the job of a name that is known from elsewhere, or the nearest choice."""
    job = job_of(given)
    return nearest(given, choices) if job is None else f" {job}"


def job_of(given: str) -> str | None:
    """What does the job of a name that is known from elsewhere and does not exist here."""
    return INSTEAD.get(given.lower().replace("-", "_"))


def unknown(kind: str, given: str, choices: Iterable[str]) -> str:
    """One sentence for an unknown name: the name, the nearest choice, and all choices where they are few."""
    choices = sorted(choices)
    shown = ", ".join(choices) if len(choices) <= 40 else f"{', '.join(choices[:20])}, ... ({len(choices)} in all)"
    near = hint(given, choices) if kind == "Objective" else nearest(given, choices)
    return f"{kind} '{given}' is unknown.{near} Available: {shown}."
