"""What the CIFAR networks share: their contract, and the few layers and starting values that are the same in all."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import nn


class CifarNetwork(nn.Module):
    """A classifier of small images: normalized float [N, in_channels, H, W] -> logits [N, num_classes].

    Features are taken with forward hooks. No layer works in place, so what a hook has caught stays as it was.
    """

    stages: ClassVar[tuple[str, ...]] = ()
    """Names of the submodules whose outputs are the features of the literature, from the stem to the last stage."""


class Architecture(NamedTuple):
    """A network class and the options that make it the one of that name."""

    network: type[CifarNetwork]
    options: dict[str, Any]


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias (batch normalization follows) that keeps the size of the map at stride 1."""
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)


def residual_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity where shapes agree, a normalized 1x1 convolution elsewhere (option B of He et al.)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def global_average_pool() -> nn.Sequential:
    """[N, C, H, W] -> [N, C]; of any H and W, so that networks made for 32x32 take other sizes too."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def initialize_convolutions(network: nn.Module) -> None:
    """He et al.'s normal initialization by fan-out (kernel area x output channels, groups not counted), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_classifier(linear: nn.Linear) -> None:
    """Small start of VGG and MobileNetV2: weights normal with standard deviation 0.01, biases zero."""
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
