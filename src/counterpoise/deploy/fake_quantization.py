"""Layers that compute in float as if in 8 bits, with gradients: what rounding does, before any runtime is asked.

Weights are rounded by output channel, up to a format's largest weight (127 or 64), what a layer is given to 0 to 255
with a zero point, between its least and its largest value of the latest batches, as runtimes see it in calibration: a
narrower range would clip in training what they do not clip. Batch normalization need not be folded for that: it scales
a channel, and with it the channel's steps.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.deploy.tracing import quiet
from counterpoise.errors import ConfigError, MissingExtraError

INSIDE = "student.net."
"""What names of layers begin with in a deployed network."""
BATCHES = 8
"""Whose extremes are the range of what a layer is given."""
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def layers_of(network: nn.Module) -> list[str]:
    """Names of the layers with weights that quantizers round."""
    return [name for name, module in network.named_modules() if isinstance(module, LAYERS)]


def kept_layers(network: nn.Module, keep: Sequence[str]) -> tuple[str, ...]:
    """Layers to keep in float, by their full names in a deployed network, such as student.net.conv1.

    keep: these names, or without what all of them begin with (conv1). Raises ConfigError for a name that is none.
    """
    modules = [name for name, _ in network.named_modules() if name]
    known = set(modules)
    found = []
    for given in keep:
        full = next((begin + given for begin in ("", "student.", INSIDE) if begin + given in known), None)
        if full is None:
            raise ConfigError(_no_layer(given, [name for name in modules if name.startswith(INSIDE)]))
        found.append(full)
    return tuple(found)


def _no_layer(given: str, modules: Sequence[str]) -> str:
    """Which layer was meant: names are compared without what all of them begin with."""
    inner = [name.removeprefix(INSIDE) for name in modules]
    plain = given.removeprefix("student.").removeprefix("net.")
    close = difflib.get_close_matches(plain, inner, n=1, cutoff=0.5)
    near = f" Did you mean --keep {INSIDE}{close[0]}?" if close else f" A name is such as --keep {modules[0]}."
    shown = ", ".join(inner) if len(inner) <= 40 else f"{', '.join(inner[:20])}, ... ({len(inner)} in all)"
    return f"Layer to keep in float '{given}' is unknown.{near} Available, after {INSIDE}: {shown}."


@contextlib.contextmanager
def fake_quantized(network: nn.Module, names: Sequence[str] | None = None, *, largest: int) -> Iterator[nn.ModuleList]:
    """Within, these layers (default: all) compute as if in 8 bits. State and parameters of the network stay its own.

    largest: magnitude of the integers that weights become, a format's `largest_weight`.

    In training mode ranges of activations follow what is seen; in eval mode they stay, once something was seen. Gives
    the roundings, whose state is those ranges. Copies of the network, such as an average of it, round with the same.

    Raises MissingExtraError where torchao is missing.
    """
    roundings = nn.ModuleList()
    with contextlib.ExitStack() as hooks:
        for name in layers_of(network) if names is None else names:
            rounding = _Rounding(largest)
            roundings.append(rounding)
            layer = network.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(rounding.before))
            hooks.enter_context(layer.register_forward_hook(rounding.after, always_call=True))
        yield roundings


@contextlib.contextmanager
def resting(roundings: nn.ModuleList) -> Iterator[None]:
    """Within, the layers of these roundings compute in float."""
    for rounding in roundings:
        rounding.rests = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for rounding in roundings:
            rounding.rests = False  # type: ignore[assignment]


class _Rounding(nn.Module):
    """Rounds what a layer is given and its weights, while it is called. Its state is the range of what was given."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        if importlib.util.find_spec("torchao") is None:
            raise MissingExtraError("Fake quantization", "quantize")
        with quiet():  # torchao speaks of its compiled parts for other processors
            from torchao.quantization.pt2e import FakeQuantize, MinMaxObserver, PerChannelMinMaxObserver
        self.weight: nn.Parameter | None = None
        self.rests = False
        signed = {"dtype": torch.int8, "quant_min": -largest, "quant_max": largest, "ch_axis": 0}
        weight = FakeQuantize(observer=PerChannelMinMaxObserver, qscheme=torch.per_channel_symmetric, **signed)
        given = FakeQuantize(observer=MinMaxObserver, dtype=torch.uint8, quant_min=0, quant_max=255)
        given.disable_observer()  # whose range would never narrow
        # No submodules, for their buffers change in shape and are infinite at first.
        self._parts: tuple[FakeQuantize, FakeQuantize] = (weight, given)
        self._extremes: deque[Tensor] = deque(maxlen=BATCHES)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Rounding:
        return self

    def get_extra_state(self) -> Tensor:
        """Least and largest value of each of the latest batches, float32 [N, 2]."""
        return torch.stack(list(self._extremes)).cpu() if self._extremes else torch.zeros(0, 2)

    def set_extra_state(self, state: Tensor) -> None:
        """The batches of `get_extra_state`."""
        self._extremes.clear()
        for extremes in state:
            self._see(extremes)

    def _see(self, extremes: Tensor) -> None:
        """One more batch, by its least and largest value."""
        self._extremes.append(extremes)
        rounds_input = self._parts[1]
        seen = torch.stack(list(self._extremes)).to(rounds_input.scale.device)
        observer = rounds_input.activation_post_process
        observer.min_val, observer.max_val = seen[:, 0].min(), seen[:, 1].max()
        scale, zero_point = rounds_input.calculate_qparams()
        for buffer, value in ((rounds_input.scale, scale), (rounds_input.zero_point, zero_point)):
            buffer.resize_(value.shape).copy_(value)

    def before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """A hook: what the layer is given, rounded, and rounded weights in its place."""
        if self.rests:
            return inputs
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        rounds_weight, rounds_input = self._parts
        rounds_weight.activation_post_process.reset_min_max_vals()  # of the weights as they are, not as they were
        for part in self._parts:
            part.to(weight.device)
        given = inputs[0].float()
        if layer.training or not self._extremes:
            self._see(torch.stack(given.detach().aminmax()))
        self.weight = weight
        rounded: Tensor = rounds_weight(weight.float())
        # Through it the gradient reaches the parameter; put there as torch.func.functional_call does, in its place.
        layer._parameters["weight"] = rounded  # type: ignore[assignment]
        return (rounds_input(given), *inputs[1:])

    def after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A hook: the layer's own weights again."""
        if self.weight is not None:
            layer._parameters["weight"], self.weight = self.weight, None
