"""Which images of a set lie at an address, however the set was put together."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Far:
    """A row of images of a set, which are images of a set at an address, in the same order.

    Attributes:
        there: the set at the address.
        first: index of the first of them.
        indices: int64 [n], rising, of them in `there`; None: all of it.
        times: how often each of them comes in a row.
    """

    there: Sized
    first: int
    indices: NDArray[np.int64] | None
    times: int = 1

    def __len__(self) -> int:
        return len(self.there) if self.indices is None else len(self.indices)

    def inner(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The indices in `there` of some of the row, counted from its first."""
        return rows if self.indices is None else self.indices[rows]

    def outer(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the set the images from these indices in `there` on begin."""
        rows = bounds if self.indices is None else np.searchsorted(self.indices, bounds)
        return rows + self.first


def far_of_part(whole: list[Far], indices: NDArray[np.int64]) -> list[Far]:
    """The same of a part of a set; indices: int64 [M], of the part. Nothing where it has another order than the set."""
    if not whole or bool((np.diff(indices) <= 0).any()):
        return []
    found = []
    for far in whole:
        begin, end = np.searchsorted(indices, [far.first, far.first + len(far)])
        if end > begin:
            found.append(Far(far.there, int(begin), far.inner(indices[begin:end] - far.first)))
    return found
