"""The fast forms as one autograd function, and the rule that says where they apply."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from counterpoise.objectives.kernels import blocks, small
from counterpoise.objectives.kernels.layout import flat
from counterpoise.objectives.kernels.mixture import Mixture, reference

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32, torch.float64)


def fused(
    mixture: Mixture, student: Tensor, teacher: Tensor | None, target: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Total (scalar) and weighted terms [size] of `mixture`, or None where no fast form applies.

    Args:
        mixture: what to compute; the order of terms is forward, reverse, labels.
        student: logits [N, C, ...].
        teacher: logits of the same shape; receives no gradient.
        target: int64 [N, ...].
        weight: [N] or [N, ...].

    Raises:
        ObjectiveError: a label outside the classes (on a GPU the loss is NaN then).
    """
    if not covered(mixture, student, teacher, target, weight):
        return None
    total, values = _Fused.apply(student, teacher, target, weight, mixture)  # type: ignore[no-untyped-call]
    return total, values


def covered(
    mixture: Mixture, student: Tensor, teacher: Tensor | None, target: Tensor | None, weight: Tensor | None
) -> bool:
    """Whether a fast form is there, worthwhile, and computes exactly what the reference would, errors included."""
    # Who compiles or transforms the whole step has better use for the plain form.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    used = [student]
    if mixture.needs_teacher:
        if teacher is None or teacher.shape != student.shape:
            return False
        used.append(teacher)
    positions = student.shape[:1] + student.shape[2:]
    if mixture.needs_target and target is not None:
        if target.dtype != torch.int64 or target.shape != positions:
            return False
        used.append(target)
    elif mixture.labels is not None:
        return False
    if weight is not None:
        if weight.requires_grad or weight.shape not in (positions, positions[:1]):
            return False
        used.append(weight)
    if student.ndim < 2 or student.numel() == 0 or mixture.size == 0:
        return False
    if mixture.reduction == "none" or not mixture.plain:
        return False
    if any(type(tensor) not in (Tensor, Parameter) or tensor.device != student.device for tensor in used):
        return False
    dtypes = {logits.dtype for logits in used[: 1 + mixture.needs_teacher]}
    if not dtypes <= set(FLOATS) or (torch.float64 in dtypes and len(dtypes) > 1):
        return False
    if any(flat(logits) is None for logits in used[: 1 + mixture.needs_teacher]):
        return False
    if student.is_cuda:
        if not triton_present() or torch.float64 in dtypes:
            return False
        from counterpoise.objectives.kernels import gpu

        return student.shape[1] <= gpu.MOST_CLASSES
    if student.device.type != "cpu":
        return False
    return student.numel() >= blocks.WORTHWHILE_FROM or small.counts_all(mixture, target, weight, student.shape[1])


@cache
def triton_present() -> bool:
    """Whether Triton, an optional extra, is installed."""
    return importlib.util.find_spec("triton") is not None


class _Fused(torch.autograd.Function):
    """Computes the gradient beside the loss, so that one buffer of the logits' size is all that is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor | None,
        target: Tensor | None,
        weight: Tensor | None,
        mixture: Mixture,
    ) -> tuple[Tensor, Tensor]:
        # float16 waits for the loss scale: without it, its gradient would vanish before it is scaled.
        early = ctx.needs_input_grad[0] and student.dtype != torch.float16
        teacher = None if teacher is None else teacher.detach()
        values, ctx.gradient = _compute(mixture, student.detach(), teacher, target, weight, early)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(student)
            # Not saved as the student is: it may come from inference mode, and takes no gradient.
            ctx.rest = (teacher, target, weight)
            ctx.mixture = mixture
        ctx.set_materialize_grads(False)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, of_total: Tensor | None, of_values: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if of_values is not None or torch.is_grad_enabled():  # single terms, or a gradient of the gradient
            gradient = _by_reference(ctx, of_total, of_values)
        elif of_total is None:
            gradient = None
        elif gradient is not None:
            gradient = _scale(gradient, of_total)
        else:  # float16, or backward for a second time
            (student,) = ctx.saved_tensors
            teacher, target, weight = ctx.rest
            _, gradient = _compute(ctx.mixture, student.detach(), teacher, target, weight, True, of_total)
        return gradient, None, None, None, None


def _compute(
    mixture: Mixture,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    want_gradient: bool,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    teacher = teacher if mixture.needs_teacher else None
    with torch.autocast(student.device.type, enabled=False), torch.no_grad():
        if student.is_cuda:
            from counterpoise.objectives.kernels import gpu

            return gpu.compute(mixture, student, teacher, target, weight, want_gradient, scale)
        if student.numel() < blocks.WORTHWHILE_FROM:
            values, gradient = small.compute(mixture, student, teacher, target, want_gradient, scale)
        else:
            values, gradient = blocks.compute(mixture, student, teacher, target, weight, want_gradient, scale)
        if not blocks.spoiled(mixture, values, gradient, weight, student, teacher):
            return values, gradient
        return differentiated(
            lambda source: reference(mixture, source, teacher, target, weight), student, want_gradient, scale
        )


def differentiated(
    compute: Callable[[Tensor], Tensor], student: Tensor, want_gradient: bool, scale: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The values that `compute` gives for the student's logits, and `scale` (1) times the gradient of their sum."""
    with torch.enable_grad():
        source = student.detach().requires_grad_(want_gradient)
        values = compute(source)
        total = values.sum() if scale is None else values.sum() * scale
        gradient = torch.autograd.grad(total, source)[0] if want_gradient else None
    return values.detach(), gradient


def _scale(gradient: Tensor, by: Tensor) -> Tensor:
    """`gradient`, which is ours alone, times `by` in place; nothing to do where that is 1."""
    if torch._C._functorch.is_legacy_batchedtensor(by):  # many gradients at once
        return gradient * by
    if gradient.is_cuda:
        from counterpoise.objectives.kernels import gpu

        return gpu.scale(gradient, by)
    return gradient if by.item() == 1.0 else gradient.mul_(by)


def _by_reference(ctx: Any, of_total: Tensor | None, of_values: Tensor | None) -> Tensor | None:
    (student,) = ctx.saved_tensors
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(student.device.type, enabled=False):
        source = student if again else student.detach().requires_grad_()
        values = reference(ctx.mixture, source, *ctx.rest)
        loss = values.new_zeros(())
        if of_total is not None:
            loss = loss + values.sum() * of_total
        if of_values is not None:
            loss = loss + (values * of_values).sum()
        gradient: Tensor = torch.autograd.grad(loss, source, create_graph=again)[0]
    return gradient
