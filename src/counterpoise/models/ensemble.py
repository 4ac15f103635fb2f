"""Several networks that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.network import VisionModel
from counterpoise.models.several_views import mean_logit

Combine = Literal["probabilities", "logits", "surest", "right"]


class Ensemble(nn.Module):
    r"""Members that each normalize and resize for themselves, combined: logits [N, C, ...] from pixels in [0, 1].

    probabilities: log sum_i w_i p_i(c) / sum_i w_i over the members that know class c, whose softmax is their mean
    (Hinton, Vinyals, Dean, arXiv 1503.02531). logits: sum_i w_i z_i / sum_i w_i, the geometric mean. surest: by sample
    the member whose largest probability is largest. right: by sample the member that gives its label the largest
    probability (Zhang, Chen, Wang, arXiv 2201.00007, weigh members by that); without a label the surest.

    Args:
        members: networks, in eval mode.
        weights: of each, for probabilities and logits.
        combine: how.
        known: for each member the classes that it answers for, in its order, as indices; None: all, in theirs.
        classes: how many there are.
        sigmoid: whether each logit is a question of its own; probabilities are then sigmoids.

    Attributes:
        target: int64 [N] or probabilities [N, C] of the samples that are to be answered next, for `right`.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[VisionModel],
        weights: Sequence[float],
        combine: Combine,
        known: Sequence[Sequence[int] | None],
        classes: int,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combine = combine
        self.sigmoid = sigmoid
        self.target: Tensor | None = None
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32) / sum(weights), persistent=False)
        self.known = [None if one is None else torch.tensor(one) for one in known]
        self.classes = classes

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [N, C, ...] in float32 of pixels [N, 3, H, W] in [0, 1]."""
        answers = [member(pixels).float() for member in self.members]
        size = max((answer.shape[2:] for answer in answers), key=lambda shape: shape.numel())
        answers = [a if a.shape[2:] == size else F.interpolate(a, size=tuple(size), mode="bilinear") for a in answers]
        return combined(answers, self.weights, self.combine, self.known, self.classes, self.sigmoid, self.target)


def combined(
    answers: Sequence[Tensor],
    weights: Tensor,
    combine: Combine,
    known: Sequence[Tensor | None],
    classes: int,
    sigmoid: bool = False,
    target: Tensor | None = None,
) -> Tensor:
    """Answers of several networks to the same pictures, float32 [N, C, ...] each, as one; arguments as of `Ensemble`.

    weights: float32 [members], with a sum of 1.
    """
    if combine == "logits":
        return _mean(answers, weights)
    if combine == "probabilities" and sigmoid:
        found = _mean([answer.sigmoid() for answer in answers], weights).logit(eps=torch.finfo(torch.float32).tiny)
        return torch.where(found.isfinite(), found, mean_logit(torch.stack(list(answers)), weights))
    if combine == "probabilities":
        return _mean_of_probabilities(answers, weights, known, classes)
    sure = torch.stack([answer.softmax(1).amax(1) for answer in answers])
    chosen = (_right(answers, sure, target) if combine == "right" else sure).argmax(0)
    stacked = torch.stack(list(answers))
    return stacked.gather(0, chosen.unsqueeze(1).expand(stacked.shape[1:]).unsqueeze(0)).squeeze(0)


def _mean(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)


def _mean_of_probabilities(
    answers: Sequence[Tensor], weights: Tensor, known: Sequence[Tensor | None], classes: int
) -> Tensor:
    shape = (len(answers[0]), classes, *answers[0].shape[2:])
    total, weight = answers[0].new_zeros(shape), answers[0].new_zeros(classes)
    for answer, own, some in zip(answers, weights.to(total.device), known, strict=True):
        index = (torch.arange(classes) if some is None else some).to(answer.device)
        total = total.index_add(1, index, own * answer.softmax(1))
        weight = weight.index_add(0, index, own.expand(len(index)))
    smallest = torch.finfo(torch.float32).tiny
    mean = total / weight.clamp_min(smallest).view(1, -1, *[1] * (total.ndim - 2))
    return mean.clamp_min(smallest).log()


def _right(answers: Sequence[Tensor], sure: Tensor, target: Tensor | None) -> Tensor:
    """What each member gives the label of each sample; where there is none, how sure it is."""
    if target is None or len(target) != len(answers[0]):
        return sure
    if target.is_floating_point():
        shares = [(answer.softmax(1) * target).sum(1) for answer in answers]
        return torch.where(target.sum(1) == 0, sure, torch.stack(shares))
    places = answers[0].shape[2:]
    if target.shape[1:] != places:  # masks are as large as their scenes, and answers may be smaller
        target = F.interpolate(target.unsqueeze(1).float(), size=tuple(places), mode="nearest").squeeze(1).long()
    labeled = (target >= 0) & (target < answers[0].shape[1])  # others: no label, or a place that does not count
    index = target.where(labeled, 0).unsqueeze(1)
    shares = [answer.softmax(1).gather(1, index).squeeze(1) for answer in answers]
    return torch.where(labeled, torch.stack(shares), sure)


def require_shared(names: Sequence[str], known: Sequence[Sequence[int]]) -> None:
    """Raises ModelError where members fall into groups that share no class: nothing would tell whose a picture is."""
    joined = set(known[0])
    left = list(range(1, len(known)))
    while grown := [place for place in left if joined & set(known[place])]:
        joined |= {index for place in grown for index in known[place]}
        left = [place for place in left if place not in grown]
    if left:
        raise ModelError(
            f"The teachers {names[0]} and {names[left[0]]} share no class, by themselves or through others, so nothing "
            "tells which of them a picture is for: add a teacher that knows classes of both, or leave one out."
        )
