"""Networks of training scripts: what is wrapped around them, how they lie in memory, which network they are."""

from __future__ import annotations

import copy

import torch
from torch import nn

from counterpoise.errors import ModelError
from counterpoise.models.network import VisionModel

WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEma": "ema",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
}
"""What wraps a network without changing what it computes, and where it keeps it; by name, for imports take seconds."""


def bare(network: nn.Module) -> nn.Module:
    """A network without what DistributedDataParallel, torch.compile and moving averages wrap around it.

    They are known by their types: a network of one's own may hold another one as `module`, and compute more than that.
    """
    for kind in type(network).__mro__:
        if (held := WRAPPERS.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return bare(getattr(network, held))
    return network


def channels_last(network: nn.Module) -> bool:
    """Whether a script has laid the weights out with channels innermost."""
    innermost = torch.channels_last
    images = (value for value in network.parameters() if value.ndim == 4 and not value.is_contiguous())
    return any(value.is_contiguous(memory_format=innermost) for value in images)


def in_float32(network: nn.Module) -> nn.Module:
    """The network, or where its weights are of another precision a copy in that of student folders."""
    if all(value.dtype == torch.float32 for value in network.parameters() if value.is_floating_point()):
        return network
    return copy.deepcopy(network).float()


def require_same(student: VisionModel, network: nn.Module) -> None:
    """Raises ModelError unless a network has the weights of a student's, in number and shape."""
    ours, theirs = ({n: tuple(v.shape) for n, v in net.state_dict().items()} for net in (student.net, network))
    if ours != theirs:
        name = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
        hint = (
            f" A {type(network).__name__} holds such a one as `module`: give that, where it computes the same."
            if {f"module.{each}" for each in ours} == {*theirs}
            else ""
        )
        raise ModelError(
            f"The run's student is {student.name} of {student.num_classes} classes, and the network that is trained "
            f"is another: of '{name}' it has {theirs.get(name, 'nothing')}, expected {ours.get(name, 'nothing')}. Name "
            f"the same in student.model as in the script, with its student.arguments, or leave student.model out.{hint}"
        )
