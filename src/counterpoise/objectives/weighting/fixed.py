"""The weights as they are given."""

from __future__ import annotations

from torch import Tensor

from counterpoise.objectives.weighting.base import Side, Weighting, register


@register("fixed", summary="the weights as given; each may follow a schedule of the run file")
class Fixed(Weighting):
    """Forward and reverse KL keep the weights that they were given.

    A schedule needs no rule of its own: `forward_weight` and `reverse_weight`, like the temperatures, each take
    {shape, start, end} in a run file.
    """

    def weights(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side, counted: Tensor | None
    ) -> tuple[Tensor | float, Tensor | float]:
        return forward.weight, reverse.weight
