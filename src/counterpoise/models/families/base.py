"""What a family of networks gives the catalog, and the register of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.checkpoint import Weights
from counterpoise.models.prompts.reading import Prompts
from counterpoise.system.registry import Registry


@dataclass(frozen=True)
class Request:
    """What is wanted of a network.

    Attributes:
        num_classes: None leaves it to the network.
        arguments: further arguments of the network.
        input_size: edge in pixels, where one is asked for; networks that are built for a size are built for this one.
        channels: of the pictures; a family that has three channels alone builds such a network.
    """

    num_classes: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    channels: int = 3


@dataclass(frozen=True)
class Built:
    """A network, freshly initialized, and what belongs to it.

    Attributes:
        net: takes normalized images [N, channels, H, W], returns logits; those of segmentation are [N, C, h, w] at the
            network's own resolution.
        num_classes: of the logits; None where only trying tells.
        arguments: that build the same network again.
        mean, std: as in VisionModel; how many they are says how many channels the network takes.
        input_size, crop_share, stages, task: as in VisionModel.
        notes: what is to be said of the network, a sentence each.
        normalization: what says mean and std, where that is to be told.
    """

    net: nn.Module
    num_classes: int | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    input_size: int | None = None
    crop_share: float = 1.0
    stages: Sequence[str] = ()
    task: str = "classification"
    notes: Sequence[str] = ()
    normalization: str = ""


def each_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Means or deviations of as many channels: of three colors the mean of them, where there are others."""
    if len(values) == channels or len(values) not in (1, 3):
        return tuple(values)
    return (sum(values) / len(values),) * channels


State = dict[str, Tensor]
Build = Callable[[str, Request], Built]


class Part(NamedTuple):
    """What was read of a file.

    Attributes:
        state: in the network's terms, without what the file lacks.
        left: names of tensors that are no part of the network.
    """

    state: State
    left: Sequence[str] = ()


Convert = Callable[[str, Request, State], State | Part | None]


@dataclass(frozen=True)
class Family:
    """A kind of networks.

    Attributes:
        build: (name without the family, request) -> Built. Raises ModelError; for an unknown name, with the nearest.
        names: all names without the family.
        published: (name, request, True or tag) -> published Weights; None where the family has none.
        convert: (name, request, state of a file that does not fit) -> the state in this network's terms, without what
            the file lacks, alone or as a `Part`; None where it is not of this network.
        prompted: (name, prompts, device that encodes them) -> a classifier by words, with its weights; None where no
            network of the family takes words.
    """

    name: str
    summary: str
    build: Build
    names: Callable[[], Sequence[str]]
    published: Callable[[str, Request, bool | str], Weights] | None
    convert: Convert | None
    prompted: Callable[[str, Prompts, torch.device], Built] | None = None


BUILDING = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What libraries raise for arguments of a network that it cannot have."""


def cannot_build(name: str, arguments: Mapping[str, Any], error: Exception) -> ModelError:
    """The error for a network that its library does not build."""
    given = f" with {dict(arguments)}" if arguments else ""
    return ModelError(f"{name} cannot be built{given}: {error}")


def require_no_arguments(name: str, request: Request) -> None:
    """Raises ModelError where a network that takes no further arguments is given some."""
    if request.arguments:
        raise ModelError(f"{name} takes no arguments, got {', '.join(sorted(request.arguments))}.")


OTHER_NUMBER = 0.625
"""What weights are replaced by to see what depends on them: exact in every kind of float, and no usual first value."""


def read_by_library(read: Callable[[State], State], state: State) -> tuple[State, set[str]]:
    """The whole state of a network that its library gave the `state` of a file, and what of it is not from there.

    Libraries leave what a file lacks as it was initialized, some without a word. So the file is read once more, with
    other numbers in the place of its own and the same chance: what stays as it was is not from it. Zeros beside what
    was read are: libraries put them where a file of theirs has no bias.
    """
    before = torch.get_rng_state()
    found = read(state)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(before)
        other = read(
            {
                key: torch.full_like(value, OTHER_NUMBER) if value.is_floating_point() else value
                for key, value in state.items()
            }
        )
    numbers = [key for key, value in found.items() if value.is_floating_point() and value.numel()]
    lacking = {key for key in numbers if torch.equal(found[key], other[key])}
    read_modules = {key.rpartition(".")[0] for key in numbers if key not in lacking}
    zeros = {key for key in lacking if key.rpartition(".")[0] in read_modules and not found[key].any()}
    return found, lacking - zeros


FAMILIES: Registry[Family] = Registry("Family", "counterpoise.models.families", "counterpoise.families")
_Build = TypeVar("_Build", bound=Build)


def register(
    name: str,
    *,
    summary: str,
    names: Callable[[], Sequence[str]],
    published: Callable[[str, Request, bool | str], Weights] | None = None,
    convert: Convert | None = None,
    prompted: Callable[[str, Prompts, torch.device], Built] | None = None,
) -> Callable[[_Build], _Build]:
    """Decorator that makes a function the builder of a family; the arguments are those of `Family`."""

    def keep(build: _Build) -> _Build:
        FAMILIES.add(name, Family(name, summary, build, names, published, convert, prompted), build.__module__)
        return build

    return keep


def families() -> dict[str, Family]:
    """All families by name."""
    return FAMILIES.entries()
