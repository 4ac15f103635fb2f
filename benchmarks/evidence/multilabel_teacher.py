"""A classifier of CIFAR-100's fine classes as a teacher of its fine and coarse labels at once: nothing is trained.

The answer to a label is the logarithm of its odds, log p - log (1 - p): p is the classifier's probability of a fine
class, and of a group the sum over the five classes in it.

    python benchmarks/evidence/multilabel_teacher.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors OUT

writes the weights that `both` takes as a checkpoint, OUT.safetensors, labels in the order of multilabel_table.py.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from counterpoise.models import catalog

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
LEAST = 1e-7
"""Of a probability, so that its odds are finite."""


class Both(nn.Module):
    """Log odds of labels [N, 120] from a classifier of 100 classes; `members` [120, 100] says which are in a label."""

    members: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = catalog.build("cifar/wrn_16_2", num_classes=100).net
        self.register_buffer("members", torch.zeros(num_classes, 100))

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images to log odds."""
        shares = self.classifier(images).softmax(1) @ self.members.T
        return torch.logit(shares.clamp(LEAST, 1 - LEAST))


def both(num_classes: int = 120) -> Both:
    """As `teacher.model` takes it."""
    return Both(num_classes)


def main() -> None:
    """Write the weights."""
    source, weights, out = (Path(argument) for argument in sys.argv[1:4])
    with (source / "cifar-100-python" / "meta").open("rb") as file:
        meta = pickle.load(file, encoding="bytes")
    with (source / "cifar-100-python" / "test").open("rb") as file:
        test = pickle.load(file, encoding="bytes")
    fine = [name.decode() for name in meta[b"fine_label_names"]]
    coarse = [f"group {name.decode()}" for name in meta[b"coarse_label_names"]]
    rows = {name: torch.zeros(100) for name in sorted([*fine, *coarse])}  # the classes of the table, in its order
    for one, other in zip(test[b"fine_labels"], test[b"coarse_labels"], strict=True):
        rows[fine[one]][one] = rows[coarse[other]][one] = 1.0
    state = {f"classifier.{name}": value for name, value in load_file(weights).items()}
    save_file({**state, "members": torch.stack([*rows.values()])}, out)


if __name__ == "__main__":
    main()
