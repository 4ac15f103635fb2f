"""Rules of the temperature: as given, or for each sample by the spread of the teacher's logits."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.logits import LEFT_OUT
from counterpoise.objectives.weighting.base import MovingMean, Rule, check_range, masked_sum, mean_of_all, register


@register("fixed", summary="the temperatures as given; each may follow a schedule of the run file")
class FixedTemperature(Rule):
    """Both temperatures as they are given: `forward` says 1 for every sample."""

    def forward(self, teacher_logits: Tensor, counted: Tensor | None = None) -> Tensor | float:
        """Factor of both temperatures."""
        return 1.0


@register(
    "per_sample",
    summary="hotter where the teacher's logits lie farther apart, so that each sample tells as much of its small ones",
)
class PerSampleTemperature(Rule):
    r"""Temperatures tau s_i / mean(s), with s_i the standard deviation of the teacher's logits over the classes.

    A teacher that is very sure of one sample and not of another is softened to the same degree on both: what counts is
    logits over temperature. The mean is an exponential moving average over steps (and all processes; with
    `train.accumulate` over parts of a batch), so that the temperatures given stay the typical ones; each sample that
    counts is one of it, whatever its weight. Counterpoise's own;
    logit standardization (Sun et al. 2024) divides each side's logits by its own deviation, here one temperature serves
    both sides, as in Hinton et al. 2015, and the student still learns the size of logits.

    Args:
        minimum: least factor, in (0, 1].
        maximum: greatest factor, at least 1.
        decay: of the moving average, in [0, 1).

    Logs `temperature_factor`, the mean over the last batch.
    """

    def __init__(self, minimum: float = 0.5, maximum: float = 2.0, decay: float = 0.99) -> None:
        super().__init__()
        self.minimum = check_range("minimum", minimum, 0.0, 1.0, "(]")
        self.maximum = check_range("maximum", maximum, 1.0, float("inf"), "[)")
        if minimum == maximum:
            raise ObjectiveError("minimum and maximum are both 1: that is temperature_rule 'fixed'.")
        self.spread = MovingMean(1, check_range("decay", decay, 0.0, 1.0, "[)"))
        self.last: Tensor | None = None

    def forward(self, teacher_logits: Tensor, counted: Tensor | None = None) -> Tensor:
        """Factor of both temperatures for each position: teacher's logits [N, C, ...] to [N, 1, ...]."""
        with torch.no_grad():
            spread = _deviation(teacher_logits.detach())
            kept = spread if counted is None else spread.masked_fill(~counted.unsqueeze(1), 0.0)
            count = torch.tensor(kept.numel(), device=kept.device) if counted is None else counted.sum()
            mean = self.spread(kept.sum().reshape(1), count).to(spread.dtype)
            # All logits of all samples alike: nothing to compare.
            factor = torch.where(mean > 0, spread / torch.where(mean > 0, mean, 1.0), 1.0)
            factor = factor.clamp(self.minimum, self.maximum)
            self.last = masked_sum(factor, counted)
            return factor

    def logged(self) -> dict[str, float]:
        return {} if self.last is None else {"temperature_factor": mean_of_all(self.last)}


def _deviation(logits: Tensor) -> Tensor:
    """Standard deviation over the classes [N, 1, ...], without those that are left out."""
    plain = logits.std(1, correction=0, keepdim=True)
    out = logits == LEFT_OUT
    count = (~out).sum(1, keepdim=True).clamp(min=1)
    mean = logits.masked_fill(out, 0.0).sum(1, keepdim=True) / count
    kept = ((logits - mean).masked_fill(out, 0.0).square().sum(1, keepdim=True) / count).sqrt()
    return torch.where(out.any(1, keepdim=True), kept, plain)
