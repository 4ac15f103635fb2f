"""The CPU form: blocks of positions that stay in cache, gradients in closed form, compiled for whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.kernels.compiling import Block
from counterpoise.objectives.kernels.layout import by_position, flat
from counterpoise.objectives.kernels.mixture import Inputs, Mixture
from counterpoise.objectives.logits import may_be_out

# Measured on two cores: smaller blocks cost calls and waits of one thread for another, larger ones leave the cache.
PLAIN_ELEMENTS = 2**16
COMPILED_ELEMENTS = 2**18
# Below, what counts is the number of calls: see small.py.
WORTHWHILE_FROM = 2**16
# Compiling saves about 8 ns an element: at this size what it takes is won back in a short run.
# A rule by size alone, so that a run that was stopped goes on with the same bits.
COMPILE_FROM = 10**6


def computed(
    mixture: Mixture, elements: int, share: Tensor, scale: Tensor | None = None
) -> tuple[Callable[..., Tensor], int]:
    """How blocks of logits with so many elements in all are computed, and how many elements a block has at most.

    What is called takes student, teacher, target, weight and where the gradient goes, as `_block`, and gives the sums.
    """
    block: Block = _block
    limit = PLAIN_ELEMENTS
    if mixture.compiler is not None and elements >= COMPILE_FROM:
        block, limit = partial(mixture.compiler.run, _block), COMPILED_ELEMENTS
    scaled = share if scale is None else share * scale.to(share.dtype)
    scalars = torch.cat([_scalars(mixture, share.dtype), share, scaled])
    label_ignore = None if mixture.labels is None else mixture.labels.ignore_index
    rest = scalars, (mixture.forward is not None, mixture.reverse is not None), mixture.ignore_index, label_ignore
    return lambda *logits_and_more: block(*logits_and_more, *rest).flatten(1).sum(1), limit


def compute(
    mixture: Mixture, inputs: Inputs, want_gradient: bool, scale: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The weighted terms [size], and `scale` (1) times the gradient of their sum, in the student's dtype and layout.

    Args:
        mixture: what to compute.
        inputs: logits whose `layout.flat` exists.
        want_gradient: whether the gradient is wanted.
        scale: scalar, gradient of what comes after.

    Raises:
        ObjectiveError: a label outside the classes.
    """
    gradient = torch.empty_like(inputs.student) if want_gradient else None
    x, z, out = (None if logits is None else flat(logits) for logits in (inputs.student, inputs.teacher, gradient))
    assert x is not None
    classes, width = x.shape[1:]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    target, weight, share = by_position(mixture, inputs, torch.empty((), dtype=dtype))
    if x.stride(1) == 1 and width > 1 and all(v is None or v.stride(0) == width * v.stride(2) for v in (x, z, out)):
        # Classes innermost (channels_last): rows of one table.
        x, z, out = (None if v is None else _rows(v) for v in (x, z, out))
        target, weight = (None if v is None else v.reshape(-1, 1) for v in (target, weight))
        assert x is not None
    block, limit = computed(mixture, x.numel(), share, scale)
    sums = []
    for rows, columns in _cuts(x.shape[0], x.shape[2], max(1, limit // classes)):
        logits = (None if v is None else v[rows, :, columns] for v in (x, z))
        rest = (None if v is None else v[rows, columns] for v in (target, weight))
        sums.append(block(*logits, *rest, None if out is None else out[rows, :, columns]))
    return summed(mixture, sums, classes), gradient


def summed(mixture: Mixture, sums: list[Tensor], classes: int) -> Tensor:
    """What blocks give, added up: [size]. Raises ObjectiveError where they found labels outside the classes."""
    total = torch.stack(sums).sum(0)
    if mixture.labels is None:
        return total
    if total[-1] > 0:
        expected = f"0 to {classes - 1}, or {mixture.labels.ignore_index}, which is ignored"
        raise ObjectiveError(f"{int(total[-1])} labels are not among the {classes} classes: expected {expected}.")
    return total[:-1]


def spoiled(mixture: Mixture, inputs: Inputs, values: Tensor, gradient: Tensor | None) -> bool:
    """Whether classes at -inf, which blocks know nothing of, have made these values or this gradient what they are not.

    A value says so itself, but for positions that do not count, which may have spoiled the gradient alone.
    """
    unseen = mixture.needs_teacher and (mixture.ignore_index is not None or inputs.weight is not None)
    finite = values.sum().isfinite() and not (
        unseen and gradient is not None and not gradient.sum(dtype=values.dtype).isfinite()
    )
    return not finite and any(logits is not None and may_be_out(logits) for logits in inputs[:2])


def _block(
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    out: Tensor | None,
    scalars: Tensor,
    plan: tuple[bool, bool],
    ignore_index: int | None,
    label_ignore_index: int | None,
) -> Tensor:
    """The terms at each position of one block [N, C, P], as [size, N, 1, P]; the gradient goes to `out`.

    With x, z the logits of student and teacher less their maxima, d = z - x, q and p their softened probabilities and
    m = sum q d: gradient of forward KL tau (q - p), of reverse KL q (m - d), of cross-entropy q - target.
    All numbers come in one tensor, since a compiled form would be made anew for each value of a schedule.
    """
    a, cold_f, b, cold_r, c, smooth, share_d, share_l, scaled_d, scaled_l = scalars.unbind()
    forward, reverse = plan
    x = student.to(scalars.dtype)
    x = x - x.amax(1, keepdim=True)
    counted = scalars.new_ones(()) if weight is None else weight.to(scalars.dtype).unsqueeze(1)
    label = None if target is None else target.unsqueeze(1)
    values = []
    gradient = None
    if teacher is not None and (forward or reverse):
        z = teacher.to(scalars.dtype)
        z = z - z.amax(1, keepdim=True)
        d = z - x
        each = counted if ignore_index is None or label is None else torch.where(label == ignore_index, 0.0, counted)
        if forward:
            q, p = torch.exp(x * cold_f), torch.exp(z * cold_f)
            q_sum, p_sum = q.sum(1, keepdim=True), p.sum(1, keepdim=True)
            value = (p * d).sum(1, keepdim=True) / (p_sum * cold_f) + (q_sum.log() - p_sum.log()) / cold_f**2
            values.append(_counted(value, each, share_d * a))
            if out is not None:
                factor = each * (scaled_d * a / cold_f)
                gradient = q * (factor / q_sum) - p * (factor / p_sum)
        if reverse:
            q, p_sum = torch.exp(x * cold_r), torch.exp(z * cold_r).sum(1, keepdim=True)
            q_sum = q.sum(1, keepdim=True)
            m = (q * d).sum(1, keepdim=True) / q_sum
            value = (p_sum.log() - q_sum.log()) / cold_r**2 - m / cold_r
            values.append(_counted(value, each, share_d * b))
            if out is not None:
                part = q * (m - d) * (each * (scaled_d * b) / q_sum)
                gradient = part if gradient is None else gradient + part
    if label is not None and label_ignore_index is not None:
        each = torch.where(label == label_ignore_index, 0.0, counted)
        q = torch.exp(x)
        q_sum = q.sum(1, keepdim=True)
        # Compared, not scattered: compiled scatters have lost the labels' gradient.
        hit = torch.arange(x.shape[1], device=x.device).reshape(1, -1, 1) == label
        right = torch.where(hit, x, 0.0).sum(1, keepdim=True)
        value = q_sum.log() - (1 - smooth) * right - torch.where(smooth > 0, smooth * x.mean(1, keepdim=True), 0.0)
        values.append(_counted(value, each, share_l * c))
        # One more, for the caller to look at: how many labels are none.
        wrong = ((label < 0) | (label >= x.shape[1])) & (label != label_ignore_index)
        values.append(wrong.to(x.dtype))
        if out is not None:
            part = (q / q_sum - hit * (1 - smooth) - smooth / x.shape[1]) * (each * (scaled_l * c))
            gradient = part if gradient is None else gradient + part
    if out is not None and gradient is not None:
        out.copy_(gradient)
    return torch.stack(values)


def _counted(value: Tensor, each: Tensor, factor: Tensor) -> Tensor:
    # Not a product with zero alone: an ignored position may hold anything.
    return torch.where(each == 0, 0.0, value * each) * factor


def _scalars(mixture: Mixture, dtype: torch.dtype) -> Tensor:
    numbers = []
    for divergence in (mixture.forward, mixture.reverse):
        numbers += [0.0, 1.0] if divergence is None else [divergence.weight, 1 / divergence.temperature]
    numbers += [0.0, 0.0] if mixture.labels is None else [mixture.labels.weight, mixture.labels.smoothing]
    return torch.tensor(numbers, dtype=dtype)


def _rows(view: Tensor) -> Tensor:
    samples, classes, width = view.shape
    return view.as_strided((samples * width, classes, 1), (view.stride(2), view.stride(1), 1))


def _cuts(samples: int, width: int, positions: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of about `positions`, alike in size: whole samples where they are small, else pieces of one."""
    if width <= positions:
        for rows in pieces(samples, max(1, positions // width)):
            yield rows, slice(0, width)
        return
    for sample in range(samples):
        for columns in pieces(width, positions):
            yield slice(sample, sample + 1), columns


def pieces(length: int, most: int) -> Iterator[slice]:
    count = -(-length // most)
    for piece in range(count):
        yield slice(piece * length // count, (piece + 1) * length // count)
