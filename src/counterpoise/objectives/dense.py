"""The objective of a run whose targets are masks: each term at the resolution that it is for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import find
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.views import View, resample
from counterpoise.outputs import Outputs
from counterpoise.system.machine import sum_dtype


class DenseSum(WeightedSum):
    """A weighted sum over logits [N, C, h, w] of any resolution and masks int64 [N, H, W].

    - A term that looks at labels and not at the teacher compares logits, upsampled, with the masks.
    - One that looks at features, or at logits as maps (CWD), has both sides at the student's own resolution.
    - Any other compares every pixel with the teacher, at `resolution`: "full", that of the masks, or "logits", that of
      the student's logits, with masks reduced to their nearest pixels.

    Logits are resampled bilinearly between pixel centers (align_corners false), in float32.

    Args:
        terms: as for `WeightedSum`.
        void: value of masks that is no class: the default `ignore_index` of terms that look at labels.
    """

    def __init__(
        self, terms: Mapping[str, Term], resolution: Literal["full", "logits"] = "full", void: int | None = None
    ) -> None:
        super().__init__(
            {name: term if void is None else _without_void(name, term, void) for name, term in terms.items()}
        )
        self.resolution = resolution
        self.void = void

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        size = student.logits.shape[-2:]
        near = None if teacher is None else teacher._replace(logits=resample(teacher.logits, size))
        super().prepare(student, near, samples)

    def _views(self, student: Outputs, teacher: Outputs | None, target: Tensor | None) -> list[View]:
        if target is None or target.ndim != 3 or student.logits.ndim != 4:
            given = None if target is None else list(target.shape)
            raise ObjectiveError(
                "Dense terms need logits [N, C, h, w] and masks [N, H, W], "
                f"got {list(student.logits.shape)} and {given}."
            )
        own = [name for name in self.terms if not self._at_full_resolution(name)]
        full = [name for name in self.terms if name not in own]
        views = [View(full, student, teacher, target, (target.shape[1], target.shape[2]))] if full else []
        if own:
            size = student.logits.shape[-2:]
            near = None if teacher is None else teacher._replace(logits=resample(teacher.logits, size))
            of_features = [name for name in own if "features" in self.objective(name).needs]  # they reduce masks
            of_logits = [name for name in own if name not in of_features]
            views += [View(of_features, student, near, target)] if of_features else []
            views += [View(of_logits, student, near, reduced(target, size))] if of_logits else []
        return views

    def _at_full_resolution(self, name: str) -> bool:
        needs = self.objective(name).needs
        return "teacher" not in needs or (self.resolution == "full" and not {"maps", "features"} & needs)


def reduced(target: Tensor, size: Any) -> Tensor:
    """Masks [N, H, W] or [N, Q, H, W] at another size, each position with what the pixel nearest to its center has."""
    if tuple(target.shape[-2:]) == tuple(size):
        return target
    # float64 holds every class there may be, float32 more than masks can hold
    labels = (target[:, None] if target.ndim == 3 else target).to(sum_dtype(target.device))
    nearest = F.interpolate(labels, size=tuple(size), mode="nearest-exact").to(target.dtype)
    return nearest[:, 0] if target.ndim == 3 else nearest


def _without_void(name: str, term: Term, void: int) -> Term:
    """The term with `void` as its ignore_index, where it looks at labels and nothing else is said."""
    host = term.arguments.get("of")  # to which `standardized` hands its arguments
    kind = find(host if isinstance(host, str) else term.objective or name).kind
    takes = "ignore_index" in inspect.signature(kind).parameters
    if not takes or "labels" not in kind.needs or "ignore_index" in term.arguments:
        return term
    return Term.model_validate({**term.model_dump(), "ignore_index": void})
