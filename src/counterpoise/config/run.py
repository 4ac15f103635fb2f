"""The run file: one Pydantic class a section, and the only place where options, their defaults and their help live.

A run file is YAML. Every option is also a flag of the same name: `train.epochs` is `--train.epochs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from counterpoise.config.data import Data
from counterpoise.config.section import BATCH_BYTES, Channels, Edge, Folder, Positive, Section, Share


class Schedule(Section):
    """A number that moves over training, from `start` at the first step to `end` at the last."""

    shape: Literal["constant", "linear", "cosine"] = Field("linear", description="how it moves")
    start: float = Field(description="value at the first step")
    end: float | None = Field(None, description="value at the last step; not used by constant")

    @model_validator(mode="after")
    def _end_is_given(self) -> Schedule:
        if self.shape != "constant" and self.end is None:
            raise ValueError(f"a {self.shape} schedule needs 'end'")
        return self


class Term(BaseModel):
    """One weighted term. Other keys are arguments of the objective itself, each a value or a schedule."""

    model_config = ConfigDict(extra="allow", frozen=True)

    weight: float | Schedule = Field(1.0, description="weight of this term, or a schedule {shape, start, end}")
    objective: str | None = Field(None, description="objective, where the term is not named after it; or file.py:Class")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the objective."""
        return dict(self.model_extra or {})


class Model(Section):
    """A network and its weights."""

    model: str | None = Field(
        None,
        description="timm/NAME, torchvision/NAME, smp/ARCHITECTURE:ENCODER, hf/FOLDER, cifar/NAME, digits/NAME or "
        "file.py:function",
    )
    checkpoint: Path | None = Field(
        None, description="weights: .safetensors, .pt (weights only), a student folder or a run"
    )
    weights: Literal["auto", "live", "ema"] = Field(
        "auto", description="which of a checkpoint that holds weights and their moving average: live, ema; auto: ema"
    )
    pretrained: bool | str = Field(False, description="published weights of timm or torchvision: true, or a tag")
    arguments: dict[str, Any] = Field(default_factory=dict, description="further arguments of the network, by name")
    mean: Channels | None = Field(None, description="channel means of pixels in [0, 1]; default: the network's own")
    std: Channels | None = Field(None, description="channel deviations; default: the network's own")
    input_size: Edge | None = Field(
        None, description="edge in pixels that images are resized to; default: the network's own"
    )

    @field_validator("pretrained", mode="before")
    @classmethod
    def _truth_may_be_text(cls, pretrained: Any) -> Any:
        """On the command line `false` is text, as the name of a tag is."""
        truth = {"true": True, "yes": True, "false": False, "no": False}
        return truth.get(pretrained.lower(), pretrained) if isinstance(pretrained, str) else pretrained

    @field_validator("std")
    @classmethod
    def _std_is_positive(cls, std: Channels | None) -> Channels | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be positive")
        return std


class Student(Model):
    """The small network that is trained."""

    two_heads: bool = Field(
        False,
        description="a classifier for labels and one for the teacher on one feature, their answers mixed as is best on "
        "the val images: for few labels",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description="parts that stay as they are: names of modules or parameters, * and ? stand for anything, such as "
        "'stem' or 'blocks.[0-3]'; their batch norms keep their statistics",
    )


class Imitated(Model):
    """A network that is imitated, and how its answers are taken."""

    classes: Path | None = Field(
        None, description="YAML file {class: teacher's class, name or index, or a list of them}; default: by name"
    )
    prompts: Path | None = Field(
        None,
        description="YAML file of class names, or of sentences a class: the network answers by words (CLIP, SigLIP, "
        "SigLIP 2), with its own weights",
    )
    outputs: Literal["auto", "logits", "probabilities"] = Field(
        "auto",
        description="what it answers; of probabilities the logarithm is taken; auto: logits, and probabilities are "
        "refused where they are seen",
    )


class Member(Imitated):
    """One of several teachers."""

    weight: Positive = Field(1.0, description="how much it counts in a mean, beside the others")
    store: str | None = Field(
        None, description="its recorded logits, instead of the network; then all members have one"
    )

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_path(cls, values: Any) -> Any:
        return {"checkpoint": values} if isinstance(values, str | Path) else values


class Teacher(Imitated):
    """The large network that is imitated, or several as one; frozen, in eval mode."""

    members: tuple[Member, ...] = Field(
        (),
        description="several networks, each as a teacher has it, with its weight, or the path of a checkpoint; on the "
        "command line paths, or each as JSON; `teachers` in a run file is this",
    )
    combine: Literal["probabilities", "logits", "surest", "right"] = Field(
        "probabilities",
        description="of several: the mean of their probabilities or of their logits, or for each picture the surest, "
        "or the one that is most sure of its label",
    )
    views: Literal[1, 2, 4, 6, 10, 12] = Field(
        1,
        description="answers are means over so many views of each picture: 2 with its mirror image, 4 upside down, "
        "too; 10, of photos, as 2 with those of its corners; 6 and 12, of scenes, as 2 and 4 at three sizes",
    )
    calibrate: Literal["auto"] | Positive = Field(
        1.0,
        description="of a teacher by prompts: what its logits are divided by; auto: fitted on labeled training images",
    )
    minimum_confidence: Share = Field(
        0.0, description="views whose likeliest class is less probable to the teacher do not teach; 0: all do"
    )
    accept_chance: bool = Field(
        False, description="go on with a teacher that answers the validation data as chance would"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: as the student's training")
    store: str | None = Field(
        None,
        description="folder or address of recorded logits (`counterpoise record`) to take instead of the network; "
        "{seed} in it stands for the run's seed",
    )
    shard: bool = Field(
        False,
        description="several processes: each keeps a share of its weights, for a teacher that fits on no card; same "
        "answers",
    )
    missing: Literal["refuse", "live"] = Field(
        "refuse", description="views that are not in the store: an error, or asked of the network"
    )

    @field_validator("views", mode="before")
    @classmethod
    def _numbers_may_be_text(cls, views: Any) -> Any:
        """On the command line they are."""
        return int(views) if isinstance(views, str) and views.isdecimal() else views


class Optimizer(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="sgd or adamw")
    learning_rate: Positive = Field(0.05, description="peak learning rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum of sgd")
    nesterov: bool = Field(False, description="Nesterov momentum for sgd")
    betas: tuple[float, float] = Field((0.9, 0.999), description="betas of adamw")
    weight_decay: float = Field(5e-4, ge=0.0, description="weight decay")
    decay_norms: bool = Field(True, description="apply weight decay to biases and norm layers, too")
    no_weight_decay: bool = Field(
        False, description="no weight decay for what the network itself excepts, such as position embeddings"
    )
    layer_decay: Share | None = Field(
        None,
        description="factor of the learning rate from each layer to the one below it, as timm divides its networks",
    )
    rates: dict[str, Positive] = Field(
        default_factory=dict,
        description="factors of the learning rate by names of modules or parameters, {'head': 10}; of several that "
        "name a parameter the last counts",
    )


class LearningRateSchedule(Section):
    """How the learning rate moves over training."""

    name: Literal["constant", "multistep", "cosine", "one_cycle", "poly"] = Field("cosine", description="its shape")
    milestones: tuple[Annotated[float, Field(ge=0.0)], ...] = Field(
        (0.625, 0.75, 0.875),
        description="where multistep multiplies by gamma: shares of the run, or epochs where any of them is 1 or more",
    )
    gamma: Positive = Field(0.1, description="factor of multistep")
    warmup_epochs: float = Field(0.0, ge=0.0, description="epochs of linear rise from zero (not for one_cycle)")
    rise: float = Field(0.3, gt=0.0, lt=1.0, description="part of one_cycle that rises")
    power: Positive = Field(0.9, description="exponent of poly")
    final: Share = Field(0.0, description="last learning rate of cosine, one_cycle and poly, as part of the peak")

    def milestone_epochs(self, epochs: int) -> tuple[float, ...]:
        """The milestones of a run of so many epochs, in epochs; none where the shape has none."""
        if self.name != "multistep":
            return ()
        shares = all(milestone < 1 for milestone in self.milestones)
        return tuple(round(milestone * epochs, 9) if shares else milestone for milestone in self.milestones)


class Train(Section):
    """The training loop."""

    epochs: int = Field(30, ge=1, description="passes over the training data")
    batch_size: int = Field(64, ge=1, le=2**20, description="images a step, over all processes together")
    drop_last: bool = Field(False, description="leave out the last incomplete batch of an epoch")
    accumulate: int = Field(
        1,
        ge=1,
        description="parts in which each process computes its share of a batch, one after the other, to need less "
        "memory; a step is still one update by all of train.batch_size",
    )
    sync_batch_norm: bool = Field(
        False, description="several processes: batch norm is over the whole batch, not over each one's share"
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="the optimizer")
    schedule: LearningRateSchedule = Field(
        default_factory=LearningRateSchedule, description="how the learning rate moves"
    )
    clip_gradient: Positive | None = Field(
        5.0, description="largest norm of the gradient, over all parameters; a longer one is scaled to it; null: any"
    )
    ema: float | None = Field(
        None, gt=0.0, lt=1.0, description="decay of a moving average of weights, which is then the student"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the processor has it"
    )
    reduce_dtype: Literal["fp32", "bf16"] = Field(
        "fp32", description="several processes: what gradients are in on their way between them; bf16 is half as much"
    )
    channels_last: bool | Literal["auto"] = Field("auto", description="memory layout; auto: where it helps")
    compile: bool = Field(False, description="torch.compile the networks")
    fast: bool | Literal["auto"] = Field(
        "auto",
        description="small images: whole steps in device memory, on CUDA as one graph; auto: on CUDA, where it can be",
    )
    extends: tuple[int, ...] = Field(
        (), description="written by --extend: of how many epochs the run was that this one goes on from"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many evaluations without a better score on the val images, and ship the best; the "
        "learning rate moves as in a run of all train.epochs",
    )
    ship: Literal["last", "best"] = Field(
        "last", description="whose weights are the student: the last epoch's, or those of the best on the val images"
    )
    scores: tuple[str, ...] = Field(
        (), description="of masks: further scores of each evaluation, such as case_dice, hd95, recall:vessel"
    )
    best_by: str | None = Field(None, description="the score that picks the best epoch; default: the task's first")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations; the last is always evaluated")
    checkpoint_minutes: float = Field(
        2.0, ge=0.0, description="minutes between checkpoints within an epoch; 0: every step"
    )
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    tensorboard: bool = Field(False, description="write TensorBoard files beside metrics.jsonl (extra: tensorboard)")
    wandb: bool = Field(
        False,
        description="curves to Weights & Biases, too, as its own variables say: WANDB_PROJECT, ... (extra: wandb)",
    )
    mlflow: bool = Field(
        False, description="curves to MLflow, too, as its own variables say: MLFLOW_TRACKING_URI, ... (extra: mlflow)"
    )

    @model_validator(mode="before")
    @classmethod
    def _patience_ships_the_best(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("patience") is not None and "ship" not in values:
            return {**values, "ship": "best"}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> Train:
        if self.patience is not None and self.ship != "best":
            raise ValueError("patience ends a run some epochs after its best one, which then ships: give ship: best")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate cuts {self.batch_size} images (batch_size) into {self.accumulate} parts")
        return self


_LABELS, _TEACHER = "cross_entropy", "balance"
_BY_SIGMOIDS = ("binary_cross_entropy", "binary_balance")
_OF_TASKS = {"multilabel": _BY_SIGMOIDS, "multilabel_segmentation": _BY_SIGMOIDS}


def usual_terms(task: str) -> dict[str, Term]:
    """The terms of a run of this task that names none: first that of the labels, then that of the teacher."""
    return {name: Term(weight=1.0) for name in _OF_TASKS.get(task, (_LABELS, _TEACHER))}


class Run(Section):
    """A whole run."""

    task: str = Field(
        "classification",
        description="what the student answers: classification (one class a picture), multilabel (several), "
        "segmentation (one class a pixel), multilabel_segmentation (several), or a task of another package",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the one source of chance")
    out: Folder | None = Field(None, description="folder of the run; default: runs/STUDENT-TIME")
    data: Data = Field(default_factory=Data, description="where the images come from")
    teacher: Teacher | None = Field(None, description="the network that is imitated; none for train")
    student: Student = Field(default_factory=Student, description="the network that is trained")
    objective: dict[str, Term] = Field(
        default_factory=lambda values: usual_terms(values.get("task", "")),
        description="terms by name, each with its weight and the objective's arguments",
    )
    train: Train = Field(default_factory=Train, description="the training loop")

    @model_validator(mode="before")
    @classmethod
    def _teachers_are_one(cls, values: Any) -> Any:
        """`teachers` is a list of the members of `teacher`."""
        if not isinstance(values, dict) or "teachers" not in values:
            return values
        given, teacher = values["teachers"], values.get("teacher") or {}
        if not isinstance(given, list | tuple):
            raise ValueError("teachers is a list of two or more, each as a teacher has it")
        if not isinstance(teacher, dict) or "members" in teacher:
            raise ValueError("teachers and teacher.members are the same: give one of them")
        rest = {key: value for key, value in values.items() if key != "teachers"}
        return {**rest, "teacher": {**teacher, "members": list(given)}}

    @field_validator("data", mode="before")
    @classmethod
    def _data_may_be_a_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str | Path) else data

    @field_validator("objective")
    @classmethod
    def _some_objective(cls, objective: dict[str, Term]) -> dict[str, Term]:
        if not objective:
            raise ValueError("needs at least one term, such as {balance: {weight: 1}}")
        for name in objective:
            if not name or "." in name:
                raise ValueError(f"the name of a term must not be empty or hold a dot, got {name!r}")
        return objective

    @model_validator(mode="after")
    def _batches_fit(self) -> Run:
        data, batch = self.data, self.train.batch_size
        edges = [data.size, self.student.input_size, self.teacher.input_size if self.teacher else None]
        views = [(edge, edge) for edge in edges if edge]
        for height, width in (*views, *filter(None, (data.views.size, data.scenes.size))):
            if batch * data.channels * height * width > BATCH_BYTES:
                gigabytes = batch * data.channels * height * width // 10**9
                raise ValueError(
                    f"{batch} pictures of {height} x {width} (train.batch_size, data.size or input_size) take "
                    f"{gigabytes:,} GB a step; up to {BATCH_BYTES / 1e9:,.0f} GB are taken"
                )
        return self
