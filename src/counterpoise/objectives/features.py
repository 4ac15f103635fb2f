"""What objectives on features share: pairs of maps by name, and adapters that are trained with the student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError, unknown
from counterpoise.objectives.base import Objective
from counterpoise.objectives.logits import check_device, widen
from counterpoise.outputs import Outputs

Adapter = TypeVar("Adapter", bound=nn.Module)


class FeatureObjective(Objective):
    """An objective on pairs of features, the first name of the student's with the first of the teacher's and so on.

    A feature is a map [N, C, H, W], tokens [N, L, C] or a vector [N, C]; see `as_map`. What it builds in `prepare`
    learns with the student and is kept in checkpoints; the student folder never holds it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "features"})

    def __init__(self, student_features: str | Sequence[str], teacher_features: str | Sequence[str]) -> None:
        super().__init__()
        self.student_features = _names("student", student_features)
        self.teacher_features = _names("teacher", teacher_features)
        if len(self.student_features) != len(self.teacher_features):
            raise ObjectiveError(
                f"features go in pairs, but {len(self.student_features)} of the student and "
                f"{len(self.teacher_features)} of the teacher are named."
            )

    def pairs(self, student: Outputs, teacher: Outputs | None) -> list[tuple[Tensor, Tensor]]:
        """The maps of student and teacher; the teacher's without gradient. Raises ObjectiveError where one is missing.

        The student's keep their dtype, for its adapter; the teacher's are float32 (float64 stays).
        """
        if teacher is None:
            raise ObjectiveError("this objective needs a teacher's features, got none.")
        found = []
        for mine, other in zip(self.student_features, self.teacher_features, strict=True):
            for side, name, outputs in (("Student", mine, student), ("Teacher", other, teacher)):
                if name not in outputs.features:
                    raise ObjectiveError(unknown(f"{side} feature", name, outputs.features))
            given = student.features[mine], teacher.features[other].detach()
            pair = as_map(given[0]), widen(as_map(given[1]))
            if {feature.ndim for feature in given} == {3, 4}:  # tokens have places as a map has them
                pair = laid_out(pair[0], True), laid_out(pair[1], True)
            if len(pair[0]) != len(pair[1]):
                raise ObjectiveError(
                    f"features '{mine}' and '{other}' are of {len(pair[0])} and {len(pair[1])} samples, "
                    "expected the same."
                )
            check_device(pair[0], "the teacher's", pair[1], "student features are")
            found.append(pair)
        return found


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes a single vector, too (a last batch of one sample): by its running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def _names(side: str, names: str | Sequence[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise ObjectiveError(f"{side} features must be names of modules, got {list(names)}.")
    return names


def as_map(feature: Tensor) -> Tensor:
    """A feature as [N, C, H, W]: vectors [N, C] are maps of 1x1, tokens [N, L, C] are maps of Lx1."""
    if not feature.is_floating_point() or feature.ndim not in (2, 3, 4):
        raise ObjectiveError(
            "a feature must be a map [N, C, H, W], tokens [N, L, C] or a vector [N, C] of floating point, "
            f"got {list(feature.shape)} of {feature.dtype}."
        )
    if feature.ndim == 4:
        return feature
    return feature[:, :, None, None] if feature.ndim == 2 else feature.transpose(1, 2).unsqueeze(3)


_IN_FRONT = (0, 1, 2, 4, 5)  # tokens that belong to no place


def laid_out(feature: Tensor, needed: bool = False) -> Tensor:
    """Tokens [N, C, L, 1] as the square map [N, C, h, w] that they are of; other maps as they are.

    Tokens in front that belong to no place are left out: one for the class, one for distillation, four registers.

    Raises ObjectiveError where they are of no square and that is `needed`; else they stay as they are.
    """
    length, width = feature.shape[2:]
    if width != 1 or length == 1:
        return feature
    side = math.isqrt(length)
    if length - side**2 in _IN_FRONT:
        placed = feature[:, :, length - side**2 :]
        return placed.reshape(*placed.shape[:2], side, side)
    if needed:
        raise ObjectiveError(
            f"{length} tokens are no square map with {', '.join(map(str, _IN_FRONT))} tokens in front, so their places "
            "are not known: give pictures that are square, or features that are both tokens or both maps."
        )
    return feature


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller height and the smaller width of the two, by averaging."""
    height, width = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    sized = [
        m if m.shape[2:] == (height, width) else F.adaptive_avg_pool2d(m, (height, width)) for m in (student, teacher)
    ]
    return sized[0], sized[1]


def class_means(feature: Tensor, members: Tensor) -> Tensor:
    """Mean of a map [N, D, h, w] over the positions of each class, by `members` [N, C, h * w]: [N, C, D]."""
    count = members.sum(2, keepdim=True)
    return members @ feature.flatten(2).transpose(1, 2) / torch.where(count == 0, 1.0, count)


def unit_vectors(feature: Tensor) -> Tensor:
    """A map [N, D, h, w] with the vector at each position at unit length.

    What is shorter than a millionth of the map's largest entry stays (nearly) zero, as its gradient would explode.
    """
    # Length does not change a direction, and without this may leave the range of its dtype.
    scale = feature.detach().abs().amax((1, 2, 3), keepdim=True)
    feature = feature / torch.where(scale > 1e-20, scale, 1.0)
    square = feature.square().sum(1, keepdim=True)
    return feature / torch.where(square > 1e-12, square, 1.0).sqrt()


def precision_of(feature: Tensor) -> torch.autocast:
    """Autocast to the half precision that a feature comes in, none for float32 and float64."""
    half = feature.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(feature.device.type, feature.dtype if half else None, enabled=half)


def built(adapter: Adapter | None) -> Adapter:
    """The adapter, which `prepare` must have built."""
    if adapter is None:
        raise ObjectiveError("this objective has weights of its own: call prepare(student, teacher, samples) first.")
    return adapter


def of_all_processes(value: Tensor) -> Tensor:
    """The values of all processes, in the order of their ranks; they may differ in length."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    length = torch.tensor([len(value)], device=value.device)
    lengths = [torch.empty_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    sizes = [int(size) for size in lengths]
    padded = torch.cat([value, value.new_zeros(max(sizes) - len(value), *value.shape[1:])])
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
