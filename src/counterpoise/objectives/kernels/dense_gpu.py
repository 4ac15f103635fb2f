"""The GPU form of the dense loss: one Triton kernel, a program for some cells of the student's low-resolution logits.

A cell is all pixels between the same four neighbors. Its program holds the neighbors' logits, walks over the pixels,
and gathers the gradient of each corner in registers; corners are stored apart and added afterwards. So nothing of full
resolution is read or written but target and weight, and without atomic additions the sums come out the same each time.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from counterpoise.objectives.kernels.layout import by_position
from counterpoise.objectives.kernels.mixture import Inputs, Mixture
from counterpoise.objectives.kernels.terms_gpu import arguments, forward_term, label_term, reverse_term
from counterpoise.objectives.kernels.upsampling import taps

TILE = 512
"""Elements of a tile: several cells where classes are few, as many as registers hold beside their gradients."""


def compute(mixture: Mixture, inputs: Inputs, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """As `dense_strips.compute`, in half precision or float32. A label outside the classes makes the loss NaN."""
    student, size = inputs.student, inputs.size
    assert size is not None
    samples, classes, low_height, low_width = student.shape
    height, width = size
    device = student.device
    target, weight, share = by_position(mixture, inputs, torch.empty((), dtype=torch.float32, device=device))
    target = None if target is None else target.contiguous()
    columns = triton.next_power_of_2(classes)
    cells = max(1, min(TILE // columns, triton.next_power_of_2(low_width)))
    tiles = triton.cdiv(low_width, cells)
    programs = samples * low_height * tiles
    sums = torch.empty((mixture.size, programs), dtype=torch.float32, device=device)
    corners = torch.empty((4, *student.shape) if want_gradient else (0, 0, 0, 0, 0), dtype=torch.float32, device=device)
    _, row_shares = _places(low_height, height, device)
    _, column_shares = _places(low_width, width, device)
    z = student if inputs.teacher is None else inputs.teacher
    z_rows, z_row_shares = _places(z.shape[2], height, device)
    z_columns, z_column_shares = _places(z.shape[3], width, device)
    _kernel[(programs,)](
        student,
        z,
        corners,
        student if target is None else target,
        student if weight is None else weight,
        share,
        sums,
        _starts(low_height, height, device),
        _starts(low_width, width, device),
        row_shares,
        column_shares,
        z_rows,
        z_columns,
        z_row_shares,
        z_column_shares,
        height,
        width,
        low_height,
        low_width,
        z.shape[2],
        z.shape[3],
        classes,
        tiles,
        programs,
        *student.stride(),
        *z.stride(),
        *corners.stride(),
        *((0, 0) if weight is None else weight.stride()),
        **arguments(mixture, target, weight),
        GRADIENT=want_gradient,
        ALIKE=z.shape[2:] == student.shape[2:],
        CELLS=cells,
        CLASSES=columns,
        num_warps=min(16, max(4, cells * columns // 128)),
    )
    gradient = None
    if want_gradient:
        # The far corners of the last cells hold nothing: their pixels lie on the edge.
        gradient = corners[0]
        gradient[..., 1:] += corners[1, ..., :-1]
        gradient[..., 1:, :] += corners[2, ..., :-1, :]
        gradient[..., 1:, 1:] += corners[3, ..., :-1, :-1]
    return sums.sum(1), gradient


@lru_cache(256)
def _places(small: int, large: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First neighbor int32 [large] of each place, and the share [large] of the second. Kept: copies would wait."""
    first, _, share = taps(small, large, torch.float32)
    return first.int().to(device), share.to(device)


@lru_cache(256)
def _starts(small: int, large: int, device: torch.device) -> Tensor:
    """int32 [small + 1]: where each cell's places begin."""
    first, _, _ = taps(small, large, torch.float32)
    return torch.searchsorted(first, torch.arange(small + 1)).int().to(device)


@triton.jit
def _corner(logits, down, right, mask, row_stride, column_stride, at):  # type: ignore[no-untyped-def]
    where = logits + (down * row_stride + right * column_stride)[:, None] + at
    value = tl.load(where, mask=mask, other=0.0).to(tl.float32)
    # Zero times -inf is NaN: by a number in its place, which shows however little of it there is.
    return tl.where(value == float("-inf"), -1e30, value)


@triton.jit
def _shifted(mixed, kept, inside):  # type: ignore[no-untyped-def]
    # Cells beyond the end, and those without any class, hold zeros, so that no infinity meets another.
    some = inside & (tl.max(tl.where(kept, 1, 0), axis=1) > 0)
    mixed = tl.where(some[:, None], tl.where(kept, mixed, float("-inf")), 0.0)
    return mixed - tl.max(mixed, axis=1)[:, None]


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    student,
    teacher,
    corners,
    target,
    weight,
    shares,
    sums,
    row_starts,
    column_starts,
    row_shares,
    column_shares,
    z_rows,
    z_columns,
    z_row_shares,
    z_column_shares,
    height,
    width,
    low_height,
    low_width,
    z_height,
    z_width,
    classes,
    tiles,
    programs,
    x_sample,
    x_class,
    x_row,
    x_column,
    z_sample,
    z_class,
    z_row,
    z_column,
    c_corner,
    c_sample,
    c_class,
    c_row,
    c_column,
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
    ALIKE: tl.constexpr,  # noqa: N803
    CELLS: tl.constexpr,  # noqa: N803
    CLASSES: tl.constexpr,  # noqa: N803
):
    # Notation and formulas as in blocks._block and gpu._kernel; 0 and 1 are the neighbors above and below, a and b
    # those left and right.
    program = tl.program_id(0)
    row = (program // tiles) % low_height
    sample = (program // tiles // low_height).to(tl.int64)
    cell = (program % tiles) * CELLS + tl.arange(0, CELLS)
    real = cell < low_width
    column = tl.arange(0, CLASSES)
    mask = real[:, None] & (column < classes)[None, :]
    channel = column.to(tl.int64)[None, :]
    top = row.to(tl.int64)
    bottom = tl.minimum(row + 1, low_height - 1).to(tl.int64)
    left = cell.to(tl.int64)
    right = tl.minimum(cell + 1, low_width - 1).to(tl.int64)
    x_at = sample * x_sample + channel * x_class
    z_at = sample * z_sample + channel * z_class
    x_0a = _corner(student, top, left, mask, x_row, x_column, x_at)
    x_0b = _corner(student, top, right, mask, x_row, x_column, x_at)
    x_1a = _corner(student, bottom, left, mask, x_row, x_column, x_at)
    x_1b = _corner(student, bottom, right, mask, x_row, x_column, x_at)
    if (FORWARD or REVERSE) and ALIKE:
        z_0a = _corner(teacher, top, left, mask, z_row, z_column, z_at)
        z_0b = _corner(teacher, top, right, mask, z_row, z_column, z_at)
        z_1a = _corner(teacher, bottom, left, mask, z_row, z_column, z_at)
        z_1b = _corner(teacher, bottom, right, mask, z_row, z_column, z_at)
    g_0a = tl.zeros((CELLS, CLASSES), dtype=tl.float32)
    g_0b = tl.zeros((CELLS, CLASSES), dtype=tl.float32)
    g_1a = tl.zeros((CELLS, CLASSES), dtype=tl.float32)
    g_1b = tl.zeros((CELLS, CLASSES), dtype=tl.float32)
    forward_sum = tl.zeros((CELLS,), dtype=tl.float32)
    reverse_sum = tl.zeros((CELLS,), dtype=tl.float32)
    label_sum = tl.zeros((CELLS,), dtype=tl.float32)
    share = tl.load(shares)
    label_share = tl.load(shares + 1)
    y_start = tl.load(row_starts + row)
    y_end = tl.load(row_starts + row + 1)
    x_start = tl.load(column_starts + cell, mask=real, other=0)
    x_end = tl.load(column_starts + cell + 1, mask=real, other=0)
    most = tl.max(x_end - x_start, axis=0)
    for step in range((y_end - y_start) * most):
        y = y_start + step // most
        place = x_start + step % most
        inside = place < x_end
        position = y.to(tl.int64) * width + place
        down = tl.load(row_shares + y)
        along = tl.load(column_shares + place, mask=inside, other=0.0)[:, None]
        x = (1.0 - down) * ((1.0 - along) * x_0a + along * x_0b) + down * ((1.0 - along) * x_1a + along * x_1b)
        likely = mask & (x > -1e10)
        counted = tl.where(inside, 1.0, 0.0)
        if WEIGHTED:
            counted = tl.load(weight + sample * w_sample + position * w_position, mask=inside, other=0.0)
            counted = counted.to(tl.float32)
        if LABELS or IGNORE:
            label = tl.load(target + sample * height * width + position, mask=inside, other=0)
        total = tl.zeros((CELLS, CLASSES), dtype=tl.float32)
        if FORWARD or REVERSE:
            if ALIKE:
                z = (1.0 - down) * ((1.0 - along) * z_0a + along * z_0b)
                z += down * ((1.0 - along) * z_1a + along * z_1b)
            else:
                above = tl.load(z_rows + y).to(tl.int64)
                below = tl.minimum(above + 1, z_height - 1)
                before = tl.load(z_columns + place, mask=inside, other=0).to(tl.int64)
                after = tl.minimum(before + 1, z_width - 1)
                z_down = tl.load(z_row_shares + y)
                z_along = tl.load(z_column_shares + place, mask=inside, other=0.0)[:, None]
                z_above = (1.0 - z_along) * _corner(teacher, above, before, mask, z_row, z_column, z_at)
                z_above += z_along * _corner(teacher, above, after, mask, z_row, z_column, z_at)
                z_below = (1.0 - z_along) * _corner(teacher, below, before, mask, z_row, z_column, z_at)
                z_below += z_along * _corner(teacher, below, after, mask, z_row, z_column, z_at)
                z = (1.0 - z_down) * z_above + z_down * z_below
            # A class at -inf on either side is left out of both.
            kept = likely & (z > -1e10)
            z = _shifted(z, kept, inside)
            v = _shifted(x, kept, inside)
            d = tl.where(kept, z, 0.0) - tl.where(kept, v, 0.0)
            each = counted
            if IGNORE:
                each = tl.where(label == ignore_index, 0.0, counted)
            if FORWARD:
                value, total = forward_term(
                    total, v, z, d, each, share, 1.0, forward_weight, forward_temperature, GRADIENT
                )
                forward_sum += value
            if REVERSE:
                value, total = reverse_term(
                    total, v, z, d, each, share, 1.0, reverse_weight, reverse_temperature, GRADIENT
                )
                reverse_sum += value
        if LABELS:
            each = tl.where(label == label_ignore_index, 0.0, counted)
            x = _shifted(x, likely, inside)
            hit = (column[None, :] == label[:, None]) & mask
            wrong = inside & ((label < 0) | (label >= classes)) & (label != label_ignore_index)
            value, total = label_term(
                total, x, likely, hit, each, wrong, label_share, 1.0, label_weight, smoothing, GRADIENT
            )
            label_sum += value
        if GRADIENT:
            g_0a += ((1.0 - down) * (1.0 - along)) * total
            g_0b += ((1.0 - down) * along) * total
            g_1a += (down * (1.0 - along)) * total
            g_1b += (down * along) * total
    term = 0
    if FORWARD:
        tl.store(sums + program, tl.sum(forward_sum, axis=0))
        term += 1
    if REVERSE:
        tl.store(sums + term * programs + program, tl.sum(reverse_sum, axis=0))
        term += 1
    if LABELS:
        tl.store(sums + term * programs + program, tl.sum(label_sum, axis=0))
    if GRADIENT:
        at = corners + sample * c_sample + channel * c_class + top * c_row + left[:, None] * c_column
        tl.store(at, g_0a, mask=mask)
        tl.store(at + c_corner, g_0b, mask=mask)
        tl.store(at + 2 * c_corner, g_1a, mask=mask)
        tl.store(at + 3 * c_corner, g_1b, mask=mask)
