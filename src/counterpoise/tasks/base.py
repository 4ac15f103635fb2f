"""What differs between tasks: how answers are scored and shown. Nothing outside this room asks which task it is."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from counterpoise.errors import ConfigError, unknown

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.models.network import VisionModel


class Score(ABC):
    """A quick score kept while training: `state` adds up over batches and processes."""

    state: Tensor

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch; targets that hold no label are left out."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """The metrics by name, from `state`."""


class Report(ABC):
    """The full set of metrics of an evaluation."""

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """Metrics by name; `per_class` is a list of rows, one a class."""


class Task(ABC):
    """One kind of task."""

    name: ClassVar[str]
    hub_name: ClassVar[str]
    """What the Hugging Face hub calls it."""
    headline: ClassVar[str]
    """The metric that picks the best epoch; larger is better."""

    @abstractmethod
    def check(self, images: ImageSet) -> None:
        """Raises ConfigError where the images do not have what this task learns from."""

    @abstractmethod
    def score(self, num_classes: int) -> Score:
        """A fresh quick score."""

    @abstractmethod
    def report(self, classes: Sequence[str]) -> Report:
        """A fresh full report."""

    @abstractmethod
    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        """The teacher's answer in the form of a target, for data without labels."""

    @abstractmethod
    def predict(self, model: VisionModel, images: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model says of pictures (paths, PIL images or uint8 arrays), one JSON-able answer each."""


def get(name: str) -> Task:
    """The task called `name`. Each file of this folder holds one. Raises ConfigError for an unknown name."""
    package = importlib.import_module("counterpoise.tasks")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base"]
    if name not in names:
        raise ConfigError(unknown("Task", name, names))
    task: Task = importlib.import_module(f"counterpoise.tasks.{name}").TASK
    return task
