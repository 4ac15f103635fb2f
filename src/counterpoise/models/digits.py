"""Small convolutional networks for the demos: for the 8x8 digits, and for scenes that digits lie in."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ModelError, unknown
from counterpoise.models.padding import Padded


class DigitsNetwork(nn.Module):
    """3x3 convolutions, batch norm and ReLU, the first of stride 1, the others of 2; global average pool; linear.

    Takes normalized images [N, in_channels, H, W] (made for 8x8), returns logits [N, num_classes].
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False)):
            stages[f"stage{index + 1}"] = _convolution(before, after, stride=1 if index == 0 else 2)
        self.features = nn.Sequential(stages)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


class ScenesNetwork(Padded):
    """The U-Net (Ronneberger et al., arXiv:1505.04597) in small, of 3x3 convolutions with batch norm and ReLU.

    Stage k of the encoder halves the resolution with the first of its k convolutions: most layers are where they cost
    least. Each stage of the decoder doubles it (nearest pixel), joins what the encoder saw there, and has one
    convolution; stage 1, at half the images' resolution, is the last. Then a 1x1 convolution.

    Takes normalized images [N, in_channels, H, W] of any size, returns logits [N, num_classes, ceil(H / 2),
    ceil(W / 2)].
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int = 11, in_channels: int = 3) -> None:
        super().__init__(2 ** len(channels))
        self.num_classes = num_classes
        self.encoder = nn.Sequential()
        self.decoder = nn.Sequential()
        for number, (before, after) in enumerate(zip((in_channels, *channels), channels, strict=False), 1):
            further = [_convolution(after, after, stride=1) for _ in range(number - 1)]
            self.encoder.add_module(f"stage{number}", nn.Sequential(_convolution(before, after, stride=2), *further))
        for number in range(len(channels) - 1, 0, -1):
            beside, below = channels[number - 1 : number + 1]
            self.decoder.add_module(f"stage{number}", _convolution(beside + below, beside, stride=1))
        self.classifier = nn.Conv2d(channels[0], num_classes, 1)

    def answer(self, images: Tensor) -> Tensor:
        """Logits at half the resolution."""
        maps = [images]
        for stage in self.encoder:
            maps.append(stage(maps[-1]))
        value = maps.pop()
        for stage in self.decoder:
            value = stage(torch.cat([F.interpolate(value, scale_factor=2.0), maps.pop()], 1))
        logits: Tensor = self.classifier(value)
        return logits


def names() -> list[str]:
    """The names in use; any cnn or unet of two or more channel counts can be created (cnn: at most three)."""
    return ["cnn_4_8", "cnn_8_16", "cnn_32_64", "cnn_32_64_128", "unet_16_16_16", "unet_16_32_96"]


def create(name: str, num_classes: int | None = None, in_channels: int = 3) -> DigitsNetwork | ScenesNetwork:
    """The network of this kind with these numbers of channels. Raises ModelError for any other name.

    Args:
        name: cnn_A_B or cnn_A_B_C for digits, unet_A_B up to unet_A_B_C_D_E for scenes.
        num_classes: default: 10 digits, and for scenes their background.
        in_channels: of pictures.
    """
    if re.fullmatch(r"(cnn(_[1-9]\d{0,3}){2,3}|unet(_[1-9]\d{0,3}){2,5})", name) is None:
        raise ModelError(
            f"{unknown('Digits network', name, names())} "
            "Any cnn_A_B, cnn_A_B_C and unet_A_B to unet_A_B_C_D_E of channel counts, too."
        )
    kind, *counts = name.split("_")
    channels = tuple(int(count) for count in counts)
    if kind == "cnn":
        return DigitsNetwork(channels, 10 if num_classes is None else num_classes, in_channels)
    return ScenesNetwork(channels, 11 if num_classes is None else num_classes, in_channels)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )
