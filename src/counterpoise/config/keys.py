"""What a run is: each key of the run file, whether it may move, and which modules make the numbers.

One table, for `--resume`, `compare`, `search`, `fit` and reports alike. A key that is added to `config` makes another
run by another value, unless it gets a row here; a room gets its place below: a test says where it is missing.
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
        auto: who decides where it is left open, as it is then kept in the run folder.
    """

    resume: bool = False
    bits: bool | Literal["rounding"] = True
    auto: Literal["", "machine", "data"] = ""


_FREE = Key(resume=True, bits=False)
_PLACE = Key(resume=True)  # not the path counts but what lies there: fingerprints and identities are compared
_BY_MACHINE = Key(auto="machine")
_BY_DATA = Key(auto="data")

KEYS: dict[str, Key] = {
    "out": _FREE,
    "data.path": _PLACE,
    "data.unlabeled": _PLACE,
    "data.class_order": Key(resume=True),  # the fingerprint of the data has the order
    "data.alpha": _BY_DATA,
    "data.max_megapixels": Key(resume=True),  # a run that met too large a picture may go on with it
    "data.memory_limit_gb": _FREE,
    "data.workers": _FREE,
    "data.views.crop": _BY_DATA,
    "data.views.size": _BY_DATA,
    "data.scenes.size": _BY_DATA,
    "teacher.checkpoint": _PLACE,
    "teacher.weights": _PLACE,
    "teacher.classes": _PLACE,
    "teacher.prompts": _PLACE,
    "teacher.calibrate": _BY_DATA,
    "teacher.precision": _BY_MACHINE,
    # A run may go on with recorded answers of its teacher, or with the teacher itself: the same up to their rounding.
    "teacher.store": Key(resume=True),
    "teacher.missing": Key(resume=True),
    "teacher.accept_chance": _FREE,
    "teacher.shard": Key(resume=True, bits="rounding"),  # its weights do not lie channels last
    "student.checkpoint": Key(resume=True),  # where it starts from: a run that goes on has its own weights
    "student.weights": _PLACE,
    "train.precision": _BY_MACHINE,
    "train.channels_last": _BY_MACHINE,
    "train.ship": Key(resume=True),  # which of the weights that the run has anyway are the student
    # Where a run was trained is noted beside it, and tables keep it apart (studies/provenance.py).
    "train.fast": Key(resume=True, bits="rounding", auto="machine"),
    "train.device": Key(resume=True, bits="rounding", auto="machine"),
    "train.scores": _FREE,
    "train.checkpoint_minutes": _FREE,
    "train.log_every": _FREE,
    "train.tensorboard": _FREE,
    "train.wandb": _FREE,
    "train.mlflow": _FREE,
}
"""The keys of which another value is not simply another run."""
FREE_OPTIONS = ("cache", "cache_gb", "timeout")
"""Of data.options, those that are as free: of packs at an address, how what was fetched is kept."""


_MEMBERS = "teacher.members"


def row(key: str) -> Key:
    """What a dotted key is to a run; what one of several teachers has is what a teacher alone has."""
    if key.startswith(f"{_MEMBERS}."):
        key = f"teacher.{key.removeprefix(_MEMBERS).split('.', 2)[2]}"
    return KEYS.get(key, Key())


def asked(key: str) -> bool:
    """Whether a key belongs to what is asked for, of data that lie anywhere: tables know their rows by these."""
    return row(key).bits is True and key not in ("data.path", "data.class_order")


def flatten(run: Run) -> dict[str, Any]:
    """The values of a run by dotted key, as JSON has them; milestones in epochs, and none where they do nothing.

    Options of the source that change nothing are left out.
    """
    values = run.model_dump(mode="json")
    options = values["data"]["options"]
    values["data"]["options"] = {key: options[key] for key in options if key not in FREE_OPTIONS}
    flat = dotted(values)
    flat["train.schedule.milestones"] = list(run.train.schedule.milestone_epochs(run.train.epochs))
    return flat


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values in nested mappings by dotted key; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
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
    old, new = _one_by_one(flatten(there)), _one_by_one(flatten(wanted))
    found = {}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) or (row(key).resume if resume else not asked(key)):
            continue
        if row(key).auto and new.get(key) in ("auto", None) and key in new:
            continue
        found[key] = (old.get(key), new.get(key))
    return found


def _one_by_one(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values with those of each of several teachers beside the others, by its number from 1."""
    members = {str(place): member for place, member in enumerate(flat.get(_MEMBERS) or (), 1)}
    return {
        **{key: flat[key] for key in flat if key != _MEMBERS},
        **(dotted(members, f"{_MEMBERS}.") if members else {}),
    }


# Rooms and modules that trained weights depend on, and those that start runs or tell of them.
MAKING = (
    "bands.py",
    "config",
    "data",
    "decoding.py",
    "engine",
    "models",
    "objectives",
    "outputs.py",
    "reading.py",
    "system",
    "tasks",
    "teachers",
)
TELLING = (
    "__init__.py",
    "__main__.py",
    "commands",
    "demos",
    "deploy",
    "errors.py",
    "integrations",
    "pages",
    "statistics.py",
    "store.py",
    "studies",
)
