"""The GPU form: one Triton kernel reads the logits of both sides once and writes the gradient once.

A program takes a tile [ROWS, CLASSES] of positions and all their classes, wherever they lie: [N, C], [N, C, H, W] and
channels_last differ in strides alone. Sums are kept by program and added afterwards, so that they come out the same
each time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from counterpoise.objectives.kernels.layout import by_position, flat
from counterpoise.objectives.kernels.mixture import Inputs, Mixture
from counterpoise.objectives.kernels.terms_gpu import arguments, forward_term, label_term, reverse_term

TILE = 4096
"""Elements of a tile: several positions where classes are few."""


def compute(
    mixture: Mixture, inputs: Inputs, want_gradient: bool, scale: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """As `blocks.compute`, for logits in half precision or float32. A label outside the classes makes the loss NaN."""
    gradient = torch.empty_like(inputs.student) if want_gradient else None
    x, z, out = (None if logits is None else flat(logits) for logits in (inputs.student, inputs.teacher, gradient))
    assert x is not None
    samples, classes, width = x.shape
    count = samples * width
    target, weight, share = by_position(mixture, inputs, torch.empty((), dtype=torch.float32, device=x.device))
    target = None if target is None else target.contiguous()
    columns = triton.next_power_of_2(classes)
    # Few positions are spread over the whole device rather than gathered in few tiles.
    rows = max(1, min(TILE // columns, triton.next_power_of_2(triton.cdiv(count, 256)), 256))
    programs = triton.cdiv(count, rows)
    sums = torch.empty((mixture.size, programs), dtype=torch.float32, device=x.device)
    z_or_x = x if z is None else z
    out_or_x = x if out is None else out
    weight_strides = (0, 0) if weight is None else weight.stride()
    _kernel[(programs,)](
        x,
        z_or_x,
        out_or_x,
        x if target is None else target,
        x if weight is None else weight,
        share,
        share if scale is None else scale,
        sums,
        count,
        width,
        classes,
        programs,
        *x.stride(),
        *z_or_x.stride(),
        *out_or_x.stride(),
        *weight_strides,
        **arguments(mixture, target, weight),
        GRADIENT=out is not None,
        SCALED=scale is not None,
        ROWS=rows,
        CLASSES=columns,
        num_warps=min(16, max(4, rows * columns // 512)),
    )
    return sums.sum(1), gradient


def scale(gradient: Tensor, by: Tensor) -> Tensor:
    """`gradient` times the scalar `by`, in place. Its programs leave at once where that is 1: nobody waits to ask."""
    # Dense, since the gradient was made for dense logits: the order of its elements does not matter here.
    size = gradient.numel()
    _scale_kernel[(triton.cdiv(size, TILE),)](gradient, by, size, BLOCK=TILE)
    return gradient


@triton.jit  # type: ignore[untyped-decorator]
def _scale_kernel(gradient, by, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    factor = tl.load(by).to(tl.float32)
    if factor != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < size
        value = tl.load(gradient + at, mask=inside).to(tl.float32)
        tl.store(gradient + at, value * factor, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    student,
    teacher,
    gradient,
    target,
    weight,
    shares,
    scale,
    sums,
    count,
    width,
    classes,
    programs,
    x_sample,
    x_class,
    x_position,
    z_sample,
    z_class,
    z_position,
    g_sample,
    g_class,
    g_position,
    w_sample,
    w_position,
    forward_weight,
    forward_temperature,
    reverse_weight,
    reverse_temperature,
    label_weight,
    smoothing,
    ignore_index,
    label_ignore_index,
    FORWARD: tl.constexpr,  # noqa: N803
    REVERSE: tl.constexpr,  # noqa: N803
    LABELS: tl.constexpr,  # noqa: N803
    IGNORE: tl.constexpr,  # noqa: N803
    WEIGHTED: tl.constexpr,  # noqa: N803
    GRADIENT: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    CLASSES: tl.constexpr,  # noqa: N803
):
    # Notation and formulas as in blocks._block.
    program = tl.program_id(0)
    position = program * ROWS + tl.arange(0, ROWS)
    inside = position < count
    sample = (position // width).to(tl.int64)
    place = (position % width).to(tl.int64)
    column = tl.arange(0, CLASSES)
    mask = inside[:, None] & (column < classes)[None, :]
    at = column.to(tl.int64)[None, :]
    x = tl.load(student + (sample * x_sample + place * x_position)[:, None] + at * x_class, mask=mask, other=0.0)
    x = tl.where(mask, x.to(tl.float32), float("-inf"))
    # Rows beyond the end hold zeros, so that no infinity meets another.
    x = tl.where(inside[:, None], x, 0.0)
    counted = tl.where(inside, 1.0, 0.0)
    if WEIGHTED:
        counted = tl.load(weight + sample * w_sample + place * w_position, mask=inside, other=0.0).to(tl.float32)
    if LABELS or IGNORE:
        label = tl.load(target + position, mask=inside, other=0)
    factor = 1.0
    if SCALED:
        factor = tl.load(scale).to(tl.float32)
    total = tl.zeros((ROWS, CLASSES), dtype=tl.float32)
    row = 0
    if FORWARD or REVERSE:
        share = tl.load(shares)
        z = tl.load(teacher + (sample * z_sample + place * z_position)[:, None] + at * z_class, mask=mask, other=0.0)
        z = tl.where(mask, z.to(tl.float32), float("-inf"))
        # A class at -inf on either side is left out of both; where none remains, nothing differs.
        kept = mask & (x > float("-inf")) & (z > float("-inf"))
        some = tl.max(tl.where(kept, 1, 0), axis=1) > 0
        z = tl.where(some[:, None], tl.where(kept, z, float("-inf")), 0.0)
        y = tl.where(some[:, None], tl.where(kept, x, float("-inf")), 0.0)
        z = z - tl.max(z, axis=1)[:, None]
        y = y - tl.max(y, axis=1)[:, None]
        d = tl.where(kept, z, 0.0) - tl.where(kept, y, 0.0)
        each = counted
        if IGNORE:
            each = tl.where(label == ignore_index, 0.0, counted)
        if FORWARD:
            value, total = forward_term(
                total, y, z, d, each, share, factor, forward_weight, forward_temperature, GRADIENT
            )
            tl.store(sums + row * programs + program, tl.sum(value, axis=0))
            row += 1
        if REVERSE:
            value, total = reverse_term(
                total, y, z, d, each, share, factor, reverse_weight, reverse_temperature, GRADIENT
            )
            tl.store(sums + row * programs + program, tl.sum(value, axis=0))
            row += 1
    if LABELS:
        share = tl.load(shares + 1)
        each = tl.where(label == label_ignore_index, 0.0, counted)
        x = tl.where((each == 0.0)[:, None], 0.0, x)  # what is not counted may be at -inf in all classes
        x = x - tl.max(x, axis=1)[:, None]
        likely = mask & (x > float("-inf"))
        hit = (column[None, :] == label[:, None]) & mask
        wrong = inside & ((label < 0) | (label >= classes)) & (label != label_ignore_index)
        value, total = label_term(total, x, likely, hit, each, wrong, share, factor, label_weight, smoothing, GRADIENT)
        tl.store(sums + row * programs + program, tl.sum(value, axis=0))
    if GRADIENT:
        where = gradient + (sample * g_sample + place * g_position)[:, None] + at * g_class
        tl.store(where, total, mask=mask)
