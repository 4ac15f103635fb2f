"""The objective of a run whose masks answer several questions a pixel."""

from __future__ import annotations

from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.dense import DenseSum
from counterpoise.objectives.views import View
from counterpoise.outputs import Outputs


class QuestionSum(DenseSum):
    """A weighted sum as `DenseSum`, over masks int8 [N, Q, H, W]: 1, 0 and -1 (unknown) for each question.

    Terms that look at labels are shown these, as floats. The others see void alone, masks int64 [N, H, W] of `void`
    where nothing is known and 0 elsewhere, for an `ignore_index` of theirs.
    """

    def _views(self, student: Outputs, teacher: Outputs | None, target: Tensor | None) -> list[View]:
        if target is None or target.ndim != 4 or target.shape[1] != student.logits.shape[1]:
            given = None if target is None else list(target.shape)
            raise ObjectiveError(
                "Terms on questions need logits [N, Q, h, w] and masks [N, Q, H, W], "
                f"got {list(student.logits.shape)} and {given}."
            )
        assert self.void is not None
        void = (target < 0).all(1).long() * self.void
        views = []
        for view in super()._views(student, teacher, void):
            labeled = [name for name in view.names if "labels" in self.objective(name).needs]
            rest = [name for name in view.names if name not in labeled]
            views += [view._replace(names=labeled, target=target.to(student.logits.dtype))] if labeled else []
            views += [view._replace(names=rest)] if rest else []
        return views
