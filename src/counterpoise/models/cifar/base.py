"""What the CIFAR networks share: their contract, and the few layers and starting values that are the same in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn


class CifarNetwork(nn.Module):
    """A classifier of small images: normalized float [N, in_channels, H, W] -> logits [N, num_classes].

    Features are taken with forward hooks. No layer works in place, so what a hook has caught stays as it was.
    """

    stages: ClassVar[tuple[str, ...]] = ()
    """Names of the submodules whose outputs are the features of the literature, from the stem to the last stage."""


class StagedNetwork(CifarNetwork):
    """A stem of one convolution, three or four stages, global average pooling, and a linear classifier.

    Features: `relu`, the stem's, and the stages `layer1`, `layer2` and so on, all after activation; `avgpool` is the
    embedding.

    Args:
        stem, layers, linear: its parts.
        linear_name: what the public checkpoints call the classifier.
    """

    stages: ClassVar[tuple[str, ...]] = ("relu", "layer1", "layer2", "layer3")

    def __init__(self, stem: nn.Conv2d, layers: Sequence[nn.Module], linear: nn.Linear, linear_name: str) -> None:
        super().__init__()
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels)
        self.relu = nn.ReLU()
        for number, layer in enumerate(layers, 1):
            self.add_module(f"layer{number}", layer)
        self.avgpool = global_average_pool()
        self.add_module(linear_name, linear)
        self._linear_name = linear_name

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for name in self.stages[1:]:
            x = getattr(self, name)(x)
        logits: Tensor = getattr(self, self._linear_name)(self.avgpool(x))
        return logits


class Architecture(NamedTuple):
    """A network class and the options that make it the one of that name."""

    network: type[CifarNetwork]
    options: dict[str, Any]


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias (batch normalization follows) that keeps the size of the map at stride 1."""
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)


def stage(
    block: Callable[[int, int, int], nn.Module], in_channels: int, channels: int, count: int, stride: int
) -> nn.Sequential:
    """`count` blocks (in_channels, channels, stride) in a row, of which the first carries the stride."""
    further = channels * getattr(block, "expansion", 1)
    return nn.Sequential(block(in_channels, channels, stride), *(block(further, channels, 1) for _ in range(count - 1)))


def activated(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    """A convolution, its normalization and its activation."""
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()


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
