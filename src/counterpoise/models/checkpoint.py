"""Weights from files: safetensors, pickles of tensors alone, student folders, runs. No file gets to run code."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from counterpoise.decoding import Reading
from counterpoise.errors import ModelError, damage, nearest
from counterpoise.models import folder, several_files, wrapped
from counterpoise.models.wrapped import Which
from counterpoise.system.documents import parse_json
from counterpoise.system.files import is_folder, read_tensors, regular

PICKLES = (".pt", ".pth", ".bin", ".tar", ".ckpt")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
UNUSUAL_COUNT = 9973
"""A count of classes that no layer has for another reason: building with it shows which tensors depend on the count."""
SHOWN = 3
RUN, STUDENT, AVERAGE = "counterpoise", "student.", "average.module."
"""In a run's checkpoint, what its metadata have and how names begin: see engine/state.py and learning.saved_modules."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what is known of the network that they belong to; None where the file does not say.

    Attributes:
        origin: the file or folder.
        notes: what was taken of it and what was left, a sentence each.
        as_held: where `state` was taken out of what lies in the file by names, such as `ema` or `module`: that as it
            is, and its notes. A network whose own names they are takes it.
    """

    origin: str
    state: dict[str, Tensor]
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: int | None = None
    crop_share: float | None = None
    fit: str = "crop"
    whole: bool = False
    scenes: tuple[float, tuple[int, int] | None, float | None, str] | None = None
    reading: Reading | None = None
    channels: int | None = None
    task: str | None = None
    notes: tuple[str, ...] = ()
    as_held: tuple[dict[str, Tensor], tuple[str, ...]] | None = None

    @property
    def held(self) -> Weights:
        """The same with the state as it lies in the file."""
        if self.as_held is None:
            return self
        return replace(self, state=self.as_held[0], notes=self.as_held[1], as_held=None)

    def is_classifier_beside(self, name: str) -> bool:
        """Whether these are a classifier's, of which a network of scenes of this name takes its encoder."""
        if self.architecture in (None, name):
            return False
        if self.task is not None:
            return "segmentation" not in self.task
        return self.architecture.partition("/")[0] != name.partition("/")[0]

    def of_another(self) -> Weights:
        """The same for a network of which they start a part, such as its encoder, and which sees pictures its own way.

        The input size of a classifier would have scenes squashed to it.
        """
        return replace(self, input_size=None, crop_share=None, fit="crop", whole=False, scenes=None)


def read(path: Path, which: Which = "auto") -> Weights:
    """Weights from a .safetensors, a .pt or .pth that holds tensors alone, a student folder or a run folder.

    The `.index.json` of weights in several files stands for them all. A checkpoint of a run that has not come to its
    end holds its student so far.

    Args:
        which: of a file that holds weights and their moving average: live, ema, or auto, the average.

    Raises ModelError where it is missing, damaged or of another kind.
    """
    if is_folder(path):
        return _read_folder(folder.find(path))
    if not os.path.exists(path):  # noqa: PTH110 - pathlib raises for names that no file can have
        beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(f"Checkpoint {path} does not exist.{nearest(path.name, beside)}")
    if path.name.endswith(several_files.ENDING):
        state = several_files.read(path, lambda file: read(file, which).held.state, path.parent.joinpath)
        return Weights(str(path), state)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, which)
    if path.suffix in PICKLES:
        return _plain(_unpickle(path), path, which)
    kinds = ", ".join((".safetensors", *PICKLES))
    raise ModelError(f"Checkpoint {path} is of an unknown kind; expected {kinds}, a student folder or a run folder.")


class Head(NamedTuple):
    """The classifier in weights: its number of classes (0: it was left out), and the tensors that depend on that."""

    classes: int
    tensors: frozenset[str]


ANEW, KEPT = "the classifier starts anew", "the classifier is kept as it is"
"""In what is said of the classifier of a network that starts from weights."""


def reorder_head(net: nn.Module, head: Head | None, weights: Weights, wanted: Sequence[str]) -> list[str]:
    """Put the outputs of `net` in the order of `wanted`, where its weights have the same classes in another order.

    Args:
        net: with the weights, whose classes are known.
        head: None looks for it among the layers of the network.

    Returns:
        What is to be said where the classes have other names.

    Raises:
        ModelError: the order is another one, and which layer is the classifier is not plain.
    """
    there = weights.classes or ()
    if tuple(there) == tuple(wanted):
        return []
    if sorted(there) != sorted(wanted):
        some = ", ".join(there[:SHOWN]) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
        return [f"{weights.origin} has other names for its classes ({some}): {KEPT}, and says the given ones in turn."]
    state = net.state_dict()  # the tensors themselves
    if head is None:
        rows = [name for name, value in state.items() if value.ndim and len(value) == len(there)]
        if len({name.rpartition(".")[0] for name in rows}) != 1:
            raise ModelError(
                f"{weights.origin} has its classes in another order ({', '.join(there[:SHOWN])}, ...) than is asked "
                f"for ({', '.join(wanted[:SHOWN])}, ...), and which layer of the network is its classifier is not "
                "plain. Name a function that makes the network for num_classes, such as path/to/file.py:function."
            )
        head = Head(len(there), frozenset(rows))
    places = {name: row for row, name in enumerate(there)}
    order = torch.tensor([places[name] for name in wanted])
    for name in head.tensors:
        if state[name].ndim and len(state[name]) == len(order):
            state[name].copy_(state[name][order.to(state[name].device)])
    return []


Shapes = Mapping[str, torch.Size]


def shapes_of(build: Callable[[int], nn.Module]) -> Shapes:
    """The shapes of a network's weights by name, those of its head for UNUSUAL_COUNT classes."""
    with torch.random.fork_rng(devices=[]):  # finding out must not change what is drawn afterwards
        try:
            with torch.device("meta"):
                net = build(UNUSUAL_COUNT)
        except Exception:  # some networks compute with their weights while they are built
            net = build(UNUSUAL_COUNT)
    return shapes(net)


def shapes(net: nn.Module) -> Shapes:
    """The shapes of a network's weights by name."""
    return {name: value.shape for name, value in net.state_dict().items() if not _is_counter(name)}


def fits(expected: Shapes, state: Mapping[str, Tensor]) -> bool:
    """Whether a state has all tensors of these shapes, and no others."""
    return expected == {name: value.shape for name, value in state.items() if not _is_counter(name)}


def head_in(expected: Shapes, state: Mapping[str, Tensor]) -> Head | None:
    """The head in `state`; None where `state` is not of the network of these `shapes_of`."""
    given = {name: value.shape for name, value in state.items() if not _is_counter(name)}
    tensors = frozenset(name for name, shape in expected.items() if shape[:1] == (UNUSUAL_COUNT,))
    rest = expected.keys() - tensors
    if any(given.get(name) != expected[name] for name in rest) or given.keys() - expected.keys():
        return None
    if tensors and not tensors & given.keys():
        return Head(0, tensors)
    if any(name not in given or given[name][1:] != expected[name][1:] for name in tensors):
        return None
    counts = {given[name][0] for name in tensors}
    return Head(counts.pop(), tensors) if len(counts) == 1 else None


def load(net: nn.Module, weights: Weights, name: str, but: Collection[str] = ()) -> None:
    """Copy weights into a network: all of them, and all that the network needs.

    Args:
        net: the network.
        weights: to load.
        name: of the network, for errors.
        but: tensors of the network that are left as they are.

    Raises:
        ModelError: names tensors that are missing, not expected, of another shape or kind, or not finite.
    """
    own = net.state_dict()
    state = {
        key: value for key, value in weights.state.items() if key not in but and (key in own or not _is_counter(key))
    }
    missing = [key for key in own if key not in state and key not in but and not _is_counter(key)]
    unexpected = [key for key in state if key not in own]
    both = {key: (value, own[key]) for key, value in state.items() if key in own}
    reshaped = [
        f"{key} is {list(given.shape)}, expected {list(held.shape)}"
        for key, (given, held) in both.items()
        if given.shape != held.shape
    ]
    kinds = [
        f"{key} is {given.dtype}, expected floats"
        for key, (given, held) in both.items()
        if held.is_floating_point() and not given.is_floating_point()
    ]
    wrong = _some("missing", [f"{key} {list(own[key].shape)}" for key in missing])
    wrong += _some("not expected", [f"{key} {list(state[key].shape)}" for key in unexpected])
    wrong += [*_some("of another shape", reshaped), *_some("of another kind", kinds)]
    if wrong:
        says = weights.architecture if weights.architecture != name else None
        holds = f"\n  It says that it holds {says}." if says else ""
        raise ModelError(f"{weights.origin} does not fit {name}:\n  " + "\n  ".join(wrong) + holds)
    learned = [key for key, _ in net.named_parameters() if key in state]  # buffers may hold -inf, as masks do
    broken = [key for key in learned if not bool(state[key].float().isfinite().all())]
    broken += [key for key, value in both.items() if key not in learned and _is_broken(key, value[0])]
    if broken:
        raise ModelError(
            f"{weights.origin} is damaged, or its training diverged: not all numbers of {', '.join(broken[:SHOWN])} "
            "are finite."
        )
    net.load_state_dict({**own, **state})


def _is_broken(name: str, value: Tensor) -> bool:
    """Whether what is not learned would make every answer NaN."""
    if not value.is_floating_point() or not value.numel():
        return False
    return bool(value.isnan().any()) or (name.endswith("running_var") and not 0 <= float(value.min()) < float("inf"))


def _some(kind: str, found: list[str]) -> list[str]:
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [f"{kind}: {', '.join(found[:SHOWN])}{more}."] if found else []


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # older files lack it, and nothing depends on it


def _read_folder(path: Path) -> Weights:
    description, content = folder.read(path)
    try:
        state = load_bytes(content)
    except SafetensorError as error:
        raise ModelError(f"{path / folder.WEIGHTS} is damaged, or no safetensors file: {error}.") from None
    return Weights(
        origin=str(path),
        state=state,
        architecture=description.architecture,
        arguments=description.arguments,
        classes=description.classes,
        mean=description.normalization.mean,
        std=description.normalization.std,
        input_size=description.input.size,
        crop_share=description.input.crop_share,
        fit=description.input.fit,
        whole=description.input.whole,
        scenes=description.input.scenes,
        reading=description.input.reading,
        channels=description.input.channels,
        task=description.task,
    )


def _read_safetensors(path: Path, which: Which) -> Weights:
    try:
        state, metadata = read_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"Checkpoint {path} is damaged, or no safetensors file: {damage(error)}.") from None
    size = metadata.get("input_size", "")
    if RUN in metadata:
        held = _held_by_run(state)
        found = None if held == (None, None, ()) else _chosen(held, held, which, path)
    else:
        found = _taken(state, which, path)
    if found is None:
        raise ModelError(f"Checkpoint {path} holds no weights.")
    return replace(
        found,
        architecture=metadata.get("architecture"),
        classes=_names(metadata.get("classes", "")),
        mean=_channels(metadata, "mean", path),
        std=_channels(metadata, "std", path),
        input_size=int(size) if size.isdecimal() else None,
    )


def _held_by_run(state: Mapping[str, Tensor]) -> wrapped.Held:
    """Of a run's checkpoint the student's weights, and their moving average where there is one."""
    live, averaged = (
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for prefix in (STUDENT, AVERAGE)
    )
    return wrapped.Held(live or None, averaged or None)


def _channels(metadata: Mapping[str, str], key: str, path: Path) -> tuple[float, ...] | None:
    text = metadata.get(key)
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        values = ()
    if not values:
        raise ModelError(
            f"Checkpoint {path}: its metadata say {key} = '{text}', expected a number a channel, such as 0.5,0.5,0.5."
        )
    return values


def _names(text: str) -> tuple[str, ...] | None:
    try:
        values = parse_json(text)
    except ValueError:
        return None
    return tuple(map(str, values)) if isinstance(values, list) else None


def _unpickle(path: Path) -> Any:
    try:
        # training scripts keep their options beside the weights; a Namespace is a bag of values and runs nothing
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(regular(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise ModelError(f"Checkpoint {path} is damaged, or no PyTorch file: {damage(error)}.") from None
        said = re.sub(r"<class '([^']*)'>", r"\1", str(error))
        reason = said.partition("WeightsUnpickler error:")[2].strip().splitlines()[:1]
        raise ModelError(
            f"Checkpoint {path} is refused: it holds more than tensors, and reading that would run code from the file"
            f"{f' ({reason[0]})' if reason else ''}. Save the state_dict alone, best as .safetensors."
        ) from None
    except Exception as error:  # zip, unicode, index errors: whatever a damaged file leads to
        raise ModelError(f"Checkpoint {path} is damaged, or no PyTorch file: {damage(error)}.") from None


def _plain(held: Any, path: Path, which: Which) -> Weights:
    found = _taken(held, which, path)
    if found is None:
        what = f"keys {', '.join(map(str, list(held)[:5]))}" if isinstance(held, Mapping) else type(held).__name__
        raise ModelError(
            f"Checkpoint {path} holds {what}; expected tensors by name, or those under {', '.join(wrapped.LIVE)}."
        )
    return found


def _taken(content: Any, which: Which, path: Path) -> Weights | None:
    """The weights in what a file holds; None where there are none."""
    apart, whole = wrapped.unwrap(content), wrapped.unwrap(content, apart=False)
    return None if apart is None or whole is None else _chosen(apart, whole, which, path)


def _chosen(apart: wrapped.Held, whole: wrapped.Held, which: Which, path: Path) -> Weights:
    """Of weights that were read in two ways, those that are meant."""
    state, notes = wrapped.chosen(apart, which, str(path))
    weights = Weights(str(path), _strip(state), notes=notes)
    with suppress(ModelError):  # an average that is asked for lies under names alone
        as_held = wrapped.chosen(whole, which, str(path))
        if as_held[0].keys() != weights.state.keys():
            return replace(weights, as_held=as_held)
    return weights


def _strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = dict(state)
    for prefix in (*PREFIXES, *PREFIXES):  # wrapped in either order
        if plain and all(key.startswith(prefix) for key in plain):
            plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain
