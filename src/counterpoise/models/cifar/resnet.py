"""ResNets for 32x32 images: of 6n + 2 layers, of the usual width and four times as wide (x4), and ResNet-50."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Architecture, StagedNetwork, convolution, initialize_convolutions, residual_shortcut, stage


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


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (which carries the stride), 1x1 up to four times `channels`; `relu3` takes the sum."""

    expansion = 4

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


class ResNet(StagedNetwork):
    """The CIFAR ResNet of He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2.

    As in the distillation literature, shortcuts that change shape are 1x1 convolutions, where the paper pads with
    zeros. `widths` are the channels of the stem and of the three stages; the x4 networks widen the stem by two only.

    Features, at 32x32: `relu` [N, widths[0], 32, 32], `layer1` [.., 32, 32], `layer2` [.., 16, 16],
    `layer3` [.., 8, 8]; `avgpool` [N, widths[3]].
    Start: convolutions by `initialize_convolutions`, the classifier as PyTorch does.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        blocks = (depth - 2) // 6
        stem = convolution(in_channels, widths[0], 3)
        layers = [stage(BasicBlock, widths[i], widths[i + 1], blocks, stride) for i, stride in enumerate((1, 2, 2))]
        super().__init__(stem, layers, nn.Linear(widths[3], num_classes), "fc")
        initialize_convolutions(self)


class BottleneckResNet(StagedNetwork):
    """The bottleneck ResNet of He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), without
    ImageNet's early strides: a 3x3 stem of stride 1 and no max pooling.

    Features, at 32x32: `relu` [N, 64, 32, 32], `layer1` [N, 256, 32, 32], `layer2` [N, 512, 16, 16],
    `layer3` [N, 1024, 8, 8], `layer4` [N, 2048, 4, 4]; `avgpool` [N, 2048].
    Start: convolutions by `initialize_convolutions`, the classifier as PyTorch does.
    """

    stages = ("relu", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int = 100, in_channels: int = 3) -> None:
        stem = convolution(in_channels, 64, 3)
        shapes = ((64, 64, 1), (256, 128, 2), (512, 256, 2), (1024, 512, 2))
        layers = [
            stage(Bottleneck, before, channels, count, stride)
            for (before, channels, stride), count in zip(shapes, blocks, strict=True)
        ]
        super().__init__(stem, layers, nn.Linear(2048, num_classes), "linear")
        initialize_convolutions(self)


_WIDE = (32, 64, 128, 256)

ARCHITECTURES = {
    **{f"resnet{depth}": Architecture(ResNet, {"depth": depth}) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": Architecture(ResNet, {"depth": depth, "widths": _WIDE}) for depth in (8, 32)},
    "resnet50": Architecture(BottleneckResNet, {"blocks": (3, 4, 6, 3)}),
}
