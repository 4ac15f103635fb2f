"""The fast forms as one autograd function, and the rule that says where they apply."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

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
    form = Form(partial(_compute, mixture), partial(reference, mixture), keeps=False)
    total, values = FusedLoss.apply(student, teacher, target, weight, form)  # type: ignore[no-untyped-call]
    return total, values


def covered(
    mixture: Mixture,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    size: tuple[int, int] | None = None,
) -> bool:
    """Whether a fast form is there, worthwhile, and computes exactly what the reference would, errors included.

    `size`: height and width to which logits [N, C, h, w] of either side are upsampled first.
    """
    # Who compiles or transforms the whole step has better use for the plain form.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if student.ndim < 2 or mixture.size == 0 or mixture.reduction == "none" or not mixture.plain:
        return False
    logits = [student]
    if mixture.needs_teacher:
        if teacher is None or (size is None and teacher.shape != student.shape):
            return False
        logits.append(teacher)
    positions = (student.shape[0], *(student.shape[2:] if size is None else size))
    elements = math.prod(positions) * student.shape[1]
    if elements == 0 or any(side.numel() == 0 for side in logits):
        return False
    # Upsampling alone: a loss at lower resolution has little to save.
    if size is not None and any(side.shape[2] > size[0] or side.shape[3] > size[1] for side in logits):
        return False
    if size is None and any(flat(side) is None for side in logits):
        return False
    used = list(logits)
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
    if any(type(tensor) not in (Tensor, Parameter) or tensor.device != student.device for tensor in used):
        return False
    dtypes = {side.dtype for side in logits}
    if not dtypes <= set(FLOATS) or (torch.float64 in dtypes and len(dtypes) > 1):
        return False
    if student.is_cuda:
        if not triton_present() or torch.float64 in dtypes:
            return False
        from counterpoise.objectives.kernels import terms_gpu

        return student.shape[1] <= terms_gpu.MOST_CLASSES
    if student.device.type != "cpu":
        return False
    if elements >= blocks.WORTHWHILE_FROM:
        return True
    return size is None and small.counts_all(mixture, target, weight, student.shape[1])


@cache
def triton_present() -> bool:
    """Whether Triton, an optional extra, is installed."""
    return importlib.util.find_spec("triton") is not None


class Form(NamedTuple):
    """A fast form and its reference, of student, teacher, target and weight.

    Attributes:
        compute: (..., want_gradient, scale) -> values [size], gradient of their sum times `scale` (1), or None.
        reference: the values in plain PyTorch, differentiable any times.
        keeps: the gradient is small and in float32, kept and scaled before it is rounded; else it has the student's
            size and dtype, and is given away.
    """

    compute: Callable[..., tuple[Tensor, Tensor | None]]
    reference: Callable[..., Tensor]
    keeps: bool


class FusedLoss(torch.autograd.Function):
    """Computes the gradient beside the loss, so that one buffer of the logits' size is all that is kept."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor | None, target: Tensor | None, weight: Tensor | None, form: Form
    ) -> tuple[Tensor, Tensor]:
        # float16 waits for the loss scale: without it, its gradient would vanish before it is scaled.
        early = ctx.needs_input_grad[0] and (form.keeps or student.dtype != torch.float16)
        teacher = None if teacher is None else teacher.detach()
        values, ctx.gradient = form.compute(student.detach(), teacher, target, weight, early, None)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(student)
            # Not saved as the student is: it may come from inference mode, and takes no gradient.
            ctx.rest = (teacher, target, weight)
            ctx.form = form
        ctx.set_materialize_grads(False)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, of_total: Tensor | None, of_values: Tensor | None) -> tuple[Tensor | None, ...]:
        (student,) = ctx.saved_tensors
        gradient: Tensor | None = None
        if of_values is not None or torch.is_grad_enabled():  # single terms, or a gradient of the gradient
            gradient = _by_reference(ctx, student, of_total, of_values)
        elif of_total is not None and ctx.form.keeps:
            gradient = (ctx.gradient * of_total).to(student.dtype)
        elif of_total is not None and ctx.gradient is not None:
            gradient, ctx.gradient = _scale(ctx.gradient, of_total), None
        elif of_total is not None:  # float16, or backward for a second time
            _, gradient = ctx.form.compute(student.detach(), *ctx.rest, True, of_total)
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


def _by_reference(ctx: Any, student: Tensor, of_total: Tensor | None, of_values: Tensor | None) -> Tensor:
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(student.device.type, enabled=False):
        source = student if again else student.detach().requires_grad_()
        values = ctx.form.reference(source, *ctx.rest)
        loss = values.new_zeros(())
        if of_total is not None:
            loss = loss + values.sum() * of_total
        if of_values is not None:
            loss = loss + (values * of_values).sum()
        gradient: Tensor = torch.autograd.grad(loss, source, create_graph=again)[0]
    return gradient
