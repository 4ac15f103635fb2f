"""Everything a run needs to go on after a crash, in one safetensors file: tensors, and JSON in its header."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from counterpoise.data.walking import of_earlier
from counterpoise.engine.identify import other_data
from counterpoise.errors import DivergedError, RunError, damage
from counterpoise.system.documents import parse_json
from counterpoise.system.files import CHECKSUM, make_folder, read_tensors, regular, write_tensors
from counterpoise.teachers import identity

FORMAT = 1


@dataclass
class Progress:
    """Where a run stands. Chance is a function of (seed, step), so no generator has to be kept."""

    step: int = 0  # done
    seconds: float = 0.0  # of training and evaluation, over all sittings
    train_seconds: float = 0.0  # of training steps alone
    compile_seconds: float = 0.0  # of these, those that compiling the loss took
    metrics_bytes: int = 0  # size of metrics.jsonl at this point
    sums: dict[str, float] = field(default_factory=dict)  # of the named terms over the steps of the current epoch
    sums_of: list[dict[str, float]] = field(default_factory=list)  # of each process, where there are several
    last: dict[str, float] = field(default_factory=dict)  # metrics of the last evaluation
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best evaluation, and its epoch
    teacher: dict[str, float] = field(default_factory=dict)  # metrics of the teacher
    corrupt: list[str] = field(default_factory=list)  # names of images that were left out
    checked: bool = field(default=True, compare=False)  # whether the checkpoint read had a checksum; not kept
    origin: dict[str, str] = field(default_factory=dict)  # what the run must find again: see `engine.identify`

    def sums_for(self, rank: int, world: int) -> dict[str, float]:
        """The sums that a process goes on with: its own, or where the number of processes has changed their mean."""
        if len(self.sums_of) == world:
            return self.sums_of[rank]
        every = self.sums_of or [self.sums]
        return {name: sum(each[name] for each in every) / len(every) for name in every[0]}


def save(path: Path, progress: Progress, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint, whole or not at all. Raises RunError where it cannot be written or a weight is not finite."""
    tensors = {
        f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()
    }
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DivergedError(f"Weights are not finite after step {progress.step} ({name}). {good(path)}")
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    make_folder(path.parent)
    header = {"format": FORMAT, **{key: value for key, value in asdict(progress).items() if key != "checked"}}
    write_tensors(path, tensors, {"format": "pt", "counterpoise": json.dumps(header)})


def load(path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> Progress:
    """Read a checkpoint into the modules and the optimizer. Raises RunError where it is damaged or of another run."""
    try:
        tensors, metadata = read_tensors(path)
        progress = _progress(metadata["counterpoise"])
    except KeyError:
        raise RunError(f"{path} is no checkpoint of counterpoise.") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever safetensors or json find wrong with a damaged file
        raise RunError(f"Checkpoint {path} cannot be read: {damage(error)}.") from None
    progress.checked = CHECKSUM in metadata
    try:
        for part, module in modules.items():
            prefix = f"{part}."
            module.load_state_dict({n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)})
        _load_optimizer(optimizer, tensors)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"Checkpoint {path} does not fit this run: {error}") from None
    return progress


def _progress(text: str) -> Progress:
    """Where a run stands, from the header of its checkpoint. Raises ValueError where that is damaged."""
    values = parse_json(text)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError("it was written by another version of counterpoise")
    usual = {key: value for key, value in asdict(Progress()).items() if key != "checked"}
    for key in ("step", "seconds", "metrics_bytes", "sums", "last", "best", "teacher", "corrupt"):
        if key not in values:
            raise ValueError(f"its header is damaged: {key} is missing")
    for key, value in values.items():
        kinds = (int, float) if isinstance(usual.get(key), float) else type(usual.get(key))
        if key not in usual or isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"its header is damaged: {key} is {value!r:.80}")
    every = [values["sums"], *values.get("sums_of", [])]
    if any(not isinstance(each, dict) or set(each) != set(every[0]) for each in every):
        raise ValueError("its header is damaged: sums differ in their terms")
    if min(values["step"], values["metrics_bytes"]) < 0 or max(values["step"], values["metrics_bytes"]) >= 2**53:
        raise ValueError("its header is damaged: a count is below 0, or more than any run has")
    clocks = [key for key, kind in usual.items() if isinstance(kind, float) and not 0 <= values.get(key, 0) < math.inf]
    told = (*every, values["last"], values["best"], values["teacher"])
    odd = [key for each in told for key, value in each.items() if type(value) not in (int, float)]
    odd = odd or [key for each in every for key, value in each.items() if not math.isfinite(value)]
    texts = (*values["corrupt"], *values.get("origin", {}).values())
    if clocks or odd or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its header is damaged: {(*clocks, *odd, 'a name')[0]} is not what it should be")
    return Progress(**values)


def check_origin(path: Path, there: Mapping[str, str], here: Mapping[str, str], classes: Sequence[str] = ()) -> None:
    """Raises RunError where a run would go on with other data or another teacher than it was started with.

    Earlier versions kept the hashes of training data and of the teacher's weights alone.

    Args:
        classes: of the data as it is now.
    """
    advice = "Give it back as it was{}, or start a run with another --out."
    started = f"The run of checkpoint {path} was started with"
    for half, (was, now) in other_data(there, here).items():
        name = {"data": "data", "val": "validation data", "order": "cut of its data into shards"}[half]
        raise RunError(
            f"{started} another {name} than it would go on with (sha256 {was[:12]}... there, {now[:12]}... given). "
            f"{advice.format('')}{of_earlier(classes)}"
        )
    old, new = teacher_of(there), teacher_of(here)
    if bool(old) != bool(new):
        raise RunError(f"{started}{'' if old else 'out'} a teacher.")
    if found := identity.differences(old, new):
        lines = "\n".join(f"  {name}: {was} there, {now} given" for name, was, now in found)
        way_out = advice.format(f" ({identity.keys(old, new)})")
        raise RunError(f"{started} another teacher than it would go on with:\n{lines}\n{way_out}")


def origin_of(path: Path) -> dict[str, str]:
    """The origin that a checkpoint keeps; empty where there is no checkpoint, or it cannot be read."""
    try:
        with safe_open(regular(path), "pt") as file:
            found = parse_json(file.metadata()["counterpoise"])["origin"]
    except MemoryError:
        raise
    except Exception:  # whatever safetensors or json find wrong with a damaged file
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def teacher_of(origin: Mapping[str, str]) -> dict[str, str]:
    """The identity of the teacher among what a run keeps; empty where it has none."""
    if "teacher" not in origin:
        return {}
    parts = {key.partition(".")[2]: value for key, value in origin.items() if key.startswith("teacher.")}
    return {identity.WEIGHTS: origin["teacher"], **parts}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part != "optimizer":
            continue
        index, _, name = rest.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape:  # in the parameter's own memory format, which the fused updates want
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def good(path: Path) -> str:
    """A sentence on the checkpoint that is left."""
    if not path.exists():
        return "No checkpoint had been written yet."
    try:
        step = _progress(read_tensors(path)[1]["counterpoise"]).step
    except MemoryError:
        return f"The checkpoint that is left, {path}, could not be looked at: there is not enough memory."
    except Exception:  # whatever safetensors or json find wrong with a damaged file
        return f"The checkpoint that is left, {path}, is damaged."
    return f"The last good checkpoint is {path}, step {step}."
