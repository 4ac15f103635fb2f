"""The Lovasz extension of the Jaccard loss: of intersection over union itself, made continuous."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Mean
from counterpoise.system.machine import sum_dtype

PAPER = "Berman, Rannen Triki, Blaschko, The Lovasz-softmax loss, arXiv 1705.08790"


@register(
    "lovasz_softmax", summary="intersection over union of each class itself, made continuous", paper=PAPER, year=2018
)
class LovaszSoftmax(RegionObjective):
    r"""Lovasz-softmax.

    .. math::
        L = \frac{1}{|P|} \sum_{c \in P} \sum_k m_{(k)}
            \left(\Delta_c(\{(1), ..., (k)\}) - \Delta_c(\{(1), ..., (k - 1)\}) \right), \quad
        \Delta_c(M) = 1 - \frac{|G_c \setminus M|}{|G_c \cup M|}

    with m = 1 - p where a position is of class c and p elsewhere, (1), (2), ... the positions from the largest m on,
    G_c those of class c, and P the classes that any position is of. Delta(M) is the Jaccard loss of a student that errs
    at M: so where every p is 0 or 1, L is 1 less the mean intersection over union. A position's weight is what it
    counts in these sets. Sets are those of the batch, or of each image; under several processes, and with
    `train.accumulate`, of each part of a batch.

    Args:
        per_image: each image alone, and their mean.
        sigmoid: as for `dice`: p of a sigmoid instead. See also `lovasz_hinge`.
        ignore_index: as for `dice`, and so are target and weight; truths between 0 and 1 are rounded.

    Berman et al. 2018 (CVPR).
    """

    def __init__(self, per_image: bool = False, sigmoid: bool = False, ignore_index: int | None = 255) -> None:
        super().__init__("lovasz_softmax", sigmoid, ignore_index)
        self.per_image = per_image

    def loss(self, regions: Regions) -> Mean:
        truth = regions.truth > 0.5
        probability = self.probabilities(regions.logits)
        errors = torch.where(truth, 1 - probability, probability)
        return extended(errors, truth, regions, self.per_image, absent=False)


@register(
    "lovasz_hinge",
    summary="intersection over union of each question itself, by hinges of its logit: for masks of one logit",
    paper=PAPER,
    year=2018,
)
class LovaszHinge(RegionObjective):
    r"""Lovasz hinge: the formula of `lovasz_softmax` with hinge errors.

    .. math:: m = \max(0, 1 - (2 g - 1) s)

    with s the logit and g 1 where a position is of the class and else 0. Each class is a question of its own. Classes
    that no position is of count, too: there the loss is the largest m. 0 where each logit is beyond 1 on its right
    side.

    Args:
        per_image: each image alone, and their mean.
        ignore_index: as for `dice` with `sigmoid`, and so are target and weight; truths between are rounded.

    Berman et al. 2018 (CVPR), after Yu and Blaschko 2015.
    """

    sigmoid = True

    def __init__(self, per_image: bool = False, ignore_index: int | None = 255) -> None:
        super().__init__("lovasz_hinge", True, ignore_index)
        self.per_image = per_image

    def loss(self, regions: Regions) -> Mean:
        truth = regions.truth > 0.5
        errors = (1 - torch.where(truth, regions.logits, -regions.logits)).relu()
        return extended(errors, truth, regions, self.per_image, absent=True)


def extended(errors: Tensor, truth: Tensor, regions: Regions, per_image: bool, absent: bool) -> Mean:
    """The Lovasz extension of the Jaccard loss at `errors`, mean over classes, then over images.

    Args:
        errors: [N, C, ...], at least 0.
        truth: bool, of the same shape.
        per_image: whether sets are those of each image, or of all.
        absent: whether classes that no position is of count.
    """
    errors, truth, share = (_rows(part, per_image) for part in (errors, truth, regions.share.expand_as(errors)))
    errors, order = errors.sort(-1, descending=True)
    # Counts of more than 2^24 positions would not fit float32.
    counts = share.gather(-1, order).to(sum_dtype(share.device))
    own = counts * truth.gather(-1, order)
    size = own.sum(-1, keepdim=True)
    union = size + (counts - own).cumsum(-1)
    loss = torch.where(union > 0, 1 - (size - own.cumsum(-1)) / torch.where(union > 0, union, 1.0), 0.0)
    steps = loss.diff(dim=-1, prepend=torch.zeros_like(size)).to(errors.dtype)
    steps = steps + 0 * errors.detach()  # which are the gradient, and have no other way to show a NaN
    values = (errors * steps).sum(-1)
    counted = (counts.sum(-1) if absent else size.squeeze(-1)) > 0
    by_image = (values * counted).sum(1) / counted.sum(1).clamp(min=1)
    return Mean(by_image.sum() / counted.any(1).sum().clamp(min=1), regions.counted)


def _rows(values: Tensor, per_image: bool) -> Tensor:
    """[N, C, positions], or [1, C, positions of all]."""
    values = values.flatten(2) if values.ndim > 2 else values.unsqueeze(-1)
    return values if per_image else values.transpose(0, 1).flatten(1).unsqueeze(0)
