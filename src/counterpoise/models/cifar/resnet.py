"""ResNets of 6n + 2 layers for 32x32 images, of the usual width and four times as wide (x4)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import (
    Architecture,
    CifarNetwork,
    convolution,
    global_average_pool,
    initialize_convolutions,
    residual_shortcut,
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the input of `relu2` is the block's feature before activation."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = residual_shortcut(in_channels, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu2(residual + self.downsample(x))
        return out


class ResNet(CifarNetwork):
    """The CIFAR ResNet of He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2.

    As in the distillation literature, shortcuts that change shape are 1x1 convolutions, where the paper pads with
    zeros. `widths` are the channels of the stem and of the three stages; the x4 networks widen the stem by two only.

    Features, at 32x32: `relu` [N, widths[0], 32, 32], `layer1` [.., 32, 32], `layer2` [.., 16, 16],
    `layer3` [.., 8, 8], all after activation; `avgpool` [N, widths[3]] is the embedding.
    Start: convolutions by `initialize_convolutions`, the classifier as PyTorch does.
    """

    stages: ClassVar[tuple[str, ...]] = ("relu", "layer1", "layer2", "layer3")

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = convolution(in_channels, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.avgpool = global_average_pool()
        self.fc = nn.Linear(widths[3], num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


_WIDE = (32, 64, 128, 256)

ARCHITECTURES = {
    **{f"resnet{depth}": Architecture(ResNet, {"depth": depth}) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": Architecture(ResNet, {"depth": depth, "widths": _WIDE}) for depth in (8, 32)},
}
