"""A Trainer of Hugging Face transformers that distils: the objective of a run, from a store or a teacher."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from counterpoise.data.sources.base import ImageSet
from counterpoise.deploy.publishing import push
from counterpoise.engine import inputs
from counterpoise.engine.inputs import RunLike
from counterpoise.errors import ConfigError, MissingExtraError, RunError, damage
from counterpoise.integrations.batches import MIDDLE_OF_AN_EPOCH, Batches, TaughtBatch
from counterpoise.integrations.distillation import Distillation
from counterpoise.integrations.wrappers import bare
from counterpoise.system import torchvision_guard
from counterpoise.system.files import read_tensors, write_tensors

torchvision_guard.ready()
try:
    import transformers
    from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
except ImportError as missing:  # accelerate, too, without which there is no Trainer
    raise MissingExtraError("The Trainer of Hugging Face", "hf") from missing

STUDENT = "student"
STATE = "distillation.safetensors"
"""The file of a checkpoint with the averages of an objective that has some."""


class _Keeping(TrainerCallback):
    """Puts the averages of an objective into each checkpoint."""

    def __init__(self, distillation: Distillation) -> None:
        self.distillation = distillation

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        averages = self.distillation.state_dict()["objective"]
        if averages and state.is_world_process_zero and folder.is_dir():  # else it was one too many, and has gone
            write_tensors(folder / STATE, averages)


def _kept(file: Path) -> dict[str, Any] | None:
    """The state in such a file; None where there is none. Raises RunError: it is damaged."""
    if not file.is_file():
        return None
    try:
        return {"objective": read_tensors(file)[0], "given": 0}
    except Exception as error:  # whatever safetensors finds wrong with a damaged file
        raise RunError(f"{file} cannot be read: {damage(error)}.") from None


def _read_as_saved(model: Any, checkpoint: Path) -> None:
    """Have a network of transformers have the weights of a checkpoint.

    Where these are saved under other names than the network has them, as those of a ViT in transformers 5, `Trainer`
    reads none of them and goes on with a warning; `from_pretrained` knows both.
    """
    saved = any((checkpoint / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    if saved and isinstance(model, PreTrainedModel):
        model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict())


class _WholeEpochs:
    """Where `Trainer` looks for samplers to skip batches."""

    def __iter__(self) -> Iterator[Any]:
        raise ConfigError(f"{MIDDLE_OF_AN_EPOCH} (save_strategy='epoch').")


class _Inputs:
    """The batches of a run as `Trainer` takes them."""

    batch_sampler = _WholeEpochs()
    num_workers, prefetch_factor = 0, None

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.dataset = batches.dataset
        self.sampler = None
        self.set_epoch = batches.set_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor | TaughtBatch]]:
        for pixels, batch in self.batches:
            yield {"pixel_values": pixels, "taught": batch}


def _require_items(images: Any, network: Any) -> None:
    """Raises ConfigError for a run's own images, which `Trainer` cannot take one by one, and for a network that does
    not take them as it gives them."""
    if isinstance(images, ImageSet):
        raise ConfigError(
            f"{type(images).__name__} holds images as a run reads them, and this takes items with 'pixel_values' "
            "and 'labels': evaluate() scores the run's val images, counterpoise.predict and counterpoise.evaluate ask "
            "a student folder about any others."
        )
    net = bare(network)
    takes = inspect.signature(net.forward).parameters
    if "pixel_values" not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        raise ConfigError(
            f"Items with 'pixel_values' and 'labels' are for networks of transformers, and {type(net).__name__} takes "
            f"'{next(iter(takes), '')}': leave eval_dataset out, and evaluate() scores the run's val images. "
            "counterpoise.predict and counterpoise.evaluate ask a student folder about any others."
        )


def _require_nothing_unused(args: TrainingArguments, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for what `Trainer` takes and the training of a run would not look at."""
    ways = {
        "label_smoothing_factor": "give label_smoothing to the term of labels: cross_entropy: {label_smoothing: 0.1}",
        "compute_loss_func": "the loss is the objective of the run, which may have a term of your own "
        "(objective: {path/to/file.py:Class})",
        "train_dataset": "the images are those of the run: data.path, or data=Splits(train, val)",
        "compute_metrics": "without eval_dataset the run's val images are scored as its task does, with the scores of "
        "train.scores",
    }
    used = {**given, "label_smoothing_factor": args.label_smoothing_factor or None}
    if given.get("eval_dataset") is not None:
        used["compute_metrics"] = None
    for name, way in ways.items():
        if used.get(name) is not None:
            raise ConfigError(f"{name} would have no effect here: leave it out; {way}.")


class DistillationTrainer(Trainer):
    """A `Trainer` of the student of a run.

    It goes through the run's own views, so that what a store says belongs to them; images a step are the run's
    train.batch_size. Without an `eval_dataset`, `evaluate` scores the run's val images and gauges student and teacher.

    Args:
        run: a run file's path, its values, or a resolved `Run`; see `Distillation`.
        model: the student, the network that the run's student.model names; default: what that is.
        args: num_train_epochs is the run's train.epochs; so it is where none are given.
        teacher, data: as for `Distillation`.
        kwargs: as for `Trainer`, but train_dataset, compute_loss_func and, without an eval_dataset, compute_metrics.

    Attributes:
        distillation: the run.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data, the models or the store.
    """

    def __init__(
        self,
        run: RunLike,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        teacher: nn.Module | None = None,
        data: Any = None,
        **kwargs: Any,
    ) -> None:
        args = TrainingArguments(num_train_epochs=inputs.resolve(run).train.epochs) if args is None else args
        _require_nothing_unused(args, kwargs)
        # args.device lets processes meet.
        self.distillation = Distillation(run, student=model, teacher=teacher, data=data, device=args.device)
        self._own_val = kwargs.get("eval_dataset") is None
        parts = self.distillation.parts
        if not self._own_val and kwargs["eval_dataset"] is not parts.val.images:
            _require_items(kwargs["eval_dataset"], self.distillation.network)
        images = {"train_dataset": parts.train.images, "eval_dataset": parts.val.images}
        super().__init__(model=self.distillation.network, args=args, **{**images, **kwargs})
        self.model_accepts_loss_kwargs = False  # each loss is a mean over its own batch
        self.add_callback(_Keeping(self.distillation))
        self._best: tuple[float, str | None] | None = None

    def train(self, resume_from_checkpoint: Any = None, *given: Any, **named: Any) -> Any:
        """As `Trainer` does; from a checkpoint on with the averages of the objective, too.

        Raises:
            ConfigError: args ask for more epochs than the run has; the checkpoint is of the middle of one.
        """
        if self.args.max_steps > 0:
            self.distillation.require_epochs(self.args.max_steps / self._updates(), f"max_steps={self.args.max_steps}")
        else:
            epochs = self.args.num_train_epochs
            self.distillation.require_epochs(epochs, f"num_train_epochs={epochs:g}")
        self._best = None
        newest: Any = get_last_checkpoint
        last = newest(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if last and Path(last).is_dir():
            self.distillation.load_state_dict(_kept(Path(last, STATE)))
        return super().train(resume_from_checkpoint, *given, **named)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        _read_as_saved(self.model if model is None else model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.state.best_model_checkpoint is not None:
            _read_as_saved(self.model, Path(self.state.best_model_checkpoint))
            step = int(self.state.best_model_checkpoint.rpartition("-")[2])
            chosen_by = self.args.metric_for_best_model or "loss"
            self._best = step / self._updates(), chosen_by.removeprefix("eval_") if self._own_val else None

    def _updates(self) -> int:
        """Steps of the optimizer in an epoch."""
        return math.ceil(len(self.distillation.loader) / self.args.gradient_accumulation_steps)

    def get_train_dataloader(self) -> Any:
        """The run's batches."""
        return _Inputs(self.distillation.loader)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective of the run on its own batches; on others, such as an eval_dataset, the model's own loss."""
        if "taught" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(inputs["pixel_values"])
        loss = self.distillation.loss(outputs, inputs["taught"])
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Of the run's val images the scores and the gauge; of another set as `Trainer` does.

        Raises ConfigError for other images of the run, which do not come as `Trainer` takes them.
        """
        own = self.distillation.parts.val.images
        if eval_dataset is not own and (eval_dataset is not None or not self._own_val):
            _require_items(eval_dataset if eval_dataset is not None else self.eval_dataset, self.model)
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        found = {f"{metric_key_prefix}_{name}": value for name, value in self.distillation.evaluate(self.model).items()}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def predict(self, test_dataset: Any, *given: Any, **named: Any) -> Any:
        """As `Trainer` does, of sets of its kind. Raises ConfigError for images of the run."""
        _require_items(test_dataset, self.model)
        return super().predict(test_dataset, *given, **named)

    def save_student(self, path: str | Path | None = None) -> Path:
        """Write the student folder; default: `student` in args.output_dir."""
        folder = Path(self.args.output_dir or ".", STUDENT) if path is None else Path(path)
        by = f"transformers {transformers.__version__}"
        return self.distillation.save(folder, self.model, by=by, best=self._best)

    def push_to_hub(  # type: ignore[override]  # an address, as counterpoise.push has it
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """Put the student folder with its card onto the Hub, as `counterpoise.push` does; the first process returns its
        address. Of the arguments `private` counts, by default args.hub_private_repo.

        Raises:
            ConfigError: args.hub_model_id is missing.
            PushError: the Hub did not take it.
        """
        to = self.args.hub_model_id
        if to is None:
            raise ConfigError("Where to push: give hub_model_id='org/name' to TrainingArguments.")
        folder = self.save_student()
        if not self.is_world_process_zero():
            return ""
        private = bool(self.args.hub_private_repo) if private is None else private
        url: str = push(folder, to=to, private=private)["url"]
        return url
