"""Networks of the user's own, which do not say what they answer, tried on an image."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from counterpoise.errors import ModelError
from counterpoise.models.families.base import Built
from counterpoise.models.network import VisionModel
from counterpoise.outputs import in_eval_mode

TRIAL_SIZE = 64  # edge of the image with which a network of no declared size is tried
OTHER_FLOATS = (torch.float16, torch.bfloat16, torch.float64)


def in_float32(built: Built, name: str, size: int | None) -> Built:
    """A network whose weights are all of one other kind of float, with them in float32, as all networks are trained.

    One that takes images as they come all the same, since it converts them itself, stays as it is.
    """
    kinds = {value.dtype for value in built.net.parameters() if value.is_floating_point()}
    if built.num_classes is not None or len(kinds) != 1 or not kinds <= {*OTHER_FLOATS}:
        return built
    try:
        _answer(built, name, size or built.input_size)
    except ModelError:
        raise
    except Exception:  # whatever the user's network raises
        built.net.float()
        kind = str(kinds.pop()).removeprefix("torch.")
        return replace(built, notes=(*built.notes, f"{name} has its weights in {kind}: they are taken in float32."))
    return built


def count_classes(built: Built, name: str, expected: int | None, size: int | None) -> tuple[int, Tensor | None]:
    """How many classes a network answers with, and the answer; `expected` where it fails, as on one image it may."""
    channels = len(built.mean)
    try:
        answer = _answer(built, name, size)
    except ModelError:
        raise
    except Exception as error:  # whatever the user's network raises
        if expected is not None and channels == 3:
            return expected, None
        edge = size or TRIAL_SIZE
        raise ModelError(
            f"{name} fails on an image [1, {channels}, {edge}, {edge}], so its number of classes is unknown: "
            f"{type(error).__name__}: {error}{'. Give input_size.' if size is None else ''}"
        ) from error
    if answer.ndim < 2 or answer.shape[0] != 1:
        raise ModelError(
            f"{name} returns a tensor of shape {list(answer.shape)} for one image, expected logits [1, classes]."
        )
    if expected is not None and answer.shape[1] != expected:
        raise ModelError(f"{name} gives {answer.shape[1]} logits, but there are {expected} classes.")
    return int(answer.shape[1]), answer


def _answer(built: Built, name: str, size: int | None) -> Tensor:
    """What a network answers to one black image, in eval mode. Raises whatever the network does."""
    net, channels = built.net, len(built.mean)
    blank = (0.0,) * channels
    parameter = next(net.parameters(), torch.zeros(()))
    edge = size or TRIAL_SIZE
    trial = VisionModel(net, name=name, num_classes=0, channels=channels, mean=blank, std=(1.0,) * channels)
    with in_eval_mode(trial), torch.no_grad():
        answer: Tensor = trial(torch.zeros(1, channels, edge, edge, device=parameter.device))
        return answer
