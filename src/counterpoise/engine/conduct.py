"""One run from its run file to its student folder: what `train` and `distill` share."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

from torch import nn

from counterpoise import config
from counterpoise.data.images import skipping_advised
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import assemble, settle
from counterpoise.engine.finish import finish, finished
from counterpoise.engine.optimization import never_reached
from counterpoise.engine.processes import join
from counterpoise.engine.progress import say
from counterpoise.engine.run_folder import RunFolder, default_path
from counterpoise.engine.trainer import Result, Trainer
from counterpoise.errors import ConfigError
from counterpoise.objectives.composite import described


@skipping_advised()
def conduct(
    run: config.Run,
    *,
    resume: bool,
    overwrite: bool,
    student: nn.Module | None,
    teacher: nn.Module | None = None,
    data: Splits | None,
    show: bool,
    deadline: float | None,
) -> Result:
    """Train the student of a run; arguments, result and errors are those of `api.distill`."""
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: give one of them.")
    if resume and run.out is None:
        raise ConfigError("--resume needs --out: the run folder to go on with.")
    with join(run.train.device) as processes, ExitStack() as ending:
        run = settle(run, processes.device)
        folder = RunFolder(run.out or default_path(run.student.model or type(student).__name__))
        resume = resume and folder.started()
        processes.barrier()
        with folder.locked() if processes.first else nullcontext():
            late, done = never_reached(run.train), None
            if resume:
                folder.check_same(run)
                done = finished(folder, run)
                run = folder.read_as_started(run)
            elif late is not None:
                raise ConfigError(late)
            elif processes.first:
                folder.check_free(overwrite)
            parts = assemble(run, processes, student=student, teacher=teacher, data=data)
            parts.found.add("loss", described(run.objective))
            if late is not None:
                parts.found.note(late)
            say(parts.found, show and processes.first)
            ending.callback(parts.train.close)  # not when the garbage collector comes, with whatever was inherited
            trainer = Trainer(parts.run, folder, parts, processes, show)
            if not resume:
                trainer.meet_teacher()
            if resume:
                if done is not None or folder.checkpoint.exists():  # before anything in the folder is written
                    folder.check_identity(parts.identity, parts.classes)
                if done is not None:
                    return done
                if processes.first:
                    folder.ship(run.train.ship)
                folder.check_decided(parts.run, parts.train.images, parts.in_arrays)
            elif processes.first:
                folder.start(parts.run)
            if processes.first:
                folder.tell(parts.found)
            processes.barrier()
            trainer.fit(resume, deadline)
            result = finish(trainer)
            processes.barrier()
            return result
