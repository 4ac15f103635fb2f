"""Runs as Python functions: train and distill. Each goes from its run file to its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from counterpoise import config
from counterpoise.data.images import skipping_advised
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.export_student import export_student, result_of
from counterpoise.engine.extending import copy_beginning, extended, going_on, require_beginning, told
from counterpoise.engine.identify import CODE, other_code
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.optimization import never_reached
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import join
from counterpoise.engine.progress import say, tell
from counterpoise.engine.run_folder import RunFolder, default_path
from counterpoise.engine.trainer import Result, Trainer
from counterpoise.errors import ConfigError
from counterpoise.objectives.base import needs_teacher
from counterpoise.objectives.composite import described


def train(
    run: RunLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    student: nn.Module | None = None,
    data: Splits | None = None,
    show: bool = False,
    deadline: float | None = None,
    extend: Path | str | None = None,
) -> Result:
    """Train a network on labels alone: a teacher, or a student to compare with.

    Where `run` is written for distilling, its teacher is left out, and with it the terms that listen to one, which is
    said. Terms of labels stay; a single one has weight 1, and where there is none it is cross-entropy (of several
    labels an image, binary cross-entropy).

    Args: as for `distill`.
    """
    given = inputs.resolve(run)
    resolved = labels_alone(given)
    left = left_out(given, resolved)
    return _train_student(resolved, resume, overwrite, student, None, data, show, deadline, extend, left)


def labels_alone(run: config.Run) -> config.Run:
    """A run as `train` takes it: without its teacher and what listens to one."""
    name = next(iter(config.usual_terms(run.task)))
    if "objective" not in run.model_fields_set:
        return run.model_copy(update={"teacher": None, "objective": {name: _of_weight_1(run.objective, name)}})
    alone = {key: term for key, term in run.objective.items() if not needs_teacher(term.objective or key)}
    if len(alone) < len(run.objective):
        counting = [key for key, term in alone.items() if term.weight != 0]
        if len(counting) < 2:
            key = (counting or [name])[0]
            alone = {key: _of_weight_1(run.objective, key)}
    return run.model_copy(update={"teacher": None, "objective": alone})


def _of_weight_1(terms: Mapping[str, config.Term], name: str) -> config.Term:
    return terms.get(name, config.Term()).model_copy(update={"weight": 1.0})


def left_out(run: config.Run, alone: config.Run) -> str | None:
    """What is to be said where a run names a teacher, and is trained without it."""
    terms = [key for key, term in run.objective.items() if needs_teacher(term.objective or key)]
    named = "objective" in run.model_fields_set
    if run.teacher is None and not (named and terms):
        return None
    heard = f", and with it {', '.join(terms)}" if named and terms else ""
    return f"train leaves out the teacher{heard}: it learns from labels alone (counterpoise distill imitates one)."


def distill(
    run: RunLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    data: Splits | None = None,
    show: bool = False,
    deadline: float | None = None,
    extend: Path | str | None = None,
) -> Result:
    """Train a student that imitates a teacher.

    Args:
        run: a run file's path, its values, or a resolved `Run`.
        resume: go on with the run in the folder `out`, from its last checkpoint.
        overwrite: replace the run in the folder `out`.
        student: a module to train instead of `student.model`.
        teacher: a module to imitate instead of `teacher.model`, with its weights; put in eval mode and frozen.
        data: `Splits(train, val)` instead of `data.path`.
        show: progress on stderr.
        deadline: moment of time.monotonic() at which to stop with a checkpoint, as on Ctrl-C.
        extend: a finished run of fewer epochs and otherwise the same options, from which this one goes on.

    Returns:
        The metrics of the last and of the best epoch, and the run's folder, with the student in `student/`.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data or the models.
        Interrupted: Ctrl-C, SIGTERM or the deadline; a checkpoint has been written.
    """
    resolved = inputs.resolve(run)
    if resolved.teacher is None and teacher is None:
        raise ConfigError("distill needs a teacher: give teacher.model and teacher.checkpoint, or use train.")
    return _train_student(resolved, resume, overwrite, student, teacher, data, show, deadline, extend)


@skipping_advised()
def _train_student(
    run: config.Run,
    resume: bool,
    overwrite: bool,
    student: nn.Module | None,
    teacher: nn.Module | None,
    data: Splits | None,
    show: bool,
    deadline: float | None,
    extend: Path | str | None,
    note: str | None = None,
) -> Result:
    """Train the student of a run; arguments, result and errors are those of `distill`. note: to be said of it."""
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: give one of them.")
    if extend is not None and resume:
        raise ConfigError("--extend starts a longer run, and --resume goes on with one that was started: give one.")
    if resume and run.out is None:
        raise ConfigError("--resume needs --out: the run folder to go on with.")
    with join(run.train.device) as processes, ExitStack() as ending:
        run = resolve_auto(run, processes.device)
        if extend is not None:
            run = extended(run, extend)
        folder = RunFolder(run.out or default_path(run.student.model or type(student).__name__))
        resume = resume and folder.started()
        processes.barrier()
        with folder.locked() if processes.first else nullcontext():
            late, done = never_reached(run.train), None
            if resume:
                run = going_on(run, folder)
                folder.check_same(run)
                done = result_of(folder, run)
                run = folder.read_as_started(run)
            else:
                require_new(run, extend is not None)
                if processes.first:
                    folder.check_free(overwrite)
            parts = assemble(run, processes, student=student, teacher=teacher, data=data)
            parts.found.add("loss", described(run.objective))
            for one in filter(None, (note, late)):
                parts.found.note(one)
            if extend is not None:
                parts.found.note(told(run, extend))
            say(parts.found, show and processes.first)
            changed = _note_code(folder if resume else RunFolder(extend) if extend else None, parts)
            if extend is not None:  # before anything in the folder is written
                RunFolder(extend).check_identity(parts.identity, parts.classes)
            if processes.first:
                tell(changed)
            ending.callback(parts.train.close)  # not when the garbage collector comes, with whatever was inherited
            trainer = Trainer(parts.run, folder, parts, processes, show)
            if resume:
                if done is not None or folder.checkpoint.exists():  # before anything in the folder is written
                    folder.check_identity(parts.identity, parts.classes)
                if done is not None:
                    return replace(done, note=" ".join([done.note, *changed]))
                if processes.first:
                    folder.ship(run.train.ship)
                folder.check_decided(parts.run, parts.train.images, parts.in_arrays)
            elif extend is None:
                trainer.score_teacher()
            if processes.first:
                if not resume:
                    folder.start(parts.run, None if extend is None else partial(copy_beginning, extend, folder))
                folder.write_found(parts.found)
            processes.barrier()
            trainer.fit(resume or extend is not None, deadline)
            result = export_student(trainer)
            processes.barrier()
            return result


def require_new(run: config.Run, extended: bool = False) -> None:
    """Raises ConfigError for what a run that begins is refused for before anything of it is built."""
    if (late := never_reached(run.train)) is not None:
        raise ConfigError(late)
    if not extended:
        require_beginning(run)


def _note_code(earlier: RunFolder | None, parts: Parts) -> list[str]:
    """Note it among the parts where code of the user's own has changed since a run was started that goes on now.

    That code may have had a mistake that stopped the run, so it is told and not refused.
    """
    there, here, told = {} if earlier is None else earlier.identity(), parts.identity, []
    for key in other_code(there, here):
        told.append(f"The code that {key} names has changed since the run was started; now the changed one counts.")
        here[f"{CODE}{key}"] = f"{there[f'{CODE}{key}']}+{here[f'{CODE}{key}']}"
    for note in told:
        parts.found.note(note)
    return told


def summary(result: Result) -> dict[str, Any]:
    """A result as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(result), default=str))
    return values
