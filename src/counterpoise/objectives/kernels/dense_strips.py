"""The CPU form of the dense loss: strips of full-resolution rows that stay in cache.

Bilinear interpolation is separable. Some low-resolution rows at a time (a band) are widened to full width; strips of
full-resolution rows are mixed from them, go through the same blocks as any logits, and their gradient is added back
to the band, whose gradient is narrowed at the end. Always in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.kernels import blocks
from counterpoise.objectives.kernels.layout import by_position
from counterpoise.objectives.kernels.mixture import Inputs, Mixture
from counterpoise.objectives.kernels.upsampling import taps

# Of the widened rows of one side: 8 MB in float32. More saves little, since only rows at the seams are widened twice.
BAND_ELEMENTS = 2**21


def compute(mixture: Mixture, inputs: Inputs, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The weighted terms [size of mixture], and the gradient of their sum [N, C, h, w] in float32 or float64.

    Of logits that are not larger than `inputs.size`. Raises ObjectiveError for a label outside the classes.
    """
    student, size = inputs.student, inputs.size
    assert size is not None
    samples, classes = student.shape[:2]
    height, width = size
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    sides = [_Side(logits, size, dtype) for logits in inputs[:2] if logits is not None]
    gradient = torch.zeros(student.shape, dtype=dtype) if want_gradient else None
    target, weight, share = by_position(mixture, inputs, torch.empty((), dtype=dtype))
    target, weight = (None if v is None else v.view(inputs.positions) for v in (target, weight))
    block, limit = blocks.computed(mixture, samples * classes * height * width, share)
    most = min(height, max(1, limit // (classes * width)))
    buffers = [torch.empty(most, classes, width, dtype=dtype) for _ in range(1 + len(sides))]
    sums = []
    for sample in range(samples):
        for band in blocks.pieces(height, _band_rows(sides, classes, size)):
            widened = [side.widen(sample, band) for side in sides]
            back = torch.zeros_like(widened[0]) if want_gradient else None
            for strip in _strips(band, most):
                mixed = [s.mix(w, band, strip, b) for s, w, b in zip(sides, widened, buffers[1:], strict=True)]
                logits = mixed if len(mixed) > 1 else [mixed[0], None]
                rest = (None if v is None else v[sample, strip] for v in (target, weight))
                out = None if back is None else buffers[0][: strip.stop - strip.start]
                sums.append(block(*logits, *rest, out))
                if back is not None and out is not None:
                    sides[0].add_back(out, band, strip, back, buffers[1])
            if gradient is not None and back is not None:
                sides[0].narrow(back, band, gradient[sample])
    return blocks.summed(mixture, sums, classes), gradient


@dataclass
class _Side:
    """Logits of one network [N, C, h, w], and how they are seen at full resolution."""

    logits: Tensor
    size: tuple[int, int]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self.first, self.second, share = taps(self.logits.shape[2], self.size[0], self.dtype)
        self.share = share.reshape(-1, 1, 1)
        self.rest = 1 - self.share
        self.tall = self.logits.shape[2] == self.size[0]
        self.wide = self.logits.shape[3] == self.size[1]

    def rows(self, band: slice) -> slice:
        """The low-resolution rows that a band of full-resolution rows is made of."""
        return slice(int(self.first[band.start]), int(self.second[band.stop - 1]) + 1)

    def widen(self, sample: int, band: slice) -> Tensor:
        """Those rows at full width, [rows, C, W]."""
        low = self.logits[sample, :, self.rows(band)].transpose(0, 1).to(self.dtype).contiguous()
        if self.wide:
            return low
        flat = low.reshape(1, -1, low.shape[2])
        return F.interpolate(flat, self.size[1], mode="linear").view(*low.shape[:2], -1)

    def mix(self, widened: Tensor, band: slice, strip: slice, buffer: Tensor) -> Tensor:
        """A strip [rows, C, W] of full-resolution rows, in `buffer` where it is not there already."""
        if self.tall:
            return widened[strip.start - band.start : strip.stop - band.start]
        start = int(self.first[band.start])
        out = buffer[: strip.stop - strip.start]
        torch.index_select(widened, 0, self.first[strip] - start, out=out)
        out.mul_(self.rest[strip])
        return out.addcmul_(widened.index_select(0, self.second[strip] - start), self.share[strip])

    def add_back(self, gradient: Tensor, band: slice, strip: slice, back: Tensor, spare: Tensor) -> None:
        """Add a strip's gradient to that of the widened rows; overwrites `gradient` and `spare`."""
        if self.tall:
            back[strip.start - band.start : strip.stop - band.start] = gradient
            return
        start = int(self.first[band.start])
        part = torch.mul(gradient, self.share[strip], out=spare[: len(gradient)])
        back.index_add_(0, self.second[strip] - start, part)
        back.index_add_(0, self.first[strip] - start, gradient.mul_(self.rest[strip]))

    def narrow(self, back: Tensor, band: slice, gradient: Tensor) -> None:
        """Add the gradient of the widened rows to the low-resolution one of the sample, [C, h, w]."""
        if not self.wide:
            rows, classes, width = back.shape
            low = torch.ops.aten.upsample_linear1d_backward(
                back.view(1, rows * classes, width),
                [width],
                [1, rows * classes, self.logits.shape[3]],
                False,
                None,
            )
            back = low.view(rows, classes, -1)
        gradient[:, self.rows(band)] += back.transpose(0, 1)


def _band_rows(sides: list[_Side], classes: int, size: tuple[int, int]) -> int:
    """Full-resolution rows of a band: as many as keep the widened rows of the largest side below the limit."""
    low = max(2, BAND_ELEMENTS // (classes * size[1])) - 1
    return max(1, min(low * size[0] // side.logits.shape[2] for side in sides))


def _strips(band: slice, most: int) -> Iterator[slice]:
    for piece in blocks.pieces(band.stop - band.start, most):
        yield slice(band.start + piece.start, band.start + piece.stop)
