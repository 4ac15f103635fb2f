"""What is tried: divergences at several temperatures, each with the weight that gives its gradient the length asked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from counterpoise import config, tasks
from counterpoise.engine.matching import gradient_norms
from counterpoise.errors import ConfigError
from counterpoise.objectives.base import needs_teacher

GIVEN, ALONE = "as given", "labels alone"
TEMPERATURES = (1.0, 2.0, 4.0)
FIRST_WEIGHTS = 3
"""Students whose first steps a norm is the mean of."""


@dataclass(frozen=True)
class Candidate:
    """An objective to try.

    Attributes:
        objective: all terms, as a run file has them.
        strength: the norm of its teacher's gradient at the first step over that of the labels; None where not matched.
    """

    name: str
    objective: Mapping[str, Any]
    strength: float | None = None

    def __hash__(self) -> int:
        return hash(self.name)


def shapes(task: str) -> dict[str, dict[str, Any]]:
    """Terms that listen to the teacher, at weight 1, by name."""
    binary = task in ("multilabel", "multilabel_segmentation")
    found: dict[str, dict[str, Any]] = {}
    for temperature in TEMPERATURES:
        at = f"T {temperature:g}"
        both = {"forward_temperature": temperature, "reverse_temperature": temperature}
        for side, weights in (("forward", (1.0, 0.0)), ("both sides", (0.5, 0.5)), ("reverse", (0.0, 1.0))):
            forward, reverse = weights
            name = "binary_balance" if binary else "balance"
            term = {"objective": name, "forward_weight": forward, "reverse_weight": reverse, **both}
            if not binary and not (forward and reverse):
                term = {"objective": "forward_kl" if forward else "reverse_kl", "temperature": temperature}
            found[f"{side}, {at}"] = term
    if not binary:
        found["variance of logits"] = {"objective": "gkl", "power": 0.0, "soft_weight": 0.0}
        found["dist"] = {"objective": "dist"}
    if task == "segmentation":
        found["cwd"] = {"objective": "cwd"}
    return found


def labels(run: config.Run) -> dict[str, Any]:
    """The terms of a run that listen to labels alone, as its file has them."""
    return {name: term for name, term in whole(run).items() if not needs_teacher(term.get("objective", name))}


def whole(run: config.Run) -> dict[str, Any]:
    """All terms of a run, as its file has them."""
    return {name: term.model_dump(mode="json", exclude_none=True) for name, term in run.objective.items()}


def candidates(values: Mapping[str, Any], run: config.Run, strengths: Sequence[float]) -> list[Candidate]:
    """All that is tried, the run's own objective first.

    Raises:
        ConfigError: no gradient to match.
        CounterpoiseError: whatever is wrong with data or models.
    """
    own, heard = whole(run), labels(run)
    found = [Candidate(GIVEN, own)]
    if heard and run.data.unlabeled is None:
        found.append(Candidate(ALONE, heard))
    terms = {f"tried_{number}": term for number, term in enumerate(shapes(run.task).values())}
    names = dict(zip(terms, shapes(run.task), strict=True))
    allowed = {key: term for key, term in terms.items() if _fits(run, term)}
    asked = {**values, "objective": {**(heard or own), **allowed}}
    norms = [gradient_norms(with_seed(asked, run.seed + number)) for number in range(FIRST_WEIGHTS)]
    mean = {name: fmean(one[name] for one in norms) for name in norms[0]}
    reference = sum(mean[name] for name in (heard or own))
    if not reference > 0:
        raise ConfigError(
            f"{'The labels' if heard else 'The terms of the run file'} give no gradient at the first step, so that "
            "there is nothing to match the teacher's with: look at their weights, and at the labels of the data."
        )
    for key, term in allowed.items():
        if mean[key] > 0:
            for strength in strengths:
                weight = float(f"{strength * reference / mean[key]:.4g}")
                objective = {**copy.deepcopy(heard), "teacher": {**term, "weight": weight}}
                found.append(Candidate(f"{names[key]}, strength {strength:g}", objective, strength))
    return found


def with_seed(values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Values of the same run with another seed."""
    return {**values, "seed": seed}


def _fits(run: config.Run, term: Mapping[str, Any]) -> bool:
    """Whether the task and the network take such a term."""
    part = config.Term.model_validate(term)
    try:
        tasks.get(run.task).objective(run.model_copy(update={"objective": {"tried": part}}), None)
    except ConfigError:
        return False
    return True


def told(candidates: Sequence[Candidate]) -> Iterator[str]:
    """What is about to be tried, in a line or two."""
    matched = [candidate for candidate in candidates if candidate.strength is not None]
    strengths = sorted({candidate.strength for candidate in matched if candidate.strength is not None})
    yield (
        f"{len(candidates)} candidates: yours{', labels alone' if len(candidates) - len(matched) > 1 else ''}, and "
        f"{len(matched) // max(1, len(strengths))} terms of the teacher with gradients "
        f"{' and '.join(f'{strength:g}' for strength in strengths)} times as long as that of the labels, at the first "
        "step"
    )
