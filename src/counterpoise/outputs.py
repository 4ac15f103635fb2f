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
