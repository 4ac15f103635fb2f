"""The fast forms as one autograd function, and the rule that says where they apply."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from counterpoise.objectives.kernels import blocks, dense_strips, small
from counterpoise.objectives.kernels.layout import flat
from counterpoise.objectives.kernels.mixture import Inputs, Mixture, reference
from counterpoise.objectives.logits import widen

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def fused(mixture: Mixture, inputs: Inputs) -> tuple[Tensor, Tensor] | None:
    """Total (scalar) and weighted terms [size] of `mixture`, or None where no fast form applies.

    The order of terms is forward, reverse, labels.

    Raises:
        ObjectiveError: a label outside the classes (on a GPU the loss is NaN then).
    """
    if not mixture.needs_teacher:
        inputs = inputs._replace(teacher=None)
    if all(logits is None or logits.shape[2:] == inputs.size for logits in inputs[:2]):
        inputs = inputs._replace(size=None)
    if not covered(mixture, inputs):
        return None
    total, values = FusedLoss.apply(inputs.student, mixture, inputs)  # type: ignore[no-untyped-call]
    return total, values


def covered(mixture: Mixture, inputs: Inputs) -> bool:
    """Whether a fast form is there, worthwhile, and computes exactly what the reference would, errors included."""
    # Who compiles or transforms the whole step has better use for the plain form.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if mixture.reduction == "none" or not mixture.plain or mixture.size == 0:
        return False
    student, teacher, target, weight, size = inputs
    logits = [side for side in (student, teacher if mixture.needs_teacher else None) if side is not None]
    if len(logits) < 1 + mixture.needs_teacher or not _fit(logits, size):
        return False
    target = target if mixture.needs_target else None
    if target is None and mixture.labels is not None:
        return False
    if target is not None and (target.dtype != torch.int64 or target.shape != inputs.positions):
        return False
    if weight is not None and (weight.requires_grad or weight.shape not in (inputs.positions, inputs.positions[:1])):
        return False
    used = [*logits, *(one for one in (target, weight) if one is not None)]
    if any(type(tensor) not in (Tensor, Parameter) or tensor.device != student.device for tensor in used):
        return False
    dtypes = {side.dtype for side in logits}
    if not dtypes <= FLOATS or (torch.float64 in dtypes and len(dtypes) > 1):
        return False
    if student.is_cuda:
        if not triton_present() or torch.float64 in dtypes:
            return False
        from counterpoise.objectives.kernels import terms_gpu

        return student.shape[1] <= terms_gpu.MOST_CLASSES
    if student.device.type != "cpu":
        return False
    if student.shape[1] * math.prod(inputs.positions) >= blocks.WORTHWHILE_FROM:
        return True
    return size is None and small.counts_all(mixture, inputs)


def _fit(logits: list[Tensor], size: tuple[int, int] | None) -> bool:
    """Whether the shapes of both sides are those of a fast form: alike, or of maps that are upsampled to `size`."""
    shape = logits[0].shape
    if any(side.numel() == 0 for side in logits):
        return False
    if size is None:
        return len(shape) >= 2 and all(side.shape == shape and flat(side) is not None for side in logits)
    # Upsampling alone: a loss at lower resolution has little to save.
    return all(
        side.ndim == 4 and side.shape[:2] == shape[:2] and side.shape[2] <= size[0] and side.shape[3] <= size[1]
        for side in logits
    )


@cache
def triton_present() -> bool:
    """Whether Triton, an optional extra, is installed."""
    return importlib.util.find_spec("triton") is not None


def _gpu_form(size: tuple[int, int] | None) -> Any:
    return importlib.import_module(f"counterpoise.objectives.kernels.{'gpu' if size is None else 'dense_gpu'}")


class FusedLoss(torch.autograd.Function):
    """Computes the gradient beside the loss, so that one buffer of the logits' size is all that is kept."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, mixture: Mixture, inputs: Inputs) -> tuple[Tensor, Tensor]:
        teacher = None if inputs.teacher is None else inputs.teacher.detach()
        inputs = inputs._replace(student=student.detach(), teacher=teacher)
        # float16 waits for the loss scale: without it, its gradient would vanish before it is scaled. That of logits
        # that are upsampled is kept in float32, which at the student's own resolution is cheap.
        early = ctx.needs_input_grad[0] and (inputs.size is not None or student.dtype != torch.float16)
        values, ctx.gradient = _compute(mixture, inputs, early)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(student)
            # Not saved as the student is: the teacher may come from inference mode, and takes no gradient.
            ctx.mixture, ctx.inputs = mixture, inputs
        ctx.set_materialize_grads(False)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, of_total: Tensor | None, of_values: Tensor | None) -> tuple[Tensor | None, None, None]:
        (student,) = ctx.saved_tensors
        gradient: Tensor | None = None
        if of_values is not None or torch.is_grad_enabled():  # single terms, or a gradient of the gradient
            given = ctx.inputs._replace(student=student)
            _, gradient = _by_reference(ctx.mixture, given, of_total, of_values, torch.is_grad_enabled())
        elif of_total is None:
            pass
        elif ctx.inputs.size is not None:  # scaled before it is rounded: in float16 it might vanish otherwise
            gradient = (ctx.gradient * of_total).to(student.dtype)
        elif ctx.gradient is not None:
            gradient = _scale(ctx.gradient, of_total)
        else:  # float16, or backward for a second time
            _, gradient = _compute(ctx.mixture, ctx.inputs, True, of_total)
        if ctx.inputs.size is None:  # which may have been scaled in place
            ctx.gradient = None
        return gradient, None, None


def _compute(
    mixture: Mixture, inputs: Inputs, want_gradient: bool, scale: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The weighted terms, and `scale` (1) times the gradient of their sum."""
    with torch.autocast(inputs.student.device.type, enabled=False), torch.no_grad():
        rest = () if inputs.size is not None else (scale,)
        if inputs.student.is_cuda:
            found: tuple[Tensor, Tensor | None] = _gpu_form(inputs.size).compute(mixture, inputs, want_gradient, *rest)
            return found
        if inputs.size is not None:
            values, gradient = dense_strips.compute(mixture, inputs, want_gradient)
        elif inputs.student.numel() < blocks.WORTHWHILE_FROM:
            values, gradient = small.compute(mixture, inputs, want_gradient, scale)
        else:
            values, gradient = blocks.compute(mixture, inputs, want_gradient, scale)
        if not blocks.spoiled(mixture, inputs, values, gradient):
            return values, gradient
        if not want_gradient:
            return reference(mixture, inputs), None
        values, gradient = _by_reference(mixture, inputs, values.new_ones(()) if scale is None else scale)
        return values, gradient if inputs.size is None else widen(gradient)


def _by_reference(
    mixture: Mixture, inputs: Inputs, of_total: Tensor | None, of_values: Tensor | None = None, again: bool = False
) -> tuple[Tensor, Tensor]:
    """The terms, and the student's gradient from those of the total and of each term; `again`: to be derived, too."""
    with torch.enable_grad():
        source = inputs.student if again else inputs.student.detach().requires_grad_()
        values = reference(mixture, inputs._replace(student=source))
        loss = values.new_zeros(())
        if of_total is not None:
            loss = loss + values.sum() * of_total
        if of_values is not None:
            loss = loss + (values * of_values).sum()
        return values.detach(), torch.autograd.grad(loss, source, create_graph=again)[0]


def _scale(gradient: Tensor, by: Tensor) -> Tensor:
    """`gradient`, which is ours alone, times `by` in place; nothing to do where that is 1."""
    if torch._C._functorch.is_legacy_batchedtensor(by):  # many gradients at once
        return gradient * by
    if gradient.is_cuda:
        from counterpoise.objectives.kernels import gpu

        return gpu.scale(gradient, by)
    return gradient if by.item() == 1.0 else gradient.mul_(by)
