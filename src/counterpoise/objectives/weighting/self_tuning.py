"""One reverse weight for all, tuned by the gradients that it makes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.weighting.base import MovingMean, Side, Weighting, check_range, register


@register(
    "self_tuning",
    summary="the reverse weight that keeps the gradient on ruled-out and on believed classes in proportion",
)
class SelfTuning(Weighting):
    r"""A reverse weight that needs no search. Counterpoise's own.

    The gradient by the student's logits, :math:`g = a g_f + b g_r`, falls on the classes that the teacher believes in
    (the fewest that hold `belief` of its probability at temperature 1) and on those it rules out (the others). At each
    step b is the least weight with

    .. math:: \|g\|_{ruled\ out} = proportion \cdot \|g\|_{believed}

    L2 norms over all positions. Norms, because the signed sums over the two groups are always equal and
    opposite. Both squared norms are quadratics in b, made of squares and products of the two divergences' gradients;
    these are kept as exponential moving averages over steps (and over all processes), and b solves a quadratic
    equation. Where no b between `minimum` and `maximum` times `reverse_weight` meets the proportion, the solution is
    the one that comes nearest, in the logarithm. That may change from one end of the range to the other within a step,
    so the weight in use is a moving average of the solutions, too (of their logarithms). `forward_weight` keeps its
    value; `reverse_weight` serves while the groups tell nothing: a single class, or a proportion that no b changes.
    What it sees is the whole batch, of all processes, and those before it; all processes use the same weight. With
    `train.accumulate` each part of a batch is a step to it: its averages reach back over as many parts.

    Args:
        proportion: of the norm on ruled-out classes to that on believed ones.
        belief: probability that the believed classes hold together, in (0, 1).
        minimum: least reverse weight, above 0, as a multiple of the one given.
        maximum: greatest reverse weight, likewise. A wider range lets the whole loss grow, which acts like a larger
            learning rate: with 0.1 to 10 students of the demo's digits fell below those trained alone.
        decay: of the moving averages, in [0, 1); 0 looks at each batch alone.

    Logs `reverse_weight`, and `proportion` as it comes out with it.
    """

    def __init__(
        self,
        proportion: float = 1.0,
        belief: float = 0.9,
        minimum: float = 0.25,
        maximum: float = 4.0,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.proportion = check_range("proportion", proportion, 0.0, float("inf"))
        self.belief = check_range("belief", belief, 0.0, 1.0)
        self.minimum = check_range("minimum", minimum, 0.0, float("inf"))
        self.maximum = check_range("maximum", maximum, 0.0, float("inf"))
        if minimum > maximum:
            raise ObjectiveError(f"minimum must not be above maximum, got {minimum} and {maximum}.")
        # Squares and product of the gradients of forward (at weight 1) and reverse: ruled-out, then believed classes.
        self.moments = MovingMean(6, check_range("decay", decay, 0.0, 1.0, "[)"))
        self.weight = MovingMean(1, decay)  # its logarithm
        self.last: tuple[Tensor, Tensor] | None = None

    def weights(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side, counted: Tensor | None
    ) -> tuple[float | Tensor, Tensor]:
        sums, count = self._moments(student_logits, teacher_logits, forward, reverse, counted)
        moments = self.moments(sums, count)
        # Scaled to 1: the roots do not change, and squares of small gradients do not fall out of float32.
        moments = moments / moments.max().clamp(min=torch.finfo(moments.dtype).tiny)
        a = torch.as_tensor(forward.weight, dtype=moments.dtype, device=moments.device)
        ruled_out, believed = (
            torch.stack([part[1], 2 * a * part[2], a**2 * part[0]]) for part in (moments[:3], moments[3:])
        )
        given_weight = float(reverse.weight)
        unit = given_weight if given_weight > 0 else 1.0
        low, high = self.minimum * unit, self.maximum * unit
        found, tells = self._solve(ruled_out, believed, low, high)
        smooth = self.weight(torch.where(tells, found.log(), 0.0).reshape(1), tells)[0].exp().clamp(low, high)
        given = torch.as_tensor(reverse.weight, dtype=smooth.dtype, device=smooth.device)
        weight = torch.where(self.weight.filled > 0, smooth, given)
        self.last = (weight, (_at(ruled_out, weight) / _at(believed, weight)).sqrt())
        return forward.weight, weight.to(student_logits.dtype)

    def logged(self) -> dict[str, float]:
        if self.last is None:
            return {}
        weight, proportion = (float(value) for value in self.last)
        return {"reverse_weight": weight, "proportion": proportion}

    def _moments(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side, counted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sums over positions [6], and the count of positions."""
        gradients = (
            forward_gradient(student_logits, teacher_logits, forward.temperature),
            reverse_gradient(student_logits, teacher_logits, reverse.temperature),
        )
        ranked, order = teacher_logits.softmax(1).sort(dim=1, descending=True)
        f, r = (gradient.gather(1, order) for gradient in gradients)
        ruled_out = ranked.cumsum(1) - ranked >= self.belief
        believed = ~ruled_out
        count = torch.tensor(ruled_out[:, 0].numel(), device=f.device)
        if counted is not None:
            ruled_out &= counted.unsqueeze(1)
            believed &= counted.unsqueeze(1)
            count = counted.sum()
        sums = [
            torch.where(group, product, 0.0).sum()
            for group in (ruled_out, believed)
            for product in (f * f, r * r, f * r)
        ]
        return torch.stack(sums), count

    def _solve(self, ruled_out: Tensor, believed: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """The least weight in range that meets the proportion, or the one that comes nearest; and whether it matters.

        `ruled_out` and `believed` are coefficients [b^2, b, 1] of the squared norms.
        """
        target = self.proportion**2
        ends = ruled_out.new_tensor([low, high])
        roots = _roots(*(ruled_out - target * believed))
        inside = (roots >= low) & (roots <= high)
        # Nearest without a root: an end of the range, or where the ratio of the two quadratics turns.
        (a, b, c), (d, e, f) = ruled_out, believed
        turns = _roots(a * e - b * d, 2 * (a * f - c * d), b * f - c * e)
        candidates = torch.cat([ends, turns.nan_to_num(low).clamp(low, high)])
        there, here = _at(ruled_out, candidates), _at(believed, candidates)
        distance = (there.log() - here.log() - torch.log(ruled_out.new_tensor(target))).abs().nan_to_num(float("inf"))
        nearest = candidates.gather(0, distance.argmin(0, keepdim=True))[0]
        least = torch.where(inside, roots, float("inf")).min()
        weight = torch.where(inside.any(), least, nearest)
        # A ratio that is the same whatever the weight, or a group that is empty, tells nothing.
        return weight, distance.min().isfinite() & (distance.max() - distance.min() > 1e-4)


def forward_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Gradient of tau^2 KL(teacher || student) by the student's logits: tau (q - p)."""
    return temperature * ((student_logits / temperature).softmax(1) - (teacher_logits / temperature).softmax(1))


def reverse_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Gradient of tau^2 KL(student || teacher) by the student's logits: tau q (log q/p - KL)."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    ratio = log_q - F.log_softmax(teacher_logits / temperature, dim=1)
    q = log_q.exp()
    return temperature * q * (ratio - (q * ratio).sum(1, keepdim=True))


def _at(quadratic: Tensor, x: Tensor) -> Tensor:
    """Value of a squared norm, which rounding must not take below 0."""
    return (quadratic[0] * x**2 + quadratic[1] * x + quadratic[2]).clamp(min=0.0)


def _roots(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Real roots [2] of a x^2 + b x + c, NaN where there are none, in the form that does not cancel."""
    half = -0.5 * (b + torch.where(b < 0, -1.0, 1.0) * (b * b - 4 * a * c).sqrt())
    return torch.stack([half / a, c / half])
