"""MobileNetV2 of half width for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from .base import (
    Architecture,
    CifarNetwork,
    activated,
    convolution,
    global_average_pool,
    initialize_classifier,
    initialize_convolutions,
)

# Expansion, channels at full width, blocks and stride of the first block: the paper's table 2, but with stride 1
# where channels become 24.
_SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_EMBEDDING = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; added to the input where shapes agree.

    Unlike the paper's, the expansion is there at factor 1 too, and the activation is an unbounded ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *activated(convolution(in_channels, hidden, 1)),
            *activated(convolution(hidden, hidden, 3, stride, groups=hidden)),
            convolution(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.adds_input else out


class MobileNetV2(CifarNetwork):
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv:1801.04381), in the 32x32 form
    of the distillation literature: every channel count but the last times `width`.

    Features, at 32x32 and width 0.5: `conv1` [N, 16, 16, 16], `blocks.1` [N, 12, 16, 16], `blocks.2` [N, 16, 8, 8],
    `blocks.4` [N, 48, 4, 4], `blocks.6` [N, 160, 2, 2]; the stem is activated, the others are the linear bottlenecks
    that the network carries. `avgpool` [N, 1280] is the embedding.
    Start: convolutions by `initialize_convolutions`, the classifier by `initialize_classifier`.
    """

    stages = ("conv1", "blocks.1", "blocks.2", "blocks.4", "blocks.6")

    def __init__(self, width: float = 0.5, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*activated(convolution(in_channels, channels, 3, stride=2)))
        self.blocks = nn.Sequential()
        for expansion, full_width, count, stride in _SETTINGS:
            group = nn.Sequential()
            for index in range(count):
                out_channels = int(full_width * width)
                group.append(InvertedResidual(channels, out_channels, 1 if index else stride, expansion))
                channels = out_channels
            self.blocks.append(group)
        self.conv2 = nn.Sequential(*activated(convolution(channels, _EMBEDDING, 1)))
        self.avgpool = global_average_pool()
        linear = nn.Linear(_EMBEDDING, num_classes)
        self.classifier = nn.Sequential(linear)  # the public checkpoints name it `classifier.0`
        initialize_convolutions(self)
        initialize_classifier(linear)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.blocks(self.conv1(x)))
        logits: Tensor = self.classifier(self.avgpool(x))
        return logits


ARCHITECTURES = {"mobilenetv2": Architecture(MobileNetV2, {"width": 0.5})}
