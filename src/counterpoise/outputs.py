"""What a network answers: the one value that models give and objectives take, and the mode in which it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn


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


@contextmanager
def in_eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Modules in eval mode; afterwards every part of them is in the mode in which it was found.

    `train(was_training)` is no way back: it takes parts along that somebody holds in eval mode, such as batch norms.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
