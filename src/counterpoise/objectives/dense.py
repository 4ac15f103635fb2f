"""The objective of a run whose targets are masks: each term at the resolution that it is for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import Terms, find
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs


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

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        size = student.logits.shape[-2:]
        near = None if teacher is None else teacher._replace(logits=resample(teacher.logits, size))
        super().prepare(student, near, samples)

    def forward(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Terms:
        if target is None or target.ndim != 3 or student.logits.ndim != 4:
            given = None if target is None else list(target.shape)
            raise ObjectiveError(
                "Dense terms need logits [N, C, h, w] and masks [N, H, W], "
                f"got {list(student.logits.shape)} and {given}."
            )
        own = [name for name in self.terms if not self._at_full_resolution(name)]
        full = [name for name in self.terms if name not in own]
        addends: list[Tensor] = []
        parts: dict[str, dict[str, Tensor]] = {}
        if full:
            found = self._full_values(full, student, teacher, target, weight)
            addends, parts = addends + found[0], parts | found[1]
        if own:
            size = student.logits.shape[-2:]
            near = None if teacher is None else teacher._replace(logits=resample(teacher.logits, size))
            of_features = [name for name in own if "features" in self.objective(name).needs]  # they reduce masks
            of_logits = [name for name in own if name not in of_features]
            for names, mask in ((of_features, target), (of_logits, reduced(target, size))):
                if names:
                    found = self._values(names, student, near, mask, weight)
                    addends, parts = addends + found[0], parts | found[1]
        return self._added(addends, parts)

    def _full_values(
        self, names: list[str], student: Outputs, teacher: Outputs | None, target: Tensor, weight: Tensor | None
    ) -> tuple[list[Tensor], dict[str, dict[str, Tensor]]]:
        size = (target.shape[1], target.shape[2])
        fused = self._fused(names, student, teacher, target, weight, size)
        parts = {} if fused is None else dict(fused.parts)
        addends = [] if fused is None else [fused.total]
        rest = [name for name in names if name not in parts]
        if rest:
            wide = student._replace(logits=resample(student.logits, size))
            needed = teacher is not None and any("teacher" in self.objective(name).needs for name in rest)
            far = teacher._replace(logits=resample(teacher.logits, size)) if teacher is not None and needed else None
            found = self._values(rest, wide, far, target, weight)
            addends, parts = addends + found[0], parts | found[1]
        return addends, parts

    def _at_full_resolution(self, name: str) -> bool:
        needs = self.objective(name).needs
        return "teacher" not in needs or (self.resolution == "full" and not {"maps", "features"} & needs)


def resample(logits: Tensor, size: Any) -> Tensor:
    """Logits [N, C, h, w] as float32 (float64 stays) [N, C, *size]; as they are where they have that size."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    wide = logits if logits.element_size() == 8 else logits.float()
    return F.interpolate(wide, size=tuple(size), mode="bilinear", align_corners=False)


def reduced(target: Tensor, size: Any) -> Tensor:
    """Masks [N, H, W] at another size, each position with the class of the pixel nearest to its center."""
    if tuple(target.shape[-2:]) == tuple(size):
        return target
    # float64 holds every class there may be
    return F.interpolate(target[:, None].double(), size=tuple(size), mode="nearest-exact")[:, 0].to(target.dtype)


def _without_void(name: str, term: Term, void: int) -> Term:
    """The term with `void` as its ignore_index, where it looks at labels and nothing else is said."""
    host = term.arguments.get("of")  # to which `standardized` hands its arguments
    kind = find(host if isinstance(host, str) else term.objective or name).kind
    takes = "ignore_index" in inspect.signature(kind).parameters
    if not takes or "labels" not in kind.needs or "ignore_index" in term.arguments:
        return term
    return Term.model_validate({**term.model_dump(), "ignore_index": void})
