"""What is gathered over the evaluation images, whatever the task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from counterpoise.data.epochs import Batch
from counterpoise.data.sources.base import ImageSet
from counterpoise.models.network import VisionModel

STUDENT, TEACHER = "student", "teacher"


class Gathering(ABC):
    """Answers of several models to the same images.

    Args:
        classes: names of the classes.
        models: by name: `STUDENT`, perhaps `TEACHER`, and further students.
        images: the set, for pictures.
    """

    def __init__(self, classes: Sequence[str], models: Mapping[str, VisionModel], images: ImageSet) -> None:
        self.classes = list(classes)
        self.models = dict(models)
        self.images = images

    @abstractmethod
    def update(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        """Count one batch: logits by the name of the model."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """What the page of this task shows, as plain values; pictures included."""
