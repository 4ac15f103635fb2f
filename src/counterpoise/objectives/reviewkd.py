"""ReviewKD: each stage of the teacher is learned from the same and all later stages of the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.features import BatchNorm, FeatureObjective, built, precision_of
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs

MAX_WIDTH = 512
LEVELS = (4, 2, 1)
"""Edges of the pooled maps that are compared beside the whole ones."""


@register(
    "reviewkd",
    summary="each stage of the teacher is predicted from that and all later stages of the student",
    paper="Chen, Liu, Zhao, Jia, Distilling knowledge via knowledge review, arXiv 2104.09044",
    year=2021,
)
class ReviewKD(FeatureObjective):
    r"""L = min(1, progress / warmup) * sum over stages of HCL(f_i(s_i, ..., s_n), t_i). Chen et al. 2021.

    From the last stage to the first, ABF fuses the student's stage with what came from the later one: 1x1 convolution
    of the stage, attention a, b = sigmoid(conv([stage, later])), a * stage + b * later, and a 3x3 convolution to the
    teacher's channels. HCL is the mean squared error of the whole maps and of maps pooled to 4x4, 2x2 and 1x1, weighted
    1, 1/2, 1/4, 1/8 over their sum; levels that are not below the map's size are left out. Weight in the authors'
    scripts: 0.6 to 8 by pair, 5 for most, beside cross-entropy at 1. They take the teacher's stages before activation;
    here features are what the named modules give.

    Args:
        student_features: modules of the student, or stages "@k", from early to late; default: the last three.
        teacher_features: the same of the teacher.
        pooled: take the last pair averaged over positions as one more pair, as the authors do.
        warmup: share of the run over which the loss rises from zero; 20 of 240 epochs in the authors' scripts.
    """

    def __init__(
        self,
        student_features: str | Sequence[str] = ("@-3", "@-2", "@-1"),
        teacher_features: str | Sequence[str] = ("@-3", "@-2", "@-1"),
        pooled: bool = True,
        warmup: float = 20 / 240,
    ) -> None:
        super().__init__(student_features, teacher_features)
        if not 0 <= warmup <= 1:
            raise ObjectiveError(f"warmup must be a share of the run, from 0 to 1, got {warmup}.")
        self.pooled = pooled
        self.warmup = warmup
        self.progress = 1.0
        self.fusion: nn.Module | None = None

    def set_progress(self, progress: float) -> None:
        self.progress = progress

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        stages = self._stages(student, teacher)
        fusion = _Fusion([mine.shape[1] for mine, _ in stages], [other.shape[1] for _, other in stages])
        self.fusion = fusion.to(widen(stages[0][0]))

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        mine, others = zip(*self._stages(student, teacher), strict=True)
        with precision_of(mine[0]):
            predictions = built(self.fusion)(mine, [other.shape[2:] for other in others])
        values = [_pyramid_error(widen(p), other) for p, other in zip(predictions, others, strict=True)]
        rise = min(1.0, self.progress / self.warmup) if self.warmup else 1.0
        return {"": replace(Target(weight=weight).sum(torch.stack(values).sum(0)), factor=rise)}

    def _stages(self, student: Outputs, teacher: Outputs | None) -> list[tuple[Tensor, Tensor]]:
        """The pairs from the last stage to the first."""
        pairs = self.pairs(student, teacher)[::-1]
        if self.pooled:
            mine, other = pairs[0]
            pairs.insert(0, (mine.mean((2, 3), keepdim=True), other.mean((2, 3), keepdim=True)))
        return pairs


class _Fusion(nn.Module):
    """A chain of ABF blocks over stages of these channels, from the last to the first."""

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        width = min(MAX_WIDTH, student_channels[0])
        channels = zip(student_channels, teacher_channels, strict=True)
        self.blocks = nn.ModuleList(_Block(mine, width, other, i > 0) for i, (mine, other) in enumerate(channels))

    def forward(self, stages: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """A prediction of the teacher's map of that size for each stage."""
        later: Tensor | None = None
        predictions = []
        for block, stage, size in zip(self.blocks, stages, sizes, strict=True):
            prediction, later = block(stage, later, list(size))
            predictions.append(prediction)
        return predictions


class _Block(nn.Module):
    """Attention-based fusion (ABF) of a stage with what came from the later one."""

    def __init__(self, channels: int, width: int, wanted: int, fuses: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), BatchNorm(width))
        self.attention = nn.Conv2d(2 * width, 2, 1) if fuses else None
        self.leave = nn.Sequential(nn.Conv2d(width, wanted, 3, padding=1, bias=False), BatchNorm(wanted))
        for convolution in (self.enter[0], self.leave[0]):
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, stage: Tensor, later: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        fused: Tensor = self.enter(stage)
        if self.attention is not None:
            assert later is not None
            later = F.interpolate(later, fused.shape[2:], mode="nearest")
            of_stage, of_later = self.attention(torch.cat([fused, later], 1)).sigmoid().split(1, 1)
            fused = of_stage * fused + of_later * later
        if list(fused.shape[2:]) != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.leave(fused), fused


def _pyramid_error(prediction: Tensor, teacher: Tensor) -> Tensor:
    """HCL: [N] from maps of one shape."""
    edges = [edge for edge in LEVELS if edge < min(teacher.shape[2:])]
    levels = [(prediction, teacher)]
    levels += [(F.adaptive_avg_pool2d(prediction, edge), F.adaptive_avg_pool2d(teacher, edge)) for edge in edges]
    weights = [0.5**level for level in range(len(levels))]
    errors = [w * (p - t).square().flatten(1).mean(1) for w, (p, t) in zip(weights, levels, strict=True)]
    return torch.stack(errors).sum(0) / sum(weights)
