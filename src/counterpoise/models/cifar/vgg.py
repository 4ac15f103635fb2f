"""VGG with batch normalization for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Architecture, CifarNetwork, global_average_pool, initialize_classifier, initialize_convolutions


class VGG(CifarNetwork):
    """VGG of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
    (arXiv:1409.1556), with batch normalization, one linear classifier, and no pooling after the fourth of its five
    blocks. `convolutions` counts the 3x3 convolutions of each block.

    Features, at 32x32: `relu0` [N, 64, 32, 32], `relu1` [N, 128, 16, 16], `relu2` [N, 256, 8, 8],
    `relu3` [N, 512, 4, 4], `relu4` [N, 512, 4, 4]; `block0` to `block4` give the same before activation; `avgpool`
    [N, 512] is the embedding. Images of 64 pixels and more are pooled after the fourth block too.
    Start: convolutions by `initialize_convolutions`, the classifier by `initialize_classifier`.
    """

    stages = ("relu0", "relu1", "relu2", "relu3", "relu4")

    def __init__(
        self, convolutions: tuple[int, int, int, int, int], num_classes: int = 100, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.block0, self.relu0 = _block(in_channels, 64, convolutions[0]), nn.ReLU()
        self.block1, self.relu1 = _block(64, 128, convolutions[1]), nn.ReLU()
        self.block2, self.relu2 = _block(128, 256, convolutions[2]), nn.ReLU()
        self.block3, self.relu3 = _block(256, 512, convolutions[3]), nn.ReLU()
        self.block4, self.relu4 = _block(512, 512, convolutions[4]), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.avgpool = global_average_pool()
        self.classifier = nn.Linear(512, num_classes)
        initialize_convolutions(self)
        initialize_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        pool_fourth = x.shape[2] >= 64
        x = self.pool(self.relu0(self.block0(x)))
        x = self.pool(self.relu1(self.block1(x)))
        x = self.pool(self.relu2(self.block2(x)))
        x = self.relu3(self.block3(x))
        if pool_fourth:
            x = self.pool(x)
        x = self.relu4(self.block4(x))
        logits: Tensor = self.classifier(self.avgpool(x))
        return logits


def _block(in_channels: int, channels: int, count: int) -> nn.Sequential:
    """Convolutions with their normalization, activated in between; the last activation is the network's."""
    layers: list[nn.Module] = []
    for index in range(count):
        if index:
            layers.append(nn.ReLU())
        # The bias is idle before a batch normalization, but the public checkpoints have it.
        layers += [nn.Conv2d(channels if index else in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)


ARCHITECTURES = {
    "vgg8": Architecture(VGG, {"convolutions": (1, 1, 1, 1, 1)}),
    "vgg11": Architecture(VGG, {"convolutions": (1, 1, 2, 2, 2)}),
    "vgg13": Architecture(VGG, {"convolutions": (2, 2, 2, 2, 2)}),
    "vgg16": Architecture(VGG, {"convolutions": (2, 2, 3, 3, 3)}),
    "vgg19": Architecture(VGG, {"convolutions": (2, 2, 4, 4, 4)}),
}
