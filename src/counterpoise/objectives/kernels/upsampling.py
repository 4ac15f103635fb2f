"""Bilinear upsampling between pixel centers, as PyTorch's (align_corners false): the reference of all dense forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.logits import may_be_out, widen


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, C, h, w] as float32 (float64 stays) [N, C, *size].

    A class is at -inf wherever any of the logits that a pixel lies between is. Of a network that is being exported
    none is: the export is compared with the network afterwards.
    """
    logits = widen(logits)
    if logits.shape[2:] == size:
        return logits
    if torch.compiler.is_exporting() or not may_be_out(logits):
        return F.interpolate(logits, size=size, mode="bilinear")
    out = logits == -torch.inf
    filled = logits.masked_fill(out, 0.0)  # zero times -inf is NaN
    # Where a pixel touches a place that is out, by exact shares: those of an interpolation in float32 leave traces of
    # places that it does not lie near.
    for axis, large in zip((2, 3), size, strict=True):
        first, second, share = taps(out.shape[axis], large, torch.float32)
        first, second = first.to(out.device), torch.where(share > 0, second, first).to(out.device)
        out = out.index_select(axis, first) | out.index_select(axis, second)
    return F.interpolate(filled, size=size, mode="bilinear").masked_fill(out, -torch.inf)


def taps(small: int, large: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Both neighbors int64 [large] of each place, and the share [large] of the second.

    A place that lies on its neighbor has no share of another, not even that of rounding.
    """
    place = torch.arange(large, dtype=torch.float64)
    source = ((place + 0.5) * (small / large) - 0.5).clamp(min=0.0)
    near = source.round()
    source = torch.where((source - near).abs() < 1e-9, near, source)
    first = source.long().clamp(max=small - 1)
    # At the far edge both neighbors are the same one.
    share = torch.where(first < small - 1, (source - first).clamp(0.0, 1.0), 0.0)
    return first, (first + 1).clamp(max=small - 1), share.to(dtype)
