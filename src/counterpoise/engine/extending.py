"""A longer run that goes on from a shorter one which has come to its end: `train --extend` and `distill --extend`."""

from __future__ import annotations

import shutil
from pathlib import Path

from counterpoise import config
from counterpoise.config import keys
from counterpoise.engine.run_folder import RunFolder
from counterpoise.errors import ConfigError, RunError
from counterpoise.system import documents
from counterpoise.system.files import make_folder, replacing

MOVED = ("train.epochs", "train.extends", "train.schedule.", "train.optimizer.learning_rate", "train.patience",
         "train.evaluate_every")  # fmt: skip
"""Keys of which the longer run may have another value, beside those that a run which goes on may have."""


def extended(run: config.Run, shorter: Path | str) -> config.Run:
    """The longer run, which says what it goes on from.

    Raises:
        RunError: `shorter` is no run, has not come to its end, or was started with other options.
        ConfigError: it is not shorter, or is where the longer one is to be.
    """
    folder = RunFolder(shorter)
    if not folder.run_file.is_file():
        raise RunError(f"--extend {shorter}: there is no run in it; expected the folder of a finished one.")
    if run.out is not None and run.out.resolve() == folder.path.resolve():
        raise ConfigError(f"--extend {shorter} starts a run of its own, beside the shorter one: give another --out.")
    there = folder.read()
    if not folder.summary.is_file():
        raise RunError(f"{shorter} has not come to its end, so no longer run can go on from it: --resume it first.")
    if not folder.checkpoint.is_file():
        raise RunError(
            f"{shorter} has lost {folder.checkpoint.relative_to(folder.path)}, from which a longer run goes on."
        )
    if run.train.epochs <= there.train.epochs:
        raise ConfigError(
            f"--extend {shorter}, a run of {there.train.epochs} epochs, to {run.train.epochs}: give more, with "
            "--train.epochs, those of the shorter run included."
        )
    extends = (*there.train.extends, there.train.epochs)
    run = run.model_copy(update={"train": run.train.model_copy(update={"extends": extends})})
    differing = {
        key: values for key, values in keys.differences(there, run, resume=True).items() if not key.startswith(MOVED)
    }
    if differing:
        lines = "\n".join(f"  {key}: {old!r} there, {new!r} given" for key, (old, new) in differing.items())
        raise RunError(
            f"{shorter} was trained with other options, so no run with these can go on from it:\n{lines}\n"
            f"To start from its student alone, give --student.checkpoint {shorter}."
        )
    return run


def going_on(run: config.Run, started: RunFolder) -> config.Run:
    """A run that is resumed, with what it had gone on from when it was started, which no run file says."""
    if run.train.extends:
        return run
    extends = started.read().train.extends
    return run.model_copy(update={"train": run.train.model_copy(update={"extends": extends})})


def require_beginning(run: config.Run) -> None:
    """Raises ConfigError where a run says that it goes on from a shorter one, and was not given it."""
    if run.train.extends:
        raise ConfigError(
            f"train.extends says that a run goes on from one of {run.train.extends[-1]} epochs, and is written by "
            "--extend RUN alone: leave it out, or give --extend."
        )


def copy_beginning(shorter: Path | str, longer: RunFolder) -> None:
    """Give the longer run the checkpoints and the curves of the shorter one."""
    given = RunFolder(shorter)
    for source, target in (
        (given.best, longer.best),
        (given.metrics, longer.metrics),
        (given.checkpoint, longer.checkpoint),
    ):
        if source.is_file():
            make_folder(target.parent)
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)


def told(run: config.Run, shorter: Path | str) -> str:
    """What is to be said of the run; the shorter one may have stopped before all of its epochs."""
    folder = RunFolder(shorter)
    try:
        done = int(documents.read_json(folder.summary, within=folder.path)["epochs"])
    except (OSError, ValueError, LookupError, TypeError):
        done = run.train.extends[-1]
    return (
        f"goes on from {shorter}, after {done} of {run.train.epochs} epochs: from there on the "
        f"learning rate is that of a run of {run.train.epochs}, which this is not in all"
    )
