"""Generalized Jensen-Shannon divergence: between forward and reverse KL, and bounded."""

from __future__ import annotations

from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.skewed_kl import skewed_forward_kl_values, skewed_reverse_kl_values
from counterpoise.objectives.targets import Reduction


@register(
    "jsd",
    summary="generalized Jensen-Shannon divergence: both sides against their mixture",
    paper="Agarwal et al., On-policy distillation of language models (GKD), arXiv 2306.13649",
    year=2023,
)
class JensenShannon(LogitObjective):
    r"""L = \tau^2 [\beta KL(p || m) + (1 - \beta) KL(q || m)] with m = \beta p + (1 - \beta) q; logits [N, C, ...].

    p and q are the teacher's and the student's probabilities, softened by tau. Never above tau^2 log 2. It vanishes at
    beta = 0 and 1; L / beta tends to forward KL as beta tends to 0, L / (1 - beta) to reverse KL as beta tends to 1:
    near the ends, give the term a weight to match. Agarwal et al. 2023 (GKD), after Huszár 2015.

    Args:
        beta: the teacher's share of the mixture, in [0, 1]; 0.5 is the divergence of Jensen and Shannon.
        temperature: tau.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(
        self,
        beta: float = 0.5,
        temperature: float = 1.0,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= beta <= 1.0:
            raise ObjectiveError(f"beta must be in [0, 1], got {beta}.")
        self.beta = beta
        self.temperature = check_temperature("temperature", temperature)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        logits = (student_logits, teacher_logits, self.temperature)
        teacher = skewed_forward_kl_values(*logits, self.beta)
        student = skewed_reverse_kl_values(*logits, 1.0 - self.beta)
        return {"": self.beta * teacher + (1.0 - self.beta) * student}
