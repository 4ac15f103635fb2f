"""What is tried: divergences at several temperatures, each with the weight that gives its gradient the length asked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from counterpoise import config, tasks
from counterpoise.engine.matching import gradient_norms
from counterpoise.errors import ConfigError, CounterpoiseError
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


@dataclass(frozen=True)
class Tried:
    """What is tried.

    Attributes:
        candidates: the run's own objective first.
        beside: what the strengths are measured by: the labels, or where none are heard the terms of the run file.
        left_out: why, by the name of each term that is not tried.
    """

    candidates: Sequence[Candidate]
    beside: str
    left_out: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """What is about to be tried, and what is not."""
        names = [candidate.name for candidate in self.candidates]
        strengths = sorted({one.strength for one in self.candidates if one.strength is not None})
        matched = sum(candidate.strength is not None for candidate in self.candidates)
        yield (
            f"{len(names)} candidates: yours{', labels alone' if ALONE in names else ''}, and "
            f"{matched // max(1, len(strengths))} terms of the teacher with gradients "
            f"{' and '.join(f'{strength:g}' for strength in strengths)} times as long as that of {self.beside}, at the "
            "first step"
        )
        for name, why in self.left_out.items():
            yield f"{name} is left out: {why}"


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


def candidates(values: Mapping[str, Any], run: config.Run, strengths: Sequence[float]) -> Tried:
    """All that is tried, with weights from the gradients of the first step.

    Raises:
        ConfigError: no gradient to match.
        CounterpoiseError: whatever is wrong with data or models.
    """
    own, heard = whole(run), labels(run)
    found = [Candidate(GIVEN, own)]
    if heard and run.data.unlabeled is None:
        found.append(Candidate(ALONE, heard))
    terms, left_out = {}, {}
    for name, term in shapes(run.task).items():
        if (why := _unfit(run, term)) is None:
            terms[name] = term
        else:
            left_out[name] = why
    keys = {name: f"tried_{number}" for number, name in enumerate(terms)}
    asked = {**values, "objective": {**(heard or own), **{keys[name]: term for name, term in terms.items()}}}
    norms = [gradient_norms({**asked, "seed": run.seed + number}) for number in range(FIRST_WEIGHTS)]
    mean = {key: fmean(one[key] for one in norms) for key in norms[0]}
    beside = "the labels" if heard else "the terms of the run file"
    reference = sum(mean[key] for key in (heard or own))
    if not reference > 0:
        raise ConfigError(
            f"There is no gradient of {beside} at the first step, so that nothing is there to match the teacher's "
            "with: look at their weights, and at the labels of the data."
        )
    for name, term in terms.items():
        norm = mean[keys[name]]
        if not norm > 0:
            left_out[name] = "it has no gradient at the first step"
            continue
        for strength in strengths:
            weight = float(f"{strength * reference / norm:.4g}")
            objective = {**copy.deepcopy(heard), "teacher": {**term, "weight": weight}}
            found.append(Candidate(f"{name}, strength {strength:g}", objective, strength))
    return Tried(found, beside, left_out)


def _unfit(run: config.Run, term: Mapping[str, Any]) -> str | None:
    """Why the task or the network takes no such term."""
    part = config.Term.model_validate(term)
    try:
        tasks.get(run.task).objective(run.model_copy(update={"objective": {"tried": part}}), None)
    except CounterpoiseError as error:
        return str(error)
    return None
