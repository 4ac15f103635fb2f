"""Weights for pictures of three channels as a start for pictures of other ones: the first layer is adapted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from counterpoise.errors import ModelError
from counterpoise.models.families.base import Built, Request


def adapted(built: Built, make: Callable[[Request], Built], request: Request, name: str) -> tuple[Built, str]:
    """The network for the channels of the request with the weights of one for three, and what is to be said of it.

    Raises ModelError where it is not its first layer alone that differs.
    """
    other = make(replace(request, num_classes=built.num_classes or request.num_classes))
    have, own = built.net.state_dict(), other.net.state_dict()
    differing = [key for key, value in own.items() if key not in have or have[key].shape != value.shape]
    shapes = [(have[key].shape, own[key].shape) for key in differing if key in have]
    if len(shapes) != 1 or len(differing) != 1 or shapes[0][0][1] != 3 or shapes[0][1][1] != request.channels:
        raise ModelError(
            f"{name}: its weights are for three channels, and not its first layer alone depends on them, so that they "
            f"are no start for {request.channels} (data.channels)."
        )
    first = differing[0]
    have[first] = widened(have[first], request.channels)
    other.net.load_state_dict(have)
    how = "are added up" if request.channels == 1 else "are repeated in turn, times 3 / channels"
    return other, (
        f"Its weights are for three channels, and pictures have {request.channels}: in the first layer, {first}, those "
        f"of the three {how}, and means and deviations are the mean of those of the three."
    )


def widened(weight: Tensor, channels: int) -> Tensor:
    """The weight of a convolution [O, 3, ...] for other channels, as timm adapts it.

    Summed for one, as if gray were RGB. Repeated in turn for others, times 3 / channels: sums stay about as large.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-channels // weight.shape[1])
    return weight.repeat(1, repeats, *[1] * (weight.ndim - 2))[:, :channels] * (weight.shape[1] / channels)
