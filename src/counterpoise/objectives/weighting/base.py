"""The contract of a balance rule, the registry of rules, and what several of them share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError, nearest, unknown
from counterpoise.objectives.arguments import check_number
from counterpoise.system.registry import Registry


class Side(NamedTuple):
    """Weight and temperature of one of the two divergences."""

    weight: float | Tensor
    temperature: float | Tensor
    """A number, or one a position: [N, 1, ...]."""


class Rule(nn.Module):
    """Moves something of the balance while training. State lies in buffers, so that checkpoints keep it.

    Averages move in training mode alone.
    """

    def logged(self) -> dict[str, float]:
        """What the rule last decided, for the log: of all processes, so all must ask."""
        return {}


class Weighting(Rule, ABC):
    """A balance rule. Subclasses implement `weights`."""

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        forward: Side,
        reverse: Side,
        counted: Tensor | None = None,
    ) -> tuple[Tensor | float, Tensor | float]:
        """Weights of forward and reverse KL, constants to the gradient.

        Args:
            student_logits: [N, C, ...], float32 or float64.
            teacher_logits: the same shape.
            forward: the weight and temperature that forward KL was given.
            reverse: the same of reverse KL.
            counted: bool [N, ...], False at positions that a rule must not learn from; None: all count.

        Returns:
            Two numbers, or tensors that broadcast against the classes' contributions [N, C, ...].
        """
        with torch.no_grad():
            return self.weights(student_logits.detach(), teacher_logits.detach(), forward, reverse, counted)

    @abstractmethod
    def weights(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side, counted: Tensor | None
    ) -> tuple[Tensor | float, Tensor | float]:
        """As `forward`, without gradients."""


class PositionWeighting(Weighting):
    """A balance rule that decides for each position, or each class, by itself; subclasses implement `shares`."""

    def __init__(self) -> None:
        super().__init__()
        self.means: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def shares(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side
    ) -> tuple[Tensor, Tensor]:
        """Factors of the two weights, [N, 1, ...] or [N, C, ...]."""

    def weights(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side, counted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        factors = self.shares(student_logits, teacher_logits, forward, reverse)
        weights = (forward.weight * factors[0], reverse.weight * factors[1])
        self.means = (masked_sum(weights[0], counted), masked_sum(weights[1], counted))
        return weights

    def logged(self) -> dict[str, float]:
        if self.means is None:
            return {}
        return {"forward_weight": mean_of_all(self.means[0]), "reverse_weight": mean_of_all(self.means[1])}


class MovingMean(nn.Module):
    """Exponential moving average of the means of some numbers over positions, the same in all processes.

    Args:
        size: how many numbers.
        decay: what is kept of the average at each step, in [0, 1).
    """

    values: Tensor
    filled: Tensor

    def __init__(self, size: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("values", torch.zeros(size))
        self.register_buffer("filled", torch.zeros(()))

    def forward(self, sums: Tensor, count: Tensor) -> Tensor:
        """The average [size], this batch included in training mode; zeros before the first position that counts."""
        if self.training:
            batch = torch.cat([sums, count.to(sums.dtype).reshape(1)])
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(batch)
            some = batch[-1] > 0
            mean = (batch[:-1] / batch[-1].clamp(min=1)).to(self.values.dtype)
            self.values.copy_(torch.where(some, torch.lerp(mean, self.values, self.decay), self.values))
            self.filled.copy_(torch.where(some, self.filled * self.decay + (1 - self.decay), self.filled))
        return self.values / torch.where(self.filled > 0, self.filled, torch.ones_like(self.filled))


def masked_sum(values: Tensor, counted: Tensor | None) -> Tensor:
    """[2]: the sum of values [N, 1 or C, ...] over the positions that count, and how many values these are."""
    if counted is None:
        return torch.stack([values.sum(), values.new_full((), values.numel())])
    mask = counted.unsqueeze(1).expand_as(values)
    return torch.stack([values.masked_fill(~mask, 0.0).sum(), mask.sum().to(values.dtype)])


def mean_of_all(summed: Tensor) -> float:
    """The mean over all processes of what `masked_sum` gives; 0 where there is nothing."""
    if dist.is_available() and dist.is_initialized():
        summed = summed.clone()
        dist.all_reduce(summed)
    total, count = summed.tolist()
    return float(total / max(count, 1))


def check_range(name: str, value: float, low: float, high: float, ends: str = "()") -> float:
    """`value`, which must lie between `low` and `high`; `ends` says which of the two may be reached."""
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if not (above and below):
        raise ObjectiveError(f"{name} must be in {ends[0]}{low:g}, {high:g}{ends[1]}, got {value}.")
    return value


@dataclass(frozen=True)
class RuleEntry:
    """A registered rule."""

    name: str
    kind: type[Rule]
    summary: str
    paper: str
    year: int | None


RuleKind = TypeVar("RuleKind", bound="type[Rule]")
WEIGHTINGS: Registry[RuleEntry] = Registry("rule", "counterpoise.objectives.weighting", "counterpoise.weightings")
TEMPERATURE_RULES: Registry[RuleEntry] = Registry(
    "temperature_rule", "counterpoise.objectives.weighting", "counterpoise.temperature_rules"
)


def register(name: str, *, summary: str, paper: str = "", year: int | None = None) -> Callable[[RuleKind], RuleKind]:
    """Class decorator that makes a rule known under `name`: of the balance, or of the temperature."""

    def enter(kind: RuleKind) -> RuleKind:
        known = WEIGHTINGS if issubclass(kind, Weighting) else TEMPERATURE_RULES
        known.add(name, RuleEntry(name, kind, summary, paper, year), kind.__module__)
        return kind

    return enter


def build(registry: Registry[RuleEntry], name: str, arguments: Mapping[str, Any] | None) -> Any:
    """The rule called `name` with its arguments. Raises ObjectiveError for a name or argument that is unknown."""
    what, known = registry.what, registry.entries()
    if name == "scheduled":
        raise ObjectiveError(
            f"{what} 'scheduled' is no rule: keep {what} 'fixed' and give the weight or temperature itself as "
            "{shape: linear, start: 1, end: 4} in the run file."
        )
    if name not in known:
        raise ObjectiveError(unknown(what, name, sorted(known)))
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ObjectiveError(f"{what}_arguments must be a mapping of names to values, got {arguments!r}.")
    parameters = inspect.signature(known[name].kind).parameters.values()
    allowed = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    for key, value in (arguments or {}).items():
        if key not in allowed:
            raise ObjectiveError(
                f"{what} '{name}' has no argument '{key}'.{nearest(key, allowed)} "
                f"Available: {', '.join(allowed) or 'none'}."
            )
        check_number(f"{what}_arguments.{key}", value)
    return known[name].kind(**(arguments or {}))
