"""Mixup (Zhang et al. 2018, arXiv:1710.09412) and cutmix (Yun et al. 2019, arXiv:1905.04899), drawn for each sample.

The partner of a sample is the one that follows it in the order of the epoch, so that a mixed view, too, depends on
(seed, epoch, sample index) and not on the batch. Pixels are mixed in integers: the same bits on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data import random

_ONE = 1 << 16  # fixed point


class Mix(NamedTuple):
    """How n samples are mixed with their partners.

    Attributes:
        weight: int32 [n], the sample's part of each pixel outside the box, in 65536ths.
        box: int64 [n, 4], top, left, bottom, right of what the partner covers; empty where mixed by mixup.
        share: float32 [n], the sample's part of the target.
    """

    weight: Tensor
    box: Tensor
    share: Tensor

    def to(self, device: torch.device) -> Mix:
        """On another device."""
        return Mix(*(value.to(device, non_blocking=True) for value in self))


def draw(seed: int, epoch: int, indices: Tensor, *, mixup: float, cutmix: float, height: int, width: int) -> Mix:
    """Draw how samples are mixed: by mixup, by cutmix, or by either for half of the samples where both are on.

    The sample's part is Beta(alpha, alpha), through its quantile function so that there is no loop to reject draws. For
    cutmix it is then what the box, cut off at the border, really leaves.

    Args:
        indices: int64 [n] on the CPU.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of cutmix; 0 is off.
    """
    from scipy.special import betaincinv

    words = random.words(seed, epoch, indices, random.MIX, 4)
    level = random.to_uniform(words[:, 0]).double().numpy()
    by_box = (words[:, 1] >> 31).bool() if mixup and cutmix else torch.full((len(indices),), cutmix > 0)
    lams = [
        torch.from_numpy(betaincinv(alpha, alpha, level)) if alpha else torch.zeros(len(indices))
        for alpha in (mixup, cutmix)
    ]
    weight = torch.where(by_box, _ONE, (lams[0] * _ONE).round().to(torch.int32))

    cut = (1 - lams[1]).sqrt() * by_box
    edges = torch.tensor([height, width])
    centers = torch.stack([random.to_integers(words[:, 2], height), random.to_integers(words[:, 3], width)], dim=1)
    half = cut.unsqueeze(1) * edges / 2
    start = (centers - half).round().long().clamp(min=0)
    stop = torch.minimum((centers + half).round().long(), edges)
    area = (stop - start).prod(1)
    share = torch.where(by_box, 1 - area.double() / (height * width), weight.double() / _ONE)
    return Mix(weight.to(torch.int32), torch.cat([start, stop], dim=1), share.float())


def partners(order: Tensor) -> Tensor:
    """The partner of every sample: int64 [n], by index, from the order of the epoch (int64 [n])."""
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def images(own: Tensor, partner: Tensor, mix: Mix) -> Tensor:
    """Mix uint8 images [n, 3, H, W] with those of their partners into uint8 [n, 3, H, W]."""
    weight = mix.weight.view(-1, 1, 1, 1)
    mixed = own.to(torch.int32).mul_(weight).add_(_ONE // 2)
    mixed += partner.to(torch.int32).mul_(_ONE - weight)
    mixed = mixed.bitwise_right_shift_(16).to(torch.uint8)
    rows, columns = (torch.arange(edge, device=own.device) for edge in own.shape[2:])
    top, left, bottom, right = mix.box.unsqueeze(2).unbind(1)
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return torch.where((in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), partner, mixed)


def targets(own: Tensor, partner: Tensor, share: Tensor, num_classes: int) -> Tensor:
    """Mix labels with those of the partners into probabilities: float32 [n, num_classes].

    Of one class an image (int64 [n]), where either is unlabeled (negative) so is the mixture, a row of zeros: half a
    label would be a wrong one. Of several (int8 [n, num_classes]) that holds class by class, and -1 says it.
    """
    if own.ndim == 2:
        mixed = torch.addcmul(partner.float(), share[:, None], (own - partner).float())
        return mixed.masked_fill((own < 0) | (partner < 0), -1.0)
    labeled = (own >= 0) & (partner >= 0)
    target = torch.zeros(len(own), num_classes, device=own.device)
    for label, part in ((own, share), (partner, 1 - share)):
        target.scatter_add_(1, label.clamp(min=0).unsqueeze(1), (part * labeled).unsqueeze(1))
    return target
