"""Blocks compiled for this machine: only for whoever asks, who is told, and can say afterwards what it took.

Compiling takes ten seconds to more than a minute of one core. A run wins that back; a loss that is called for the first
time in somebody's loop must not take it unasked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from counterpoise.errors import first_line

log = logging.getLogger(__name__)

Block = Callable[..., Tensor]


class Compiler:
    """Runs blocks compiled; plain for good where this machine cannot compile.

    Args:
        tell: is told when compiling begins, and what it took.

    Attributes:
        seconds: that compiling took so far. What was compiled in this process already takes none.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.tell = tell
        self.seconds = 0.0

    def run(self, plain: Block, *arguments: object) -> Tensor:
        """What `plain` gives for these arguments."""
        global _broken, _begun
        if _broken:
            return plain(*arguments)
        start = time.perf_counter()
        _begun = lambda: self.tell("compiling the loss, which takes ten seconds to more than a minute, once")  # noqa: E731
        try:
            values = _compiled(plain)(*arguments)
        except Exception as error:  # no compiler, no room, an unknown platform: all mean "do without"
            _broken = True
            log.warning("cannot compile the loss on this machine, going on without: %s", first_line(error))
            values = plain(*arguments)
        if _begun is None:
            took = time.perf_counter() - start
            self.seconds += took
            self.tell(f"compiled the loss in {took:.0f} s")
        _begun = None
        return values


_broken = False
_begun: Callable[[], None] | None = None
"""To be called, and taken away, as compiling begins."""


@cache
def _compiled(plain: Block) -> Block:
    return torch.compile(plain, dynamic=True, backend=_inductor)


def _inductor(graph: Any, inputs: list[Any]) -> Any:
    from torch._dynamo import lookup_backend  # takes seconds to import

    global _begun
    if _begun is not None:
        _begun()
        _begun = None
    return lookup_backend("inductor")(graph, inputs)
