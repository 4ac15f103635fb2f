"""path/to/file.py:function: networks of the user's own, and modules and functions handed in from Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from counterpoise.errors import ModelError, nearest
from counterpoise.models.families.base import Built, Request, each_channel, register
from counterpoise.system import own_code


@register("file", summary="your own: path/to/file.py:function, called with num_classes and the arguments", names=list)
def build(name: str, request: Request) -> Built:
    """The module that the function named after the colon returns. The file is run, as `import` would."""
    path_text, _, function_name = name.rpartition(":")
    module = own_code.load(name, ModelError)
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"{path_text} has no function '{function_name}'.{nearest(function_name, own)}")
    return call(function, name, request)


def call(function: Callable[..., Any], name: str, request: Request) -> Built:
    """What a function of the user's returns. Raises ModelError where it fails, or returns no module."""
    given = dict(request.arguments)
    if request.num_classes is not None:
        given["num_classes"] = request.num_classes
    if request.channels != 3 and "in_chans" not in given and _takes(function, "in_chans"):
        given["in_chans"] = request.channels
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ModelError(f"{name} cannot be called with {', '.join(given) or 'no arguments'}: {error}.") from None
    except ValueError:
        pass  # a function without a signature to look at
    try:
        net = function(**given)
    except Exception as error:  # whatever the user's code raises
        raise ModelError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"{name} returned {type(net).__name__}, expected a torch.nn.Module.")
    return describe(net, request)


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # a function without a signature to look at
        return False


def describe(net: nn.Module, request: Request) -> Built:
    """A module with the `mean`, `std` and `input_size` it declares; pixels in [0, 1] as they are where it does not.

    A network of timm that has neither is shown pixels as its `pretrained_cfg` says, as timm's own scripts do.
    """
    blank = {"mean": (0.0,) * request.channels, "std": (1.0,) * request.channels}
    own = {key: _channels(getattr(net, key, None), request.channels) for key in blank}
    config = getattr(net, "pretrained_cfg", None)
    said = ""
    if not any(own.values()) and isinstance(config, Mapping):
        stated = {key: each_channel(config.get(key) or (), request.channels) for key in blank}
        own = {key: _channels(value, request.channels) for key, value in stated.items()}
        said = "its pretrained_cfg of timm" if any(own.values()) else ""
    size = getattr(net, "input_size", None)
    return Built(
        net,
        None,
        arguments=request.arguments,
        mean=own["mean"] or blank["mean"],
        std=own["std"] or blank["std"],
        input_size=size if isinstance(size, int) else None,
        normalization=said,
    )


def _channels(value: object, channels: int) -> tuple[float, ...] | None:
    """A number for each channel; a tensor of such a name is rather a buffer of a module that normalizes for itself."""
    return tuple(value) if isinstance(value, tuple | list) and len(value) == channels else None
