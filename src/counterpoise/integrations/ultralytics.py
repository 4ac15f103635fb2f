"""The classification trainer of Ultralytics, with the batches and the objective of a run.

Ultralytics is not a dependency of this package, for its licence is AGPL-3.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from counterpoise import config
from counterpoise.engine import inputs
from counterpoise.engine.inputs import RunLike
from counterpoise.errors import ConfigError, ModelError
from counterpoise.integrations.batches import Batches
from counterpoise.integrations.distillation import Distillation
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
try:
    import ultralytics
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.nn.tasks import ClassificationModel
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.loss import v8ClassificationLoss
except ImportError as missing:
    raise ModelError("Ultralytics is not there: pip install ultralytics (its licence is AGPL-3.0).") from missing


class Classifier(nn.Module):
    """A classifier of Ultralytics that answers logits, in training and in evaluation.

    Args:
        model: a ClassificationModel, or the name of a YAML file that describes one, such as yolo11n-cls.yaml.
        num_classes: of a model that is described.
    """

    def __init__(self, model: nn.Module | str, num_classes: int | None = None) -> None:
        super().__init__()
        make: Any = ClassificationModel
        self.model: nn.Module = make(model, nc=num_classes, verbose=False) if isinstance(model, str) else model

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [N, C]."""
        answer = self.model(pixels)
        logits: Tensor = answer[1] if isinstance(answer, tuple) else answer
        return logits


class _Criterion:
    """The loss of a batch of the run, which brings it; of others, as in validation, that of Ultralytics.

    It knows nothing itself, for it is copied with the moving average of the model.
    """

    def __call__(self, answer: Any, batch: dict[str, Any]) -> Any:
        if "taught" not in batch:
            return v8ClassificationLoss()(answer, batch)
        total, terms = batch["distillation"].terms(answer, batch["taught"])
        return total, {name.replace("/", "_"): value.detach() for name, value in {"loss": total, **terms}.items()}


class _Batches:
    """The batches of a run as the trainer takes them."""

    drop_last = False

    def __init__(self, distillation: Distillation) -> None:
        self.distillation = distillation
        self.batches: Batches = distillation.loader
        self.dataset = self.batches.dataset
        self.batch_size = self.batches.batch_size
        self.num_workers = distillation.parts.train.workers
        self.sampler = self

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def reset(self) -> None:
        """Nothing is kept."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for pixels, taught in self.batches:
            yield {"img": pixels, "cls": taught.labels, "taught": taught, "distillation": self.distillation}


class DistillationTrainer(ClassificationTrainer):
    """A `ClassificationTrainer` whose student learns by a run, over the run's own views.

    With the command of Ultralytics: `YOLO("yolo11n-cls.yaml").train(trainer=partial(DistillationTrainer, "run.yaml"))`.

    Args:
        run: a run file's path, its values, or a resolved `Run`; see `Distillation`. It names no student.model; its
            classes are those of the trainer's `data`. Pixels are not normalized, unless it says otherwise.
        cfg, overrides, _callbacks: as for `ClassificationTrainer`; `batch` and `epochs` are those of the run.

    Attributes:
        distillation: the run, from the beginning of training on.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data, the models or the store.
        ConfigError: overrides have other epochs, or another batch, than the run.
    """

    distillation: Distillation

    def __init__(
        self,
        run: RunLike,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
    ) -> None:
        self.run = _unnormalized(inputs.resolve(run))
        train = self.run.train
        for name, own in (("epochs", train.epochs), ("batch", train.batch_size)):
            if (given := (overrides or {}).get(name, own)) != own:
                key = f"train.{name if name == 'epochs' else 'batch_size'}"
                raise ConfigError(f"{name}={given} is given to the trainer, and the run has {own}: give it as {key}.")
        super().__init__(cfg, {**(overrides or {}), "batch": train.batch_size, "epochs": train.epochs}, _callbacks)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The run's batches for training; the trainer's own images for validation."""
        if mode != "train":
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        model: Any = self.model
        self.distillation = Distillation(self.run, student=Classifier(model), device=self.device)
        model.criterion = _Criterion()
        names = tuple(self.data["names"].values())
        own = self.distillation.parts.classes
        if names != own:
            order = sorted(names) == sorted(own)
            raise ConfigError(
                f"The trainer's classes ({', '.join(names[:5])}, ...) are not those of the run "
                f"({', '.join(own[:5])}, ...): "
                + ("it sorts names as text, so set data.class_order: text." if order else "give the same data to both.")
            )
        return _Batches(self.distillation)

    def save_student(self, path: str | Path) -> Path:
        """Write the student folder, of the moving average of weights, as Ultralytics ships it."""
        average: Any = self.ema
        return self.distillation.save(path, Classifier(average.ema), by=f"ultralytics {ultralytics.__version__}")


def _unnormalized(run: config.Run) -> config.Run:
    """Pixels in [0, 1], as Ultralytics gives them to classifiers, unless the run says otherwise."""
    if run.student.model is not None:
        raise ConfigError("The student is the trainer's model: leave student.model out of the run.")
    mean, std = run.student.mean or (0.0,) * run.data.channels, run.student.std or (1.0,) * run.data.channels
    return run.model_copy(update={"student": run.student.model_copy(update={"mean": mean, "std": std})})
