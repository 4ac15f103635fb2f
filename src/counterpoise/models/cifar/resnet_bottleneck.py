"""ResNet-50 for 32x32 images: ImageNet's stages behind a 3x3 stem that keeps the size of the image."""

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


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (which carries the stride), 1x1 up to four times `channels`; `relu3` takes the sum."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = residual_shortcut(in_channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.relu2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        out: Tensor = self.relu3(residual + self.shortcut(x))
        return out


class BottleneckResNet(CifarNetwork):
    """The bottleneck ResNet of He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), without
    ImageNet's early strides: a 3x3 stem of stride 1 and no max pooling.

    Features, at 32x32: `relu` [N, 64, 32, 32], `layer1` [N, 256, 32, 32], `layer2` [N, 512, 16, 16],
    `layer3` [N, 1024, 8, 8], `layer4` [N, 2048, 4, 4], all after activation; `avgpool` [N, 2048] is the embedding.
    Start: convolutions by `initialize_convolutions`, the classifier as PyTorch does.
    """

    stages: ClassVar[tuple[str, ...]] = ("relu", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)
        self.avgpool = global_average_pool()
        self.linear = nn.Linear(2048, num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(self.avgpool(x))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    later_in = channels * Bottleneck.expansion
    first = Bottleneck(in_channels, channels, stride)
    return nn.Sequential(first, *(Bottleneck(later_in, channels, 1) for _ in range(blocks - 1)))


ARCHITECTURES = {"resnet50": Architecture(BottleneckResNet, {"blocks": (3, 4, 6, 3)})}
