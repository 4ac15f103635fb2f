"""What a network answers: the one value that models give and objectives take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """Logits [N, C] or [N, C, H, W], and features by the name of the module that gave them."""

    logits: Tensor
    features: Mapping[str, Tensor] = MappingProxyType({})

    def repeated(self, samples: int) -> Outputs:
        """Outputs for so many samples, shaped as these are: the first one's, again and again, without gradient."""
        values = {name: value[:1].detach() for name, value in self.features.items()}
        features = {name: value.expand(samples, *value.shape[1:]) for name, value in values.items()}
        first = self.logits[:1].detach()
        return Outputs(first.expand(samples, *first.shape[1:]), features)
