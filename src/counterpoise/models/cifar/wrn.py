"""Wide residual networks: wrn_<depth>_<width> for every depth 6n + 4."""

from __future__ import annotations

import re

from torch import Tensor, nn

from counterpoise.errors import ModelError

from .base import Architecture, CifarNetwork, convolution, global_average_pool, initialize_convolutions, stage


class PreActivationBlock(nn.Module):
    """Normalize, activate, convolve, twice, beside a shortcut.

    The shortcut starts before the first activation where channels agree, and after it where a 1x1 convolution is
    needed.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = convolution(channels, channels, 3)
        # Named as in the public checkpoints; where there is none (None), stride is 1 too.
        self.convShortcut = None if in_channels == channels else convolution(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        residual: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return residual + (x if self.convShortcut is None else self.convShortcut(activated))


class Stage(nn.Module):
    """Blocks in a row, under the name `layer` that the public checkpoints give them."""

    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.layer = stage(PreActivationBlock, in_channels, channels, blocks, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(CifarNetwork):
    """WRN-depth-width of Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv:1605.07146), without dropout.

    Features, at 32x32 and width k: `conv1` [N, 16, 32, 32], `block1` [N, 16k, 32, 32], `block2` [N, 32k, 16, 16],
    `block3` [N, 64k, 8, 8], before activation as the network carries them. Their activated forms are the outputs of
    `block1.layer.0.relu1`, `block2.layer.0.relu1`, `block3.layer.0.relu1` and `relu`; `avgpool` [N, 64k] is the
    embedding.
    Start: convolutions by `initialize_convolutions`; the classifier as PyTorch does, its bias zero.
    """

    stages = ("conv1", "block1", "block2", "block3")

    def __init__(self, depth: int, width: int, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = convolution(in_channels, 16, 3)
        self.block1 = Stage(16, 16 * width, blocks, stride=1)
        self.block2 = Stage(16 * width, 32 * width, blocks, stride=2)
        self.block3 = Stage(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.avgpool = global_average_pool()
        self.fc = nn.Linear(64 * width, num_classes)
        initialize_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))))
        return logits


def parse(name: str) -> Architecture | None:
    """The network of any name wrn_<depth>_<width>, None for a name of another form.

    Raises:
        ModelError: the depth is not 6n + 4 with n >= 1, or the width is 0.
    """
    match = re.fullmatch(r"wrn_([0-9]+)_([0-9]+)", name)
    if match is None:
        return None
    depth, width = int(match[1]), int(match[2])
    if depth < 10 or (depth - 4) % 6 != 0 or width < 1:
        nearest = max(10, 4 + 6 * round((depth - 4) / 6))
        raise ModelError(
            f"CIFAR network '{name}': wrn_<depth>_<width> wants a depth of 6n + 4 (10, 16, 22, 28, 34, 40, ...) and a "
            f"width of at least 1. Did you mean 'wrn_{nearest}_{max(1, width)}'?"
        )
    return Architecture(WideResNet, {"depth": depth, "width": width})


ARCHITECTURES = {
    f"wrn_{depth}_{width}": Architecture(WideResNet, {"depth": depth, "width": width})
    for depth in (16, 40)
    for width in (1, 2)
}
