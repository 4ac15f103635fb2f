"""A function of static buffers as a CUDA graph: launched as one, where its kernels by themselves would wait for Python.

The pattern is that of torch's own notes ("Whole-network capture"): some calls on a side stream first, then the capture,
which only notes down what is launched, and one replay a call from then on. The calls before are steps of training like
any other, since the function is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import first_line

WARM_UP = 3
"""Calls before the capture; the last of them is watched."""

_SYNCHRONIZES = "called a synchronizing CUDA operation"
_PROTOTYPE = "Synchronization debug mode is a prototype"


class Capture:
    """Calls `function` with CUDA kernels, and replays it once it has been captured.

    What cannot be captured is called as it is, for good: `obstacle` says why.

    Args:
        function: changes tensors in place; a replay does to the same memory what a call would.
        modules: whose weights and buffers it changes, in place. Tensors that they keep as plain attributes are for the
            log: after a replay they are what the graph has written.
        clear: undoes what a call that broke off may have left behind.
    """

    def __init__(
        self, function: Callable[[], None], modules: nn.Module, device: torch.device, clear: Callable[[], None]
    ) -> None:
        self.function = function
        self.modules = modules
        self.device = device
        self.clear = clear
        self.obstacle: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._attributes: list[tuple[nn.Module, str, Any]] = []
        self._key: Hashable = None
        self._calls = 0

    def __call__(self, key: Hashable) -> None:
        """Do it once. A graph serves calls of one `key`: whatever of Python's the function depends on."""
        if self.obstacle is not None:
            self.function()
            return
        if key != self._key or self._calls == 0:
            self._key, self._calls, self._graph, self._attributes = key, 0, None, []
        self._calls += 1
        if self._graph is None and self._calls <= WARM_UP:
            self._warm_up(watch=self._calls == WARM_UP)
            return
        if self._graph is None and not self._capture():
            self.function()
            return
        assert self._graph is not None
        self._graph.replay()
        for module, name, value in self._attributes:  # a call in between may have put something else there
            vars(module)[name] = value

    def _warm_up(self, watch: bool) -> None:
        current = torch.cuda.current_stream(self.device)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            if watch:
                self.obstacle = self._watched()
            else:
                self.function()
        current.wait_stream(side)

    def _watched(self) -> str | None:
        """Call it, and say what a graph would not do again."""
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        generator = torch.cuda.default_generators[index]
        state, memory = generator.get_state(), self._memory()
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.function()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        waited = [warning for warning in caught if _SYNCHRONIZES in str(warning.message)]
        for warning in caught:
            if warning not in waited and _PROTOTYPE not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if waited:
            return f"the step waits for the device, in {waited[0].filename}, line {waited[0].lineno}"
        if not torch.equal(state, generator.get_state()):
            return "the step draws random numbers"
        moved = [name for name, address in self._memory().items() if memory.get(name) != address]
        return f"the step replaces {moved[0]} instead of changing it in place" if moved else None

    def _memory(self) -> dict[str, int]:
        named = [*self.modules.named_parameters(), *self.modules.named_buffers()]
        return {name: value.data_ptr() for name, value in named}

    def _capture(self) -> bool:
        graph = torch.cuda.CUDAGraph()
        try:
            # Others, such as threads that pin memory, may do what they like meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.function()
        except RuntimeError as error:  # nothing has been computed; what torch raises where it cannot capture
            self.clear()
            self.obstacle = f"the step could not be captured: {first_line(error)}"
            return False
        self._graph = graph
        self._attributes = plain_tensors(self.modules)
        return True


def plain_tensors(modules: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """The tensors, alone or in tuples, that modules keep as plain attributes: module, name, value."""
    return [
        (module, name, value)
        for module in modules.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
        or (isinstance(value, tuple) and value != () and all(isinstance(item, Tensor) for item in value))
    ]
