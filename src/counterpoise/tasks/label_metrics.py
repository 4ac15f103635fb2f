"""How well the labels of images are told, label by label, where each image may have several: exact, ties included.

Not by torchmetrics, which takes seconds to import and goes through the classes one by one; tested against it and
against scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from counterpoise.tasks.base import Verdict

USEFUL = 0.55
"""Mean AUROC from which on answers tell something: a tenth of the way from chance to perfection."""
SURE = 2.326
"""Standard deviations that one answer in a hundred is beyond by chance."""


@dataclass(frozen=True)
class Curves:
    """Scores of each label from the highest on, what is unknown behind them. All tensors are float64 [N, C].

    Attributes:
        scores: in falling order; NaN where there is none.
        hits, taken: how many images up to this one, those of the same score included, have the label; and are known.
        steps: 1 where the score is the last of its kind, 0 elsewhere and where there is none.
        there, absent: float64 [C], how many images have the label, and have it not.
    """

    scores: Tensor
    hits: Tensor
    taken: Tensor
    steps: Tensor
    there: Tensor
    absent: Tensor


def curves(scores: Tensor, labels: Tensor) -> Curves:
    """Rank images by the score of each label.

    Args:
        scores: [N, C], higher where the label is likelier; logits serve as well as probabilities.
        labels: [N, C] of 1, 0 and -1 (unknown, left out).
    """
    known = labels >= 0
    ranked, order = scores.double().masked_fill(~known, float("nan")).neg().sort(0)  # NaN goes to the end
    ranked = ranked.neg()
    there = (labels > 0).gather(0, order).double()
    counted = known.gather(0, order).double()
    following = torch.cat([ranked[1:], torch.full_like(ranked[:1], float("nan"))])
    steps = counted * (ranked != following)
    present = (labels > 0).sum(0).double()
    return Curves(ranked, there.cumsum(0), counted.cumsum(0), steps, present, known.sum(0).double() - present)


def average_precision(found: Curves) -> Tensor:
    """sum over the steps of (recall - recall before) * precision, [C]; NaN for a label that no image has.

    As scikit-learn's average_precision_score: images of one score are taken at once.
    """
    precision = found.hits / found.taken.clamp(min=1)
    return (_rises(found.hits, found.steps) * precision).sum(0) / _or_nan(found.there)


def auroc(found: Curves) -> Tensor:
    """How often an image with the label scores higher than one without it, a tie being half, [C]; NaN without both."""
    misses = found.taken - found.hits
    hits, risen = _rises(found.hits, found.steps), _rises(misses, found.steps)
    beaten = found.absent - misses + risen / 2
    return (hits * beaten).sum(0) / _or_nan(found.there * found.absent)


def best_thresholds(found: Curves) -> tuple[Tensor, Tensor]:
    """The score from which on an answer of yes has the highest F1, and that F1, both [C].

    It lies halfway between the lowest score that is taken and the highest that is not (below the lowest of all, at
    that), and of two that are as good the higher one is taken. NaN for a label that no image has.
    """
    f1 = 2 * found.hits / (found.taken + found.there).clamp(min=1)
    best, place = torch.where(found.steps > 0, f1, -1.0).max(0)
    own = found.scores.gather(0, place[None])[0]
    following = torch.cat([found.scores[1:], torch.full_like(found.scores[:1], float("nan"))]).gather(0, place[None])[0]
    between = torch.where(following.isnan(), own, (own + following) / 2)
    return torch.where(found.there > 0, between, torch.nan), torch.where(found.there > 0, best, torch.nan)


def verdict_of(found: Curves, soft: bool, alike: float = 1.0) -> Verdict:
    """What is to be thought of answers with these curves, by their mean AUROC.

    Args:
        soft: as of `Verdict`.
        alike: how many answers tell as much as one that is independent of all others.
    """
    each = auroc(found)
    both = ~each.isnan()
    if not both.any():
        return Verdict("unknown", soft=soft)
    there, absent = found.there[both] / alike, found.absent[both] / alike
    deviation = ((there + absent + 1) / (12 * there * absent)).sqrt().mean().item()
    mean = each[both].mean().item()
    nothing = f"a mean AUROC of {100 * mean:.1f}%, where answers that know nothing of the pictures have 50%"
    if mean - SURE * deviation > USEFUL:
        return Verdict("useful", nothing, soft)
    halfway = 0.75 - SURE * deviation > USEFUL
    return Verdict("chance" if halfway and mean < USEFUL + deviation else "unsure", nothing, soft)


def _rises(counts: Tensor, steps: Tensor) -> Tensor:
    """By how much counts rise from one step to the next, 0 between steps."""
    at_steps = torch.where(steps > 0, counts, 0.0).cummax(0).values  # counts never fall
    before = torch.cat([torch.zeros_like(at_steps[:1]), at_steps[:-1]])
    return at_steps - before


def _or_nan(count: Tensor) -> Tensor:
    return torch.where(count > 0, count, torch.nan)
