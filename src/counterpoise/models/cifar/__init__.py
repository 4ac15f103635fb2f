"""The 32x32 networks of the distillation literature, with the parameter names of the public RepDistiller checkpoints.

They take normalized float images [N, in_channels, H, W], made for 32x32 and good from 8x8 up, and return logits
[N, num_classes]. Features are the outputs of submodules (`stages` names the usual ones), taken with forward hooks.
"""

from __future__ import annotations

from counterpoise.errors import ModelError, unknown

from . import mobilenetv2, resnet, shufflenet, vgg, wrn
from .base import Architecture, CifarNetwork

__all__ = ["CifarNetwork", "create", "names", "stages"]

_ARCHITECTURES: dict[str, Architecture] = {
    **resnet.ARCHITECTURES,
    **wrn.ARCHITECTURES,
    **vgg.ARCHITECTURES,
    **mobilenetv2.ARCHITECTURES,
    **shufflenet.ARCHITECTURES,
}


def names() -> list[str]:
    """All fixed names, family by family, small before large; beside them every wrn_<depth>_<width> can be created."""
    return list(_ARCHITECTURES)


def create(name: str, num_classes: int = 100, in_channels: int = 3) -> CifarNetwork:
    """The network of that name, freshly initialized in float32.

    Raises:
        ModelError: the name is unknown, a wide residual network's depth is not 6n + 4, or a count is below 1.
    """
    network, options = _architecture(name)
    for what, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise ModelError(f"CIFAR network '{name}': {what} is {count}, expected at least 1.")
    return network(**options, num_classes=num_classes, in_channels=in_channels)


def stages(name: str) -> tuple[str, ...]:
    """Names of the submodules whose outputs are the features of a network, from its stem to its last stage.

    Raises:
        ModelError: as `create` for the name.
    """
    return _architecture(name).network.stages


def _architecture(name: str) -> Architecture:
    architecture = _ARCHITECTURES.get(name) or wrn.parse(name)
    if architecture is None:
        raise ModelError(unknown("CIFAR network", name, names()) + " Any wrn_<depth>_<width> of depth 6n + 4 too.")
    return architecture
