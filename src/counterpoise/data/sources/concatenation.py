"""Sets put one after the other."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from counterpoise.data.far import Far
from counterpoise.data.sources.base import Composed, ImageSet
from counterpoise.decoding import Reading


class Concatenation(Composed):
    """Several sets, one after the other; scenes where the first is of scenes.

    Args:
        labels: int64 [N] for all of them together.
    """

    def __init__(self, parts: Sequence[ImageSet], labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes, [name for part in parts for name in part.corrupt])
        self.parts = tuple(parts)
        self.masked, self.questions = parts[0].masked, parts[0].questions
        self.reading = parts[0].reading
        blocks = [part.blocks for part in parts if part.blocks is not None]
        self.blocks = torch.cat(blocks) if len(blocks) == len(parts) else None
        self.kept_share = min(part.kept_share for part in parts)
        self._ends = list(accumulate(len(part) for part in parts))

    def find(self, index: int) -> tuple[ImageSet, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        part = bisect.bisect_right(self._ends, index)
        return self.parts[part], index - (self._ends[part - 1] if part else 0)

    def expect(self, indices: Iterable[int]) -> None:
        found = [self.find(index) for index in indices]
        for part in self.parts:
            part.expect(inner for whose, inner in found if whose is part)

    def far(self) -> list[Far]:
        begins = [0, *self._ends]
        return [
            replace(each, first=each.first + begin)
            for part, begin in zip(self.parts, begins, strict=False)
            for each in part.far()
        ]

    def read_as(self, reading: Reading) -> None:
        super().read_as(reading)
        for part in self.parts:
            part.read_as(reading)

    @cached_property
    def extents(self) -> Tensor:
        return torch.cat([part.extents for part in self.parts])
