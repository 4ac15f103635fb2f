"""Labels of mixed samples, which are probabilities: whether an objective learns from them, before the first batch."""

from __future__ import annotations

import torch

from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import Objective, means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.wrappers import Wrapper
from counterpoise.outputs import Outputs, in_eval_mode

WAY_OUT = "Leave out that argument, or data.views.mixup and data.views.cutmix."


def check_mixed(objective: WeightedSum, classes: int, unlabeled: bool) -> None:
    """Let each term on logits see samples as mixup and cutmix make them.

    Args:
        classes: width of the logits.
        unlabeled: whether there are samples without a label, whose mixtures are rows of zeros.

    Raises:
        ConfigError: a term that cannot take them, or takes a sample without a label for one of no class.
    """
    target = torch.full((2, classes), 1 / classes)
    half = torch.stack([torch.zeros(classes), target[1]])  # the first has no label
    flat, peaked = torch.zeros_like(target), torch.eye(2, classes)
    for name in objective.terms:
        term = objective.objective(name)
        if {"features", "maps", "classifier"} & term.needs or _prepared(term):
            continue
        try:
            _tried(term, flat, target)
            alone = "labels" in term.needs and "teacher" not in term.needs
            learns = unlabeled and alone and _tried(term, flat, half) != _tried(term, peaked, half)
        except ObjectiveError as error:
            raise ConfigError(f"objective.{name}: {error} {WAY_OUT}") from None
        if learns:
            raise ConfigError(
                f"objective.{name}: mixed with another, a sample without a label looks like one of no class, which "
                "this term would teach. Leave out data.views.mixup and data.views.cutmix, or data.unlabeled."
            )


def _prepared(term: Objective) -> bool:
    """Whether it must know of the data or of a batch first."""
    kind = type(term.host if isinstance(term, Wrapper) else term)
    return kind.set_batch is not Objective.set_batch or kind.prepare is not Objective.prepare


@torch.no_grad()
def _tried(term: Objective, first: torch.Tensor, target: torch.Tensor) -> float:
    """The loss of logits whose first row is that of `first`. What moves while training stays where it is."""
    logits = Outputs(torch.cat([first[:1], torch.zeros_like(first[1:])]))
    with in_eval_mode(term):
        return sum(value.item() for value in means(term.terms(logits, logits, target)).values())
