"""What a run is: each key of the run file, whether it may move, and which modules make the numbers.

One table, for `--resume`, `compare`, `search`, `fit` and reports alike. A key that is added to `config` gets its row
here, and a room or module its place below: tests say where one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from counterpoise.config.run import Run


class Key(NamedTuple):
    """What a key of the run file is to a run.

    Attributes:
        resume: whether a run that goes on may be given another value.
        bits: whether another value makes another student; `rounding`: the same one, up to the order of its sums. Where
            it does not, `compare` takes two runs for one.
        place: whether it names a place, of which not the path but what lies there counts: that is compared by itself
            (the fingerprint of the data, the identity of the teacher).
        auto: who decides where it is left open, as it is then kept in the run folder.
    """

    resume: bool = False
    bits: bool | Literal["rounding"] = True
    place: bool = False
    auto: Literal["", "machine", "data"] = ""


_RUN = Key()
_FREE = Key(resume=True, bits=False)
_PLACE = Key(resume=True, place=True)
_BY_MACHINE = Key(auto="machine")
_BY_DATA = Key(auto="data")

KEYS: dict[str, Key] = {
    "task": _RUN,
    "seed": _RUN,
    "out": _FREE,
    "data.path": _PLACE,
    "data.source": _RUN,
    "data.options": _RUN,
    "data.unlabeled": _PLACE,
    "data.val_fraction": _RUN,
    "data.split_seed": _RUN,
    "data.held_out": _RUN,
    "data.class_order": Key(resume=True, place=True),  # the fingerprint of the data has the order
    "data.on_corrupt": _RUN,
    "data.fit": _RUN,
    "data.alpha": _BY_DATA,
    "data.white_level": _RUN,
    "data.max_megapixels": Key(resume=True),  # a run that met too large a picture may go on with it
    "data.size": _RUN,
    "data.memory_limit_gb": _FREE,
    "data.workers": _FREE,
    "data.views.crop": _BY_DATA,
    "data.views.size": _BY_DATA,
    "data.views.padding": _RUN,
    "data.views.scale": _RUN,
    "data.views.ratio": _RUN,
    "data.views.flip": _RUN,
    "data.views.randaugment": _RUN,
    "data.views.randaugment.operations": _RUN,
    "data.views.randaugment.magnitude": _RUN,
    "data.views.mixup": _RUN,
    "data.views.cutmix": _RUN,
    "data.scenes.size": _BY_DATA,
    "data.scenes.reduction": _RUN,
    "data.scenes.scale": _RUN,
    "data.scenes.flip": _RUN,
    "data.scenes.jitter": _RUN,
    "data.scenes.window": _RUN,
    "data.scenes.resolution": _RUN,
    "teacher": _RUN,
    "teacher.model": _RUN,
    "teacher.checkpoint": _PLACE,
    "teacher.weights": _PLACE,
    "teacher.outputs": _RUN,
    "teacher.pretrained": _RUN,
    "teacher.arguments": _RUN,
    "teacher.mean": _RUN,
    "teacher.std": _RUN,
    "teacher.input_size": _RUN,
    "teacher.classes": _PLACE,
    "teacher.precision": _BY_MACHINE,
    # A run may go on with recorded answers of its teacher, or with the teacher itself: the same up to their rounding.
    "teacher.store": Key(resume=True),
    "teacher.missing": Key(resume=True),
    "teacher.accept_chance": _FREE,
    "student.model": _RUN,
    "student.checkpoint": Key(resume=True),  # where it starts from: a run that goes on has its own weights
    "student.weights": _PLACE,
    "student.pretrained": _RUN,
    "student.arguments": _RUN,
    "student.mean": _RUN,
    "student.std": _RUN,
    "student.input_size": _RUN,
    "objective": _RUN,
    "train.epochs": _RUN,
    "train.batch_size": _RUN,
    "train.drop_last": _RUN,
    "train.optimizer.name": _RUN,
    "train.optimizer.learning_rate": _RUN,
    "train.optimizer.momentum": _RUN,
    "train.optimizer.nesterov": _RUN,
    "train.optimizer.betas": _RUN,
    "train.optimizer.weight_decay": _RUN,
    "train.optimizer.decay_norms": _RUN,
    "train.schedule.name": _RUN,
    "train.schedule.milestones": _RUN,
    "train.schedule.gamma": _RUN,
    "train.schedule.warmup_epochs": _RUN,
    "train.schedule.rise": _RUN,
    "train.schedule.power": _RUN,
    "train.schedule.final": _RUN,
    "train.clip_gradient": _RUN,
    "train.ema": _RUN,
    "train.precision": _BY_MACHINE,
    "train.channels_last": _BY_MACHINE,
    "train.compile": _RUN,
    "train.ship": Key(resume=True),  # which of the weights that the run has anyway are the student
    # Where a run was trained is noted beside it, and tables keep it apart (studies/provenance.py).
    "train.fast": Key(resume=True, bits="rounding", auto="machine"),
    "train.device": Key(resume=True, bits="rounding", auto="machine"),
    "train.evaluate_every": _RUN,  # which epochs can be the best one
    "train.checkpoint_minutes": _FREE,
    "train.log_every": _FREE,
    "train.tensorboard": _FREE,
}
"""A row for each key; that of a mapping of the user's own (objective, options, arguments) stands for all below it."""


def row(key: str) -> Key:
    """The row of a dotted key, or of the key that it is a part of. Raises KeyError where there is none."""
    part = key
    while part not in KEYS:
        part, dot, _ = part.rpartition(".")
        if not dot:
            raise KeyError(key)
    return KEYS[part]


def asked(key: str) -> bool:
    """Whether a key belongs to what is asked for, of data that lie anywhere: tables know their rows by these."""
    return row(key).bits is True and key not in ("data.path", "data.class_order")


def flatten(run: Run) -> dict[str, Any]:
    """The values of a run by dotted key, as JSON has them; milestones in epochs, and none where they do nothing."""
    flat: dict[str, Any] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = value

    walk(run.model_dump(mode="json"), "")
    flat["train.schedule.milestones"] = list(run.train.schedule.milestone_epochs(run.train.epochs))
    return flat


def nested(key: str, value: Any) -> dict[str, Any]:
    """A value at a dotted key, as a run file has it."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def differences(there: Run, wanted: Run, *, resume: bool = False) -> dict[str, tuple[Any, Any]]:
    """The keys by which a run is another one than that which was started, and both values.

    What is left open in `wanted` is what machine or data made of it when the run was started.

    Args:
        resume: whether the run is to go on, rather than to be the same from its first step.
    """
    old, new = flatten(there), flatten(wanted)
    found = {}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) or (row(key).resume if resume else not asked(key)):
            continue
        if row(key).auto and new.get(key) in ("auto", None) and key in new:
            continue
        found[key] = (old.get(key), new.get(key))
    return found


# Rooms and modules that trained weights depend on, and those that start runs or tell of them.
MAKING = (
    *("config", "data", "decoding.py", "engine", "models", "objectives", "outputs.py"),
    *("students", "system", "tasks", "teachers"),
)
TELLING = (
    "__init__.py",
    "__main__.py",
    "commands",
    "demos",
    "deploy",
    "errors.py",
    "pages",
    "statistics.py",
    "studies",
)
