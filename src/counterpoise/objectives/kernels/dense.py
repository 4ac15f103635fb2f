"""The loss of dense outputs at full resolution: bilinear upsampling and the terms in one, equal to one after the other.

Eager mode writes the upsampled logits of both sides and some ten tensors of that size. The fast forms never hold more
than a strip (CPU) or a register tile (GPU) of them, and gather the gradient at the student's own resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.kernels import blocks, dense_strips
from counterpoise.objectives.kernels.dense_strips import taps
from counterpoise.objectives.kernels.function import Form, FusedLoss, covered, differentiated, fused
from counterpoise.objectives.kernels.mixture import Mixture, reference
from counterpoise.objectives.logits import check_device, may_be_out, widen


def dense_loss(
    mixture: Mixture,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    size: tuple[int, int],
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Total (scalar) and weighted terms [size of mixture] of logits that are upsampled to `size`.

    Args:
        mixture: what to compute; the order of terms is forward, reverse, labels.
        student: logits [N, C, h, w], float; half precision is interpolated in float32.
        teacher: logits [N, C, h2, w2], needed by the divergences; receives no gradient.
        target: int64 [N, H, W].
        weight: [N] or [N, H, W].
        size: (H, W) in pixels.
        align_corners: as in `torch.nn.functional.interpolate`.

    Raises:
        ObjectiveError: shapes that do not fit; a label outside the classes (on a GPU the loss is NaN then).
    """
    _check(mixture, student, teacher, target, size)
    result = dense_fused(mixture, student, teacher, target, weight, size, align_corners)
    if result is None:
        teacher = teacher if mixture.needs_teacher else None
        return dense_reference(mixture, student, teacher, target, weight, size, align_corners)
    return result


def dense_fused(
    mixture: Mixture,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    size: tuple[int, int],
    align_corners: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """As `dense_loss`, but None where no fast form applies."""
    _check(mixture, student, teacher, target, size)
    if not mixture.needs_teacher:
        teacher = None
    if all(logits is None or logits.shape[2:] == size for logits in (student, teacher)):
        return fused(mixture, student, teacher, target, weight)
    if not covered(mixture, student, teacher, target, weight, size):
        return None

    def plain(student: Tensor, teacher: Tensor | None, target: Tensor | None, weight: Tensor | None) -> Tensor:
        return dense_reference(mixture, student, teacher, target, weight, size, align_corners)[1]

    form = Form(partial(_compute, mixture, size, align_corners, plain), plain, keeps=True)
    total, values = FusedLoss.apply(student, teacher, target, weight, form)  # type: ignore[no-untyped-call]
    return total, values


def dense_reference(
    mixture: Mixture,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    size: tuple[int, int],
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `dense_loss`: upsample both sides, then `mixture.reference`. With reduction "none" of shape [N, H, W] each."""
    with torch.autocast(student.device.type, enabled=False):
        student = upsample(student, size, align_corners)
        teacher = None if teacher is None else upsample(teacher.detach(), size, align_corners)
        values = reference(mixture, student, teacher, target, weight)
    return values.sum(0), values


def _check(
    mixture: Mixture, student: Tensor, teacher: Tensor | None, target: Tensor | None, size: tuple[int, int]
) -> None:
    if student.ndim != 4:
        raise ObjectiveError(f"dense logits must be [N, C, h, w], got shape {list(student.shape)}.")
    check_device(student, "target", target)
    if mixture.needs_teacher:
        if teacher is None:
            raise ObjectiveError("this objective needs teacher logits, got none.")
        check_device(student, "teacher logits", teacher)
        if teacher.ndim != 4 or teacher.shape[:2] != student.shape[:2]:
            raise ObjectiveError(
                "class counts of student and teacher differ, or their samples: "
                f"logits {list(student.shape)} and {list(teacher.shape)}."
            )
    if target is None:
        if mixture.labels is not None:
            raise ObjectiveError("cross_entropy needs a target, got none.")
    elif mixture.needs_target and target.shape != (student.shape[0], *size):
        raise ObjectiveError(f"target must have shape {[student.shape[0], *size]}, got {list(target.shape)}.")


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Logits [N, C, h, w] as float32 (float64 stays) [N, C, *size], bilinear.

    A class is at -inf wherever any of the logits that a pixel lies between is.
    """
    logits = widen(logits)
    if logits.shape[2:] == size:
        return logits
    if not may_be_out(logits):
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    out = logits == -torch.inf
    filled = logits.masked_fill(out, 0.0)  # zero times -inf is NaN
    mixed = F.interpolate(filled, size=size, mode="bilinear", align_corners=align_corners)
    return mixed.masked_fill(_touched(out, size, align_corners), -torch.inf)


def _touched(out: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """bool [N, C, *size]: whether any of the places that a pixel lies between is out, of bool [N, C, h, w].

    From exact shares: those of an interpolation in float32 leave traces of places that a pixel does not lie near.
    """
    for axis, large in zip((2, 3), size, strict=True):
        first, second, share = taps(out.shape[axis], large, align_corners, torch.float32)
        first, second = first.to(out.device), torch.where(share > 0, second, first).to(out.device)
        out = out.index_select(axis, first) | out.index_select(axis, second)
    return out


def _compute(
    mixture: Mixture,
    size: tuple[int, int],
    align_corners: bool,
    plain: Callable[..., Tensor],
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    want_gradient: bool,
    scale: None,
) -> tuple[Tensor, Tensor | None]:
    rest = teacher, target, weight
    with torch.autocast(student.device.type, enabled=False), torch.no_grad():
        if student.is_cuda:
            from counterpoise.objectives.kernels import dense_gpu

            return dense_gpu.compute(mixture, student, *rest, size, align_corners, want_gradient)
        values, gradient = dense_strips.compute(mixture, student, *rest, size, align_corners, want_gradient)
        if not blocks.spoiled(mixture, values, gradient, weight, student, teacher):
            return values, gradient
        values, gradient = differentiated(lambda source: plain(source, *rest), student, want_gradient, scale)
        return values, None if gradient is None else widen(gradient)
