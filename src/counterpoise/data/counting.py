"""Views by number, where chance chooses among few: those that a complete store of a teacher's answers holds."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.data.views import Draws, ViewPlan


def countable(plan: ViewPlan) -> int | None:
    """How many views an image has, where chance chooses among few: pad, crop and mirror. None elsewhere."""
    if plan.crop == "resized" or plan.rotate or plan.operations or plan.mixes:
        return None
    return (2 * plan.padding + 1) ** 2 * (1 + plan.flip) * (1 + plan.flip_vertical)


def numbers(plan: ViewPlan, draws: Draws) -> Tensor:
    """Which of the countable views was drawn for each sample, int64 [n]: the reverse of `numbered`."""
    top, left = draws.offsets.unbind(1)
    across = (top * (2 * plan.padding + 1) + left) * (1 + plan.flip) + draws.flip
    return across * (1 + plan.flip_vertical) + draws.flip_vertical


def numbered(plan: ViewPlan, number: int, n: int) -> Draws:
    """The draws that make view `number` of each of n samples, 0 <= number < countable(plan)."""
    number, upside_down = divmod(number, 1 + plan.flip_vertical)
    place, mirrored = divmod(number, 1 + plan.flip)
    offset = torch.tensor(divmod(place, 2 * plan.padding + 1))
    flip, flip_vertical = (torch.full((n,), bool(value)) for value in (mirrored, upside_down))
    none = torch.empty(n, 0, dtype=torch.int64)
    return Draws(offset.repeat(n, 1), flip, flip_vertical, none, none, none.bool())
