"""Small convolutional networks for the 8x8 digits of the demo."""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import Tensor, nn

from counterpoise.errors import ModelError, unknown


class DigitsNetwork(nn.Module):
    """3x3 convolutions, batch norm and ReLU, the first of stride 1, the others of 2; global average pool; linear.

    Takes normalized images [N, 3, H, W] (made for 8x8), returns logits [N, num_classes].
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int = 10) -> None:
        super().__init__()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (before, after) in enumerate(zip((3, *channels), channels, strict=False)):
            stages[f"stage{index + 1}"] = nn.Sequential(
                nn.Conv2d(before, after, 3, stride=1 if index == 0 else 2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
        self.features = nn.Sequential(stages)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def names() -> list[str]:
    """The names in use; any cnn_A_B and cnn_A_B_C of channel counts can be created."""
    return ["cnn_4_8", "cnn_8_16", "cnn_32_64", "cnn_32_64_128"]


def create(name: str, num_classes: int = 10) -> DigitsNetwork:
    """The network cnn_A_B or cnn_A_B_C with these numbers of channels. Raises ModelError for any other name."""
    if re.fullmatch(r"cnn(_[1-9]\d{0,3}){2,3}", name) is None:
        raise ModelError(f"{unknown('Digits network', name, names())} Any cnn_A_B or cnn_A_B_C of channel counts, too.")
    return DigitsNetwork(tuple(int(count) for count in name.split("_")[1:]), num_classes)
