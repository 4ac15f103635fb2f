"""The training loop: epochs, and the step that they are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.epochs import Batch
from counterpoise.engine import patience, state
from counterpoise.engine.allocation import keep_freed_memory
from counterpoise.engine.assemble import evaluation_loader
from counterpoise.engine.evaluator import score_teacher
from counterpoise.engine.fast.steps import FastSteps
from counterpoise.engine.gauging import EvaluationGauge, gauge_of
from counterpoise.engine.imitation import better, headline, scores
from counterpoise.engine.interrupt import Interrupt
from counterpoise.engine.mixing_heads import settle
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, errors_explained
from counterpoise.engine.progress import Display, in_words, tell
from counterpoise.engine.pulling import Pull
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.step import Optimization, parts_of
from counterpoise.engine.trackers import Trackers
from counterpoise.engine.waiting import StepClock, Times, advice
from counterpoise.errors import DivergedError, Interrupted
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.views import InParts
from counterpoise.system import machine, own_code
from counterpoise.system.files import write_tensors
from counterpoise.teachers.stored import Read

WEIGHTS_ALONE = (
    "an earlier version kept of this run's teacher the weights alone: whether its normalization and classes are those "
    "of then is not known"
)


@dataclass(frozen=True)
class Result:
    """What came out of a run."""

    folder: Path
    last: dict[str, float]
    best: dict[str, float]
    teacher: dict[str, float]
    parameters: int
    bytes: int
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    corrupt: int
    note: str = ""  # what a person should know of this call, such as that nothing was done
    compile_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)  # seconds of this call's steps, by who was waited for
    readers: dict[str, float] = field(default_factory=dict)  # processes that read, and their seconds by stage
    advice: str = ""


class Trainer:
    """Trains the student of `parts` as `run` says, in `folder`."""

    def __init__(self, run: config.Run, folder: RunFolder, parts: Parts, processes: Processes, show: bool) -> None:
        self.run = run
        self.folder = folder
        self.parts = parts
        self.processes = processes
        self.show = show and processes.first
        if processes.device.type == "cpu":
            keep_freed_memory()
        self.optimization = Optimization(run, parts, processes)
        self.steps_per_epoch = parts.train.steps_per_epoch
        self.total_steps = self.steps_per_epoch * run.train.epochs
        self.notes = [] if parts.obstacle is None else [f"general steps: {parts.obstacle}"]
        self.fast = FastSteps(run, parts, self.optimization, self.notes.append) if parts.fast else None
        self.progress = state.Progress()
        self.unchecked: list[tuple[int, list[str], Tensor]] = []
        # Reading a loss waits for a GPU, so there it is read at log lines; the exact step is still named.
        self.check_every = 1 if processes.device.type == "cpu" else run.train.log_every
        self.compiler = parts.objective.compiler = Compiler()
        self.started = self.saved_at = time.perf_counter()
        self.clock = StepClock(processes.device)
        self.times, self.evaluated_times = Times(), Times()  # of this sitting, and since the last evaluation
        self.begun_at = 0  # the step that this sitting begins with
        self.trackers: Trackers | None = None
        self.gauge: EvaluationGauge | None = None
        looked_at = self.total_steps if self.fast is None else 0
        self.pull = Pull(parts.objective, looked_at, parts.classes, parts.task.sigmoid)
        self.teacher_line: str | None = None

    def fit(self, resume: bool, deadline: float | None = None) -> None:
        """Train to the end, from the checkpoint in the folder where there is one and `resume` is set.

        Raises Interrupted on a signal, or once time.monotonic() is at `deadline`.
        """
        if resume and self.folder.checkpoint.exists():
            self._load_checkpoint()
        self.progress.origin = self.parts.identity
        self.begun_at = self.progress.step
        self.compiler.seconds = self.progress.compile_seconds
        if self.processes.first:
            self.folder.note_identity(self.parts.identity)
            if resume:
                self.folder.cut_metrics(self.progress.metrics_bytes)
        self.processes.barrier()
        self.started = time.perf_counter() - self.progress.seconds
        self.saved_at = time.perf_counter()
        epochs = self.run.train.epochs
        with (
            Interrupt(deadline) as interrupt,
            Display(self.total_steps, self.progress.step, self.show) as display,
            Trackers(self.run if self.processes.first else None, self.folder, self.progress.step, display.line) as kept,
        ):
            self.trackers = kept
            # Not by a method of ours: the objective would keep the trainer, and with it the processes that read.
            self.compiler.tell = display.line
            self.score_teacher()
            if self.teacher_line is not None:
                display.line(self.teacher_line)
                self._log({"kind": "teacher", "val": self.progress.teacher})
            for epoch in range(self.progress.step // self.steps_per_epoch, epochs):
                if early := patience.stopped_early(self.run, self.progress, self.steps_per_epoch):
                    display.line(f"{early}.")
                    break
                self.train_epoch(epoch, interrupt, display)
                evaluated = (epoch + 1) % self.run.train.evaluate_every == 0 or epoch + 1 == epochs
                line = self._evaluate(epoch, display) if evaluated else None
                self._save()
                if line is not None:  # now that it is on disk
                    display.line(line)
                if epoch + 1 < epochs and self.processes.any(interrupt.requested):
                    raise self._interrupted()

    def train_epoch(self, epoch: int, interrupt: Interrupt, display: Display) -> None:
        """The steps of an epoch that are not done yet."""
        self.parts.student.train()
        window = entered = time.perf_counter()
        seen = 0
        self.clock.start()
        for names, values, size in self._steps(epoch, self.progress.step - epoch * self.steps_per_epoch):
            self.progress.step += 1
            if (pull := self.pull.line(self.progress.step)) is not None:
                self._log(pull)
            if self.progress.step == self.begun_at + 1:  # by then processes were started, and memory was taken
                self.clock.start()
                self.parts.train.seconds.clear()
            seen += size
            self.unchecked.append((self.progress.step, names, values))
            if self.progress.step % self.check_every == 0:
                self._check_finite()
            logs = self.progress.step % self.run.train.log_every == 0
            if logs:
                now = time.perf_counter()
                self._log_step(epoch, seen / (now - window), display)
                window, seen = now, 0
            if self.progress.step % self.steps_per_epoch == 0:
                break  # evaluated and saved by the caller
            stop = interrupt.requested
            due = time.perf_counter() - self.saved_at >= 60 * self.run.train.checkpoint_minutes
            if self.processes.world > 1:  # all must stop and save at one step, so all are asked, now and then
                stop, due = (logs and self.processes.any(flag) for flag in (stop, due))
            if stop or due:
                self._check_finite()
                entered = self._count_time(entered)
                self._save()
            if stop:
                self.processes.barrier()  # none may end, and take the others down, before the first has written
                raise self._interrupted()
        self._check_finite()
        self._count_time(entered)
        self._taken()

    def _steps(self, epoch: int, first: int) -> Iterator[tuple[list[str], Tensor, int]]:
        """The steps of an epoch from `first` on: names and values of the terms, and the size of the batch."""
        if self.fast is None:
            for batch, recorded in self.batches(epoch, first):
                yield *self.step(batch, recorded), batch.total
        else:  # the same steps on what lies in device memory, on CUDA as one graph
            yield from self.clock.waiting("step", self.fast.epoch(epoch, first))

    def step(self, batch: Batch, recorded: Read | None = None) -> tuple[list[str], Tensor]:
        """One step: images -> logits of teacher and student -> named terms -> their total -> update.

        Returns the names of the terms and their values.
        """
        self.optimization.begin(self.progress.step)
        self.optimization.watched_by(self.pull if self.progress.step < self.pull.steps else None)
        with self.clock.working("copy"):
            batch = batch.on(self.processes.device)
        count = parts_of(batch.total, self.run.train.accumulate, self.processes.world)
        pieces = batch.parts(count)
        whole = InParts([piece.target for piece in pieces[1:]]) if count > 1 else None
        values: list[Tensor] = []
        first = 0
        with errors_explained():
            for piece in pieces:
                rows = slice(first, first := first + len(piece.images))
                with self.optimization.one_part(last=piece is pieces[-1]):
                    terms = self._part(piece, None if recorded is None else recorded.part(rows), whole)
                values.append(torch.stack([value.detach() for value in terms.values()]))
            with self.clock.working("optimizer"):
                self.optimization.update()
                self.optimization.update_average()
        return list(terms), sum(values[1:], start=values[0])

    def _part(self, batch: Batch, recorded: Read | None, whole: InParts | None) -> dict[str, Tensor]:
        """The named terms of a batch, or of one of its parts, and the gradient of their total."""
        self.parts.objective.set_batch(batch.indices)
        taught = self.parts.teacher is not None or recorded is not None
        with self.clock.working("teacher") if taught else nullcontext():
            teacher = self.parts.ask_teacher(batch, recorded)
        with self.clock.working("student"):
            total, terms = self.optimization.loss(batch.images, teacher, batch.target, whole)
            self.optimization.backward(total)
        named: dict[str, Tensor] = terms
        return named

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, Read | None]]:
        """Those of an epoch from `first` on, each with what a store has of it."""
        self.parts.train.copying = partial(self.clock.working, "copy")
        batches = self.clock.waiting("pictures", self.parts.train.epoch(epoch, first))
        if self.parts.stored is None:
            return ((batch, None) for batch in batches)
        return self.clock.waiting("store", self.parts.stored.follow(epoch, batches))

    def _check_finite(self) -> None:
        """Add the unchecked steps to the sums of the epoch. Raises DivergedError at the first that is not finite."""
        if not self.unchecked:
            return
        numbers = iter(torch.cat([values for _, _, values in self.unchecked]).tolist())  # one wait for all
        for step, names, _ in self.unchecked:
            self.last_terms = dict(zip(names, numbers, strict=False))
            for name, value in self.last_terms.items():
                if not abs(value) < float("inf"):
                    raise DivergedError(
                        f"Loss is not finite at step {step}: term {name} is {value}. "
                        f"{state.good(self.folder.checkpoint)} "
                        "A smaller learning rate, train.clip_gradient or train.precision fp32 may help."
                    )
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        self.unchecked.clear()

    def _log_step(self, epoch: int, speed: float, display: Display) -> None:
        self._check_finite()
        terms = self._over_processes(self.last_terms)
        line = {
            "kind": "step",
            "step": self.progress.step,
            "epoch": epoch,
            "loss": sum(terms.values()),
            "terms": terms,
            "learning_rate": self.optimization.rate,
            **({"moving": moving} if (moving := self.parts.objective.moving()) else {}),
            "images_per_second": speed,
            **self._taken(),
        }
        self._log(line)
        while self.notes:
            display.line(self.notes.pop(0))
        display.step(self.progress.step, f"{epoch + 1}/{self.run.train.epochs}", speed, terms)

    def _taken(self) -> dict[str, dict[str, float]]:
        """Seconds by stage since this was last asked for, of this process; they are added up, too."""
        times = Times(self.clock.taken(), dict(self.parts.train.seconds))
        self.parts.train.seconds.clear()
        for sums in (self.times, self.evaluated_times):
            sums.add(times)
        return times.told(self.parts.train.workers)

    @property
    def advice(self) -> str:
        """What the steps waited for most so far, and what would help."""
        return advice(self.times.steps, self.times.reading, self.parts.train.workers, machine.cores())

    def _evaluate(self, epoch: int, display: Display) -> str:
        """Score the student as it would be shipped; keep it where it is the best so far. What is said of it."""
        parts, progress = self.parts, self.progress
        with self.optimization.shipped():
            settle(parts.student, parts, self.processes)
            found = scores(parts, parts.student, self.processes, self.gauge, compare=True)
        gauge = {} if self.gauge is None else self.gauge.values()
        metric = headline(parts, found)
        steps = max(progress.step - epoch * self.steps_per_epoch, 1)
        terms = self._over_processes({name: value / steps for name, value in progress.sums.items()})
        progress.last = {**found, "epoch": epoch + 1}
        if better(parts, found, progress.best):
            progress.best = dict(progress.last)
            if self.processes.first:
                self.folder.best.parent.mkdir(exist_ok=True)
                write_tensors(self.folder.best, self.optimization.shipped_weights(), {"format": "pt"})
        line = {"kind": "epoch", "step": progress.step, "epoch": epoch, "terms": terms, "val": found}
        told: dict[str, Any] = self.evaluated_times.told(parts.train.workers)
        told |= {"advice": self.advice} if self.advice else {}
        self.evaluated_times = Times()
        self._log({**line, **({"gauge": gauge} if gauge else {}), **told})
        best = f"  best {progress.best[metric]:.2f}" if metric in progress.best else ""
        return (
            f"epoch {epoch + 1}/{self.run.train.epochs}  {display.left(progress.step, self.total_steps)}"
            f"{in_words(found, 2)}{best}  {in_words(terms, 3)}"
        )

    def _over_processes(self, terms: dict[str, float]) -> dict[str, float]:
        """Each term over the whole batch, of which each process sees its share: the mean, see `WeightedSum.forward`."""
        if self.processes.world == 1:
            return terms
        total = self.processes.add(torch.tensor(list(terms.values()), dtype=torch.float64)) / self.processes.world
        return dict(zip(terms, total.tolist(), strict=True))

    def _log(self, line: Mapping[str, Any]) -> None:
        if not self.processes.first:
            return
        self.folder.log(dict(line))
        if self.trackers is not None:
            self.trackers.add(line)

    def _save(self) -> None:
        """The first process writes a checkpoint of everything. At the end of an epoch, the sums start anew."""
        if self.progress.step % self.steps_per_epoch == 0:
            self.progress.sums = {}
        self.progress.sums_of = self.processes.each(self.progress.sums)
        self.progress.seconds = time.perf_counter() - self.started
        self.progress.compile_seconds = self.compiler.seconds
        self.progress.corrupt = sorted(self.parts.train.corrupt)
        if self.processes.first:
            self.progress.metrics_bytes = self.folder.metrics_size()
            modules = self.optimization.saved_modules()
            state.save(self.folder.checkpoint, self.progress, modules, self.optimization.optimizer)
        self.saved_at = time.perf_counter()

    def _load_checkpoint(self) -> None:
        """Go on where the run stood, and say what a person must know of that."""
        folder, origin = self.folder, self.parts.identity
        self.progress = state.load(folder.checkpoint, self.optimization.saved_modules(), self.optimization.optimizer)
        self.progress.sums = self.progress.sums_for(self.processes.rank, self.processes.world)
        state.check_origin(folder.checkpoint, self.progress.origin, origin, self.parts.classes)
        self.parts.train.corrupt.extend(self.progress.corrupt)
        notes = []
        if self.show and "teacher" in origin and "teacher.normalization" not in self.progress.origin:
            notes.append(WEIGHTS_ALONE)
        if not self.progress.checked:
            notes.append(f"{folder.checkpoint} has no checksum, as older ones had none: it is taken as it is.")
        logged = folder.metrics.stat().st_size if folder.metrics.is_file() else 0
        if logged < self.progress.metrics_bytes:
            what = "is shorter than it was" if folder.metrics.is_file() else "is missing"
            notes.append(f"{folder.metrics} {what}: curves and reports of this run lack what was logged before.")
        if self.processes.first:
            tell(notes)

    def score_teacher(self) -> None:
        """Score the teacher, once: one that does not reach its score is best known before anything is written.

        Its answers are kept for the gauge, so a run that goes on asks it once more.

        Raises ModelError where it answers as chance would, unless the run accepts that.
        """
        parts, teacher = self.parts, self.parts.judge
        if teacher is None or self.gauge is not None:
            return
        loader = evaluation_loader(parts.val.images, teacher.model, self.run, self.processes)
        self.gauge = gauge_of(parts, self.processes)
        if self.progress.teacher or not parts.labeled:
            self.gauge.ask(teacher, loader)
            return
        scored = score_teacher(parts, loader, self.processes, self.gauge.remember)
        self.progress.teacher, self.teacher_line = scored

    def _interrupted(self) -> Interrupted:
        verb = "train" if self.parts.teacher is None and self.parts.stored is None else "distill"
        return Interrupted(verb, self.folder.path, self.progress.step, own_code.flags(self.run))

    def _count_time(self, since: float) -> float:
        now = time.perf_counter()
        self.progress.train_seconds += now - since
        return now
