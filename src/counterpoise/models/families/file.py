"""path/to/file.py:function: networks of the user's own, and modules and functions handed in from Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from counterpoise.errors import ModelError, nearest
from counterpoise.models.families.base import Built, Request, register
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
    """A module with the `mean`, `std` and `input_size` it declares; pixels in [0, 1] as they are where it does not."""

    def channels(key: str, default: float) -> tuple[float, ...]:
        # a tensor of this name is rather a buffer of a module that normalizes for itself
        value = getattr(net, key, None)
        count = request.channels
        return tuple(value) if isinstance(value, tuple | list) and len(value) == count else (default,) * count

    size = getattr(net, "input_size", None)
    return Built(
        net,
        None,
        arguments=request.arguments,
        mean=channels("mean", 0.0),
        std=channels("std", 1.0),
        input_size=size if isinstance(size, int) else None,
    )
