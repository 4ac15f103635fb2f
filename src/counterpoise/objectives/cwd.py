"""Channel-wise distillation: where in the image each channel is strong."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import Objective, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.features import FeatureObjective, built, pool_to_smaller, precision_of
from counterpoise.objectives.logits import LEFT_OUT, check_logits, remaining, widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs

PAPER = "Shu et al., Channel-wise knowledge distillation for dense prediction, arXiv 2011.13256"


@register(
    "cwd", summary="KL over the positions of each class map: where the teacher sees a class", paper=PAPER, year=2021
)
class ChannelWiseDistillation(Objective):
    r"""Channel-wise distillation of logits.

    .. math::
        L = \frac{\tau^2}{C} \sum_c \sum_i p_{ci} \log\frac{p_{ci}}{q_{ci}}, \quad
        p_{ci} = \frac{\exp(t_{ci} / \tau)}{\sum_j \exp(t_{cj} / \tau)}

    with t the teacher's logits and q the same of the student's: a softmax over the positions of each class, not over
    the classes of each position. Mean over samples. What a class adds to all positions of an image costs nothing.
    Weight in the paper: 3, beside cross-entropy at 1.

    Args:
        temperature: tau.
        ignore_index: positions whose target holds this value take no part.

    Called with (student_logits, teacher_logits, target=None, weight=None): logits [N, C, ...] with at least one
    dimension of positions, target [N, ...], weight [N].

    Shu, Liu, Gao, Yan, Shen, "Channel-wise knowledge distillation for dense prediction", arXiv 2011.13256 (ICCV 2021).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "maps"})

    def __init__(self, temperature: float = 4.0, ignore_index: int | None = None) -> None:
        super().__init__()
        self.temperature = check_temperature("temperature", temperature)
        self.ignore_index = ignore_index

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        student_logits, teacher_logits = student.logits, None if teacher is None else teacher.logits
        check_logits(student_logits, teacher_logits)
        assert teacher_logits is not None
        if student_logits.ndim < 3:
            raise ObjectiveError(
                f"cwd compares the positions of maps: logits must be [N, C, ...], got {list(student_logits.shape)}."
            )
        counted = None
        if self.ignore_index is not None and target is not None:
            positions = torch.ones_like(student_logits[:, 0])
            counted = Target(target, None, self.ignore_index).reduce(positions, "none") > 0
        with torch.autocast(student_logits.device.type, enabled=False):
            sides = remaining(widen(student_logits), widen(teacher_logits.detach()))
            return {"": _loss(*sides, self.temperature, weight, counted)}


@register(
    "cwd_feature",
    summary="KL over the positions of each channel of a feature: where the teacher's channels are active",
    paper=PAPER,
    year=2021,
)
class ChannelWiseFeatureDistillation(FeatureObjective):
    r"""Channel-wise distillation of a feature; formula and paper as of `ChannelWiseDistillation`.

    Where the channels differ in number, a 1x1 convolution that learns with the student gives it the teacher's. Of maps
    of unlike sizes the larger is pooled. Weight in the paper: 50, beside cross-entropy at 1.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last.
        teacher_feature: the same of the teacher.
        temperature: tau.
    """

    def __init__(self, student_feature: str = "@-1", teacher_feature: str = "@-1", temperature: float = 4.0) -> None:
        super().__init__(student_feature, teacher_feature)
        self.temperature = check_temperature("temperature", temperature)
        self.adapter: nn.Module | None = None

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        mine, other = self.pairs(student, teacher)[0]
        channels, wanted = mine.shape[1], other.shape[1]
        same = channels == wanted
        self.adapter = nn.Identity() if same else nn.Conv2d(channels, wanted, 1, bias=False).to(widen(mine))

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        mine, other = self.pairs(student, teacher)[0]
        with precision_of(mine):
            adapted = built(self.adapter)(mine)
        mine, other = pool_to_smaller(widen(adapted), other)
        return {"": _loss(mine, other, self.temperature, weight, None)}


def _loss(student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None, counted: Tensor | None) -> Sum:
    """Over samples, from maps [N, C, ...] in float32 or float64; `counted`: bool [N, ...]."""
    s, t = (x.flatten(2) / temperature for x in (student, teacher))
    samples = s.new_ones(len(s))
    if counted is not None:
        counted = counted.flatten(1)
        samples = counted.any(1).to(s.dtype)
        # Not -inf, whose differences are NaN; where nothing is counted this leaves an even map.
        s, t = (x.masked_fill(~counted.unsqueeze(1), LEFT_OUT) for x in (s, t))
    log_q, log_p = F.log_softmax(s, dim=2), F.log_softmax(t, dim=2)
    divergence = log_p.exp() * (log_p - log_q)
    there = t.amax(2) > LEFT_OUT / temperature  # a class that is left out is no map
    values = temperature**2 * divergence.sum(2).sum(1) / there.sum(1).clamp(min=1)
    return Target(weight=Target(weight=weight).reduce(samples, "none")).sum(values)
