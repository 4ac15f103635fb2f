"""ShuffleNet V1 (three groups) and V2 (width 1) for 32x32 images, both behind a 1x1 stem of stride 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Architecture, CifarNetwork, StagedNetwork, convolution, global_average_pool

_STEM_CHANNELS = 24


class ChannelShuffle(nn.Module):
    """Deals the channels of `groups` groups out in turn, so that the next grouped convolution sees all of them.

    By plain reshapes: torch's own channel_shuffle runs on CPU and CUDA only.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        return x.reshape(batch, self.groups, -1, height, width).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """V1's unit: grouped 1x1, channel shuffle, 3x3 depthwise, grouped 1x1; added to the input, or at stride 2
    concatenated with its average. `relu3` takes the sum or concatenation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        branch_channels = out_channels - in_channels if stride == 2 else out_channels
        hidden = branch_channels // 4
        self.conv1 = convolution(in_channels, hidden, 1, groups=first_groups)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.shuffle = ChannelShuffle(first_groups)
        self.conv2 = convolution(hidden, hidden, 3, stride, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(hidden, branch_channels, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(branch_channels)
        self.average = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        joined = branch + x if self.average is None else torch.cat((branch, self.average(x)), dim=1)
        out: Tensor = self.relu3(joined)
        return out


class ShuffleNetV1(StagedNetwork):
    """Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices"
    (arXiv:1707.01083), of three groups and width 1.

    Features, at 32x32: `relu` [N, 24, 32, 32], `layer1` [N, 240, 16, 16], `layer2` [N, 480, 8, 8],
    `layer3` [N, 960, 4, 4], all after activation; `avgpool` [N, 960] is the embedding.
    Start: all layers as PyTorch does.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (240, 480, 960),
        units: tuple[int, int, int] = (4, 8, 4),
        groups: int = 3,
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        stem = convolution(in_channels, _STEM_CHANNELS, 1)
        layers = []
        before, first_groups = _STEM_CHANNELS, 1  # which sees so few channels that the paper leaves it ungrouped
        for after, count in zip(channels, units, strict=True):
            first = ShuffleUnit(before, after, 2, groups, first_groups)
            further = (ShuffleUnit(after, after, 1, groups, groups) for _ in range(count - 1))
            layers.append(nn.Sequential(first, *further))
            before, first_groups = after, groups
        super().__init__(stem, layers, nn.Linear(before, num_classes), "linear")


class SplitUnit(nn.Module):
    """V2's unit of stride 1: half of the channels pass, the other half is convolved, then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = convolution(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        passed, branch = x.chunk(2, dim=1)
        branch = self.relu1(self.bn1(self.conv1(branch)))
        branch = self.relu2(self.bn3(self.conv3(self.bn2(self.conv2(branch)))))
        out: Tensor = self.shuffle(torch.cat((passed, branch), dim=1))
        return out


class DownUnit(nn.Module):
    """V2's unit of stride 2: both branches see the whole input and halve its size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = convolution(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = convolution(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv3 = convolution(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.conv4 = convolution(half, half, 3, stride=2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = convolution(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        left = self.relu1(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.relu2(self.bn3(self.conv3(x)))
        right = self.relu3(self.bn5(self.conv5(self.bn4(self.conv4(right)))))
        out: Tensor = self.shuffle(torch.cat((left, right), dim=1))
        return out


class ShuffleNetV2(CifarNetwork):
    """Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design" (arXiv:1807.11164), of
    width 1.

    Each stage has one unit more than the paper's (4, 8, 4), as in the public checkpoints: `units` counts those that
    follow the first. Features, at 32x32: `relu` [N, 24, 32, 32], `layer1` [N, 116, 16, 16], `layer2` [N, 232, 8, 8],
    `layer3` [N, 464, 4, 4], all after activation; `avgpool` [N, 1024] is the embedding.
    Start: all layers as PyTorch does.
    """

    stages = ("relu", "layer1", "layer2", "layer3")

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (116, 232, 464, 1024),
        units: tuple[int, int, int] = (3, 7, 3),
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, _STEM_CHANNELS, 1)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU()
        self.layer1 = _stage_v2(_STEM_CHANNELS, channels[0], units[0])
        self.layer2 = _stage_v2(channels[0], channels[1], units[1])
        self.layer3 = _stage_v2(channels[1], channels[2], units[2])
        self.conv2 = convolution(channels[2], channels[3], 1)
        self.bn2 = nn.BatchNorm2d(channels[3])
        self.relu2 = nn.ReLU()
        self.avgpool = global_average_pool()
        self.linear = nn.Linear(channels[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.avgpool(x))
        return logits


def _stage_v2(in_channels: int, channels: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_channels, channels), *(SplitUnit(channels) for _ in range(units)))


ARCHITECTURES = {
    "shufflenetv1": Architecture(ShuffleNetV1, {}),
    "shufflenetv2": Architecture(ShuffleNetV2, {}),
}
