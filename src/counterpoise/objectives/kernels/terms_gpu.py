"""The three terms at each position of a tile, for both Triton kernels; what they are told of the mixture.

Notation and formulas as in `blocks._block`: logits [ROWS, CLASSES] less their maxima, `y` of the student and `z` of the
teacher, `d = z - y`, -inf where a class is left out (0 in `d`). `each` [ROWS] is what a position counts, `total`
collects the gradient. A term gives its value at each position, weighted, and `total`.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from counterpoise.objectives.kernels.mixture import Mixture

MOST_CLASSES = 4096
"""A program holds all classes of a position in registers."""


def arguments(mixture: Mixture, target: Tensor | None, weight: Tensor | None) -> dict[str, Any]:
    """The kernels' arguments that follow from the mixture, and from what there is beside the logits."""
    forward, reverse, labels = mixture.forward, mixture.reverse, mixture.labels
    return {
        "forward_weight": 0.0 if forward is None else float(forward.weight),
        "forward_temperature": 1.0 if forward is None else float(forward.temperature),
        "reverse_weight": 0.0 if reverse is None else float(reverse.weight),
        "reverse_temperature": 1.0 if reverse is None else float(reverse.temperature),
        "label_weight": 0.0 if labels is None else float(labels.weight),
        "smoothing": 0.0 if labels is None else float(labels.smoothing),
        "ignore_index": 0 if mixture.ignore_index is None else mixture.ignore_index,
        "label_ignore_index": 0 if labels is None else labels.ignore_index,
        "FORWARD": forward is not None,
        "REVERSE": reverse is not None,
        "LABELS": labels is not None,
        "IGNORE": mixture.ignore_index is not None and target is not None,
        "WEIGHTED": weight is not None,
    }


@triton.jit  # type: ignore[untyped-decorator]
def forward_term(total, y, z, d, each, share, factor, weight, temperature, GRADIENT: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    q = tl.exp(y / temperature)
    p = tl.exp(z / temperature)
    q_sum = tl.sum(q, axis=1)
    p_sum = tl.sum(p, axis=1)
    value = temperature * tl.sum(p * d, axis=1) / p_sum
    value += temperature * temperature * (tl.log(q_sum) - tl.log(p_sum))
    if GRADIENT:
        part = each * (share * factor * weight * temperature)
        total += q * (part / q_sum)[:, None] - p * (part / p_sum)[:, None]
    return tl.where(each == 0.0, 0.0, value * each) * (share * weight), total


@triton.jit  # type: ignore[untyped-decorator]
def reverse_term(total, y, z, d, each, share, factor, weight, temperature, GRADIENT: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    q = tl.exp(y / temperature)
    q_sum = tl.sum(q, axis=1)
    p_sum = tl.sum(tl.exp(z / temperature), axis=1)
    m = tl.sum(q * d, axis=1) / q_sum
    value = temperature * temperature * (tl.log(p_sum) - tl.log(q_sum))
    value -= temperature * m
    if GRADIENT:
        part = each * (share * factor * weight) / q_sum
        total += q * (m[:, None] - d) * part[:, None]
    return tl.where(each == 0.0, 0.0, value * each) * (share * weight), total


@triton.jit  # type: ignore[untyped-decorator]
def label_term(  # type: ignore[no-untyped-def]
    total,
    x,
    likely,
    hit,
    each,
    wrong,
    share,
    factor,
    weight,
    smoothing,
    GRADIENT: tl.constexpr,  # noqa: N803
):
    # `likely`: classes that are not left out; `hit`: that of the label; `wrong` [ROWS]: the label is no class.
    q = tl.exp(x)
    q_sum = tl.sum(q, axis=1)
    right = tl.sum(tl.where(hit, x, 0.0), axis=1)
    spread_over = tl.maximum(tl.sum(tl.where(likely, 1.0, 0.0), axis=1), 1.0)
    mean = tl.sum(tl.where(likely, x, 0.0), axis=1) / spread_over
    value = tl.log(q_sum) - (1.0 - smoothing) * right - tl.where(smoothing > 0, smoothing * mean, 0.0)
    value = tl.where(each == 0.0, 0.0, value * each) * (share * weight)
    if GRADIENT:
        part = each * (share * factor * weight)
        wanted = tl.where(hit, 1.0 - smoothing, 0.0) + tl.where(likely, smoothing / spread_over[:, None], 0.0)
        total += (q / q_sum[:, None] - wanted) * part[:, None]
    return tl.where(wrong, float("nan"), value), total
