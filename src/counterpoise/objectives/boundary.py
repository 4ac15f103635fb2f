"""Boundary loss: what is marked wrongly counts by how far it lies from the edge of the object."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Sum


@register(
    "boundary",
    summary="distance from the object's edge of what is marked wrongly, beside a loss of regions: for small objects",
    paper="Kervadec et al., Boundary loss for highly unbalanced segmentation, arXiv 1812.07032",
    year=2019,
)
class Boundary(RegionObjective):
    r"""Boundary loss.

    .. math:: L = \sum_c \phi_c(i) p_{ic}

    at position i, with p the student's probabilities and phi the signed distance in pixels to the edge of the region of
    class c in this image: negative within, positive outside. Edges run between pixels, so that the pixels beside one
    are at -1/2 and 1/2. Mean over the positions that count. It is least, and below 0, where the student is right.

    It says nothing of a class that an image does not have, or has everywhere (phi is 0), and its gradient hardly tells
    where to begin: in the paper it stands beside a loss such as `dice`, with a weight that grows from 0.01.
    Distances are between positions that are known to be of the class and known not to be; void is neither.

    Args:
        sigmoid: as for `dice`.
        ignore_index: as for `dice`, and so are target and weight; truths between 0 and 1 are rounded.
            Logits must have positions, [N, C, ...].

    Kervadec, Bouchtiba, Desrosiers, Granger, Dolz, Ben Ayed 2019 (MIDL). Distances by scipy, on the CPU.
    """

    needs = frozenset({"labels", "maps"})

    def __init__(self, sigmoid: bool = False, ignore_index: int | None = 255) -> None:
        super().__init__("boundary", sigmoid, ignore_index)

    def loss(self, regions: Regions) -> Sum:
        logits, truth, share = regions
        if logits.ndim < 3:
            raise ObjectiveError(
                f"boundary measures distances in maps: logits must be [N, C, ...], got {list(logits.shape)}."
            )
        known = (share > 0).expand_as(truth)
        distance = signed_distances((truth > 0.5) & known, known).to(logits)
        return Sum((share * distance * self.probabilities(logits)).sum(), regions.counted)


def signed_distances(inside: Tensor, known: Tensor) -> Tensor:
    """The distance of each position to the edge of a region, in pixels, negative within: float64 on the CPU.

    0 throughout where a region has no edge.

    Args:
        inside: bool [N, C, ...], what is of the region.
        known: of the same shape, whether that is known.
    """
    from scipy.ndimage import distance_transform_edt

    yes, no = inside.detach().cpu().flatten(0, 1), (known & ~inside).detach().cpu().flatten(0, 1)
    found = torch.zeros(yes.shape, dtype=torch.float64)
    edged = yes.flatten(1).any(1) & no.flatten(1).any(1)
    for index in edged.nonzero().flatten().tolist():
        # Distances to the nearest position of either side.
        to_yes, to_no = (torch.from_numpy(distance_transform_edt(~side[index].numpy())) for side in (yes, no))
        found[index] = torch.where(yes[index], 0.5 - to_no, to_yes - 0.5)
    return found.view(inside.shape)
