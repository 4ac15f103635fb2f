"""Everything but training: one batch of a run is looked at, learned by heart and timed, and nothing is kept of it."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from counterpoise import config
from counterpoise.data.epochs import Batch
from counterpoise.engine import optimization
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.processes import join
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.runs import labels_alone, require_new
from counterpoise.engine.trainer import Trainer
from counterpoise.errors import RunError
from counterpoise.system.machine import peak_memory
from counterpoise.tasks import sheets
from counterpoise.teachers.stored import Read

STEPS, SECONDS = 60, 30.0
"""One batch is learned in so many steps at most, and for so long."""
LEARNED = 0.8
"""A loss that falls below this share of what it was can fall."""


@dataclass(frozen=True)
class Rehearsal:
    """What a batch of a run told.

    Attributes:
        batch: shape of its views, [N, C, H, W].
        parameters: of the student, those that are frozen too.
        steps: in which the batch was learned by heart, at the largest learning rate of the run.
        first, last: the loss before them and after.
        problem: what is wrong with that loss; "" where it falls, or where the steps were too few to tell.
        too_few: whether they were: the time was up before, and the loss has not fallen yet.
        seconds_a_step: a median, with pictures at hand, teacher and all.
        seconds_a_batch: until the next batch of pictures was there, while nothing else was done; None where there is
            one batch only.
        steps_in_all, seconds_in_all: of the run, without its evaluations.
        peak_mb: memory of the process, or of a CUDA device, at its most; None where the system does not say.
        sheet: the picture of the batch, where one was asked for.
        taken: why the run would not start in its folder as it is; "" where it would.
    """

    batch: tuple[int, ...]
    parameters: int
    steps: int
    first: float
    last: float
    problem: str
    too_few: bool
    seconds_a_step: float
    seconds_a_batch: float | None
    steps_in_all: int
    seconds_in_all: float
    peak_mb: float | None
    sheet: Path | None = None
    taken: str = ""

    def values(self) -> dict[str, Any]:
        """As JSON has them."""
        return {**asdict(self), "sheet": None if self.sheet is None else str(self.sheet)}

    def said(self) -> list[str]:
        """In words, a line each."""
        count, *_, height, width = self.batch
        memory = "" if self.peak_mb is None else f", {self.peak_mb:,.0f} MB of memory at most"
        told = (
            f"{SECONDS:.0f} s are too few to tell whether it can be learned; a smaller --train.batch_size takes less"
            if self.too_few
            else "it can be learned"
        )
        goes = "goes" if self.too_few else "falls"
        found = f"of one batch {goes} from {self.first:.3f} to {self.last:.3f} in {self.steps} steps: {told}"
        lines = [
            f"batch    {count} views of {height} x {width}",
            f"student  {self.parameters:,} parameters{memory}",
            f"loss     {self.problem or found}",
            f"time     {_time(self.seconds_a_step)} a step{self._pictures()}; {self.steps_in_all:,} steps, about "
            f"{_time(self.seconds_in_all)} in all without evaluations",
        ]
        lines += [] if self.sheet is None else [f"sheet    {self.sheet}"]
        return [*lines, f"out      {self.taken}"] if self.taken else lines

    def _pictures(self) -> str:
        return "" if self.seconds_a_batch is None else f", {_time(self.seconds_a_batch)} for the next pictures"


def rehearse(run: config.Run, sheet: Path | None = None) -> Rehearsal:
    """Build all that a run names, and try a batch of it. A run without a teacher is one of labels alone.

    Args:
        sheet: PNG to write, with the views of the batch, their labels and what the teacher says of them.

    Raises CounterpoiseError for whatever is wrong with the run.
    """
    with join(run.train.device) as processes, ExitStack() as ending, tempfile.TemporaryDirectory() as place:
        run = resolve_auto(labels_alone(run) if run.teacher is None else run, processes.device)
        require_new(run)
        taken = _taken(run)
        parts = assemble(run, processes)
        ending.callback(parts.train.close)
        trainer = Trainer(parts.run, RunFolder(Path(place) / "run"), parts, processes, show=False)
        batches = trainer.batches(0, 0)
        batch, recorded = next(batches)
        pictures = _seconds_of_next(batches)
        if sheet is not None:
            _show(sheet, trainer, batch, recorded)
        losses, seconds = _by_heart(trainer, batch, recorded)
        _step_of_the_last_batch(trainer)
        step = statistics.median(seconds[min(2, len(seconds) - 1) :])
        # Reading processes work beside the steps; without them pictures and steps follow one another.
        beside = parts.run.data.workers not in (0, "auto")
        whole = step if pictures is None else max(step, pictures) if beside else step + pictures
        return Rehearsal(
            batch=tuple(batch.images.shape),
            parameters=sum(weight.numel() for weight in parts.student.parameters()),
            steps=len(losses) - 1,
            first=losses[0],
            last=losses[-1],
            problem=_problem(losses),
            too_few=_too_few(losses),
            seconds_a_step=step,
            seconds_a_batch=pictures,
            steps_in_all=trainer.total_steps,
            seconds_in_all=whole * trainer.total_steps,
            peak_mb=_peak(processes.device),
            sheet=sheet,
            taken=taken,
        )


def _taken(run: config.Run) -> str:
    """Why a run would not start in the folder that it names, as it is now; "" where it would."""
    try:
        if run.out is not None:
            RunFolder(run.out).check_free(overwrite=False)
    except RunError as error:
        return str(error)
    return ""


def _step_of_the_last_batch(trainer: Trainer) -> None:
    """Try the last batch of an epoch where it is smaller than others, as batch norm refuses one of a single image.

    Raises ConfigError.
    """
    train = trainer.parts.train
    if train.steps_per_epoch > 1 and train.steps_per_epoch * train.batch_size > len(train.images):
        trainer.step(*next(trainer.batches(0, train.steps_per_epoch - 1)))


def _show(sheet: Path, trainer: Trainer, batch: Batch, recorded: Read | None) -> None:
    """Write the views of a batch, with what the teacher says where it answers in the classes of the data."""
    parts = trainer.parts
    on_device = batch.on(trainer.processes.device)
    heard = None if parts.objective.of_features_alone else parts.ask_teacher(on_device, recorded)
    logits = None if heard is None else heard.logits.cpu()
    sheets.write(sheet, batch.images, batch.target, logits, parts.classes, several=parts.task.sigmoid)


def _by_heart(trainer: Trainer, batch: Batch, recorded: Read | None) -> tuple[list[float], list[float]]:
    """The loss of a batch in steps of training on it, each at the run's largest rate, and how long each took."""
    run = trainer.run.train
    schedule = (trainer.steps_per_epoch, run.epochs, run.optimizer.learning_rate, run.schedule)
    trainer.progress.step = max(
        range(trainer.total_steps), key=lambda step: optimization.learning_rate(step, *schedule)
    )
    trainer.parts.student.train()
    losses: list[float] = []
    seconds: list[float] = []
    until = time.perf_counter() + SECONDS
    while not losses or (len(losses) <= STEPS and time.perf_counter() < until):
        started = time.perf_counter()
        _, values = trainer.step(batch, recorded)
        losses.append(float(values.sum()))
        seconds.append(time.perf_counter() - started)
        if not abs(losses[-1]) < float("inf"):
            break
    return losses, seconds


def _problem(losses: list[float]) -> str:
    """What is wrong with a loss; "" where it falls."""
    first, last = losses[0], losses[-1]
    if not abs(last) < float("inf"):
        return (
            f"of one batch is {last} at step {len(losses)}: a smaller --train.optimizer.learning_rate or "
            "--train.clip_gradient may help."
        )
    if last > LEARNED * first and not _too_few(losses):
        return (
            f"of one batch falls only from {first:.3f} to {last:.3f} in {len(losses) - 1} steps: not even these "
            "pictures are learned by heart. A learning rate that is too small or too large, frozen parts, or labels "
            "that say otherwise than the teacher."
        )
    return ""


def _too_few(losses: list[float]) -> bool:
    """Whether the time was up before the steps were done, and the loss has not fallen yet."""
    return len(losses) <= STEPS and LEARNED * losses[0] < losses[-1] < float("inf")


def _seconds_of_next(batches: Any) -> float | None:
    """How long the second batch takes, once reading has begun."""
    started = time.perf_counter()
    return time.perf_counter() - started if next(batches, None) is not None else None


def _peak(device: torch.device) -> float | None:
    """Megabytes at the most: of a CUDA device what was allocated there, else of the process."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return None if peak is None else peak / 1e6


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
