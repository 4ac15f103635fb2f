"""The run file: one Pydantic class a section, and the only place where options, their defaults and their help live.

A run file is YAML. Every option is also a flag of the same name: `train.epochs` is `--train.epochs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from counterpoise.system.addresses import address_of

Share = Annotated[float, Field(ge=0.0, le=1.0)]
LARGEST_EDGE = 16_384
"""Of a view or of a network's input, in pixels."""
Edge = Annotated[int, Field(ge=1, le=LARGEST_EDGE)]
MOST_REDUCED = 1024
"""How many times smaller than they are scenes are shown at most."""
BATCH_BYTES = 2**34
"""Of the pixels of a batch at most."""
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Channels = tuple[float, float, float]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    # Built when first used: `counterpoise --help` waits for none.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), defer_build=True
    )


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


class RandAugment(Section):
    """RandAugment (Cubuk et al. 2020): `operations` random operations of one strength."""

    operations: int = Field(2, ge=1, le=8, description="operations an image")
    magnitude: int = Field(9, ge=0, le=30, description="strength, 0 to 30")


class Views(Section):
    """How a training image is varied; drawn from (seed, epoch, sample index) alone."""

    crop: Literal["auto", "none", "pad", "resized"] = Field(
        "auto",
        description="pad: pad and crop; resized: random resized crop; auto: pad where all images have one size of at "
        "most 64 pixels, else resized",
    )
    size: tuple[int, int] | None = Field(
        None,
        description="height and width of a training view; default: data.size, or small images' own size, or the larger "
        "input of the two models",
    )
    padding: int = Field(4, ge=0, le=1024, description="pixels of padding for crop pad")
    scale: tuple[float, float] = Field((0.08, 1.0), description="share of the area kept by crop resized")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="aspect ratios of crop resized")
    flip: bool = Field(True, description="mirror half of the views")
    decode: Literal["exact", "scaled"] = Field(
        "exact",
        description="exact: every pixel of a photo is decoded; scaled: a JPEG that is much larger than its view needs "
        "is decoded at 1/2, 1/4 or 1/8 of its size, still at least twice that of the view; evaluation is always exact",
    )
    randaugment: RandAugment | None = Field(None, description="RandAugment; none when left out")
    mixup: float = Field(0.0, ge=0.0, description="alpha of mixup's Beta(alpha, alpha); 0 is off")
    cutmix: float = Field(0.0, ge=0.0, description="alpha of cutmix's Beta(alpha, alpha); 0 is off")

    @model_validator(mode="after")
    def _ranges(self) -> Views:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must rise within (0, 1], got {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be positive and rise, got {list(self.ratio)}")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be 1 pixel or more, got {list(self.size)}")
        return self


class Scenes(Section):
    """How an image with a mask is shown, for segmentation. Training views are drawn as those of `views` are."""

    size: tuple[Edge, Edge] | None = Field(
        None, description="height and width of a training view; default: data.size, or that of the scenes"
    )
    reduction: float = Field(
        1.0,
        ge=1.0,
        le=MOST_REDUCED,
        description="how many times smaller than the files networks see scenes, in training and afterwards",
    )
    scale: tuple[float, float] = Field((0.5, 2.0), description="smallest and largest enlargement of a training view")
    flip: bool = Field(True, description="mirror half of the views")
    jitter: float = Field(0.0, ge=0.0, le=1.0, description="strength of changes in brightness, contrast, saturation")
    window: tuple[Edge, Edge] | None = Field(
        None, description="height and width of a window that slides over a scene in evaluation; default: whole scenes"
    )
    resolution: Literal["full", "logits"] = Field(
        "full",
        description="where logits are compared with the teacher's: at that of the view (full), or at that of the "
        "student's logits, to which the teacher's are resampled; labels always count at full resolution",
    )

    @model_validator(mode="after")
    def _ranges(self) -> Scenes:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be positive and rise, got {list(self.scale)}")
        if self.scale[1] > 16:
            raise ValueError(f"scale enlarges by up to 16, got {list(self.scale)}")
        return self


class Data(Section):
    """Where the images come from. A bare path stands for `{path: PATH}`."""

    path: Path | None = Field(
        None, description="folder of the data set; of packs also an address, such as s3://bucket/pack"
    )
    source: str = Field("auto", description="kind of data: see `counterpoise list sources`; auto looks at the folder")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the source, by name")
    unlabeled: Path | None = Field(
        None, description="folder or pack of photos without labels, for distill: the teacher's word alone"
    )
    val_fraction: float = Field(0.1, gt=0.0, lt=1.0, description="part held out where the data has no val split")
    split_seed: int = Field(0, ge=0, lt=2**63, description="seed of that split")
    held_out: int = Field(
        0,
        ge=0,
        description="training images, by split_seed, that take the place of val: to choose without looking at it",
    )
    class_order: Literal["numbers", "text"] = Field(
        "numbers",
        description="classes that are all called by whole numbers are in their order, or in that of text (0, 1, 10, "
        "11, 2), as earlier versions had them",
    )
    on_corrupt: Literal["stop", "skip"] = Field("stop", description="what to do with an image that cannot be read")
    fit: Literal["crop", "squash", "pad"] = Field(
        "crop",
        description="how pictures are brought to the square input: crop cuts out the center, squash resizes all of "
        "them, pad keeps their shape within black",
    )
    alpha: Literal["auto", "white", "ignore"] = Field(
        "auto",
        description="a fourth band of pictures: white composites it as transparency over white, ignore leaves it out "
        "as data; auto looks at some of them",
    )
    white_level: int | None = Field(
        None, ge=1, le=65535, description="value that is white in gray files of 16 bits, such as 4095; default: 65535"
    )
    max_megapixels: Positive = Field(179.0, description="larger pictures are refused, before they fill the memory")
    size: Edge | None = Field(
        None,
        description="edge in pixels of training views, and of pictures for networks without an input size; default: "
        "see data.views.size",
    )
    memory_limit_gb: float = Field(
        2.0, ge=0.0, allow_inf_nan=False, description="images of one size that fit are held in memory, decoded"
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto",
        description="processes that decode images which are not in memory; auto: the cores that this one may use, at "
        "most 16",
    )
    shuffle: Literal["full", "blocks"] = Field(
        "full",
        description="order of an epoch: full, any image anywhere; blocks, what lies together is read together",
    )
    block_size: int | None = Field(
        None, ge=1, description="images in a block, for shuffle blocks; default: the shards of a pack, 64 elsewhere"
    )
    shuffle_window: int | None = Field(
        None,
        ge=1,
        description="blocks whose images are mixed, for shuffle blocks; default: 16, or as many as hold 16,384 images",
    )
    views: Views = Field(default_factory=Views, description="augmentation")
    scenes: Scenes = Field(default_factory=Scenes, description="images with masks, for segmentation")

    @field_serializer("path", "unlabeled", when_used="json-unless-none")
    def _address(self, path: Path) -> str:
        return address_of(path) or str(path)


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


class Teacher(Model):
    """The large network that is imitated; frozen, in eval mode."""

    classes: Path | None = Field(
        None, description="YAML file {class: teacher's class, name or index, or a list of them}; default: by name"
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
    outputs: Literal["auto", "logits", "probabilities"] = Field(
        "auto",
        description="what it answers; of probabilities the logarithm is taken; auto: logits, and probabilities are "
        "refused where they are seen",
    )
    missing: Literal["refuse", "live"] = Field(
        "refuse", description="views that are not in the store: an error, or asked of the network"
    )


class Optimizer(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="sgd or adamw")
    learning_rate: Positive = Field(0.05, description="peak learning rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum of sgd")
    nesterov: bool = Field(False, description="Nesterov momentum for sgd")
    betas: tuple[float, float] = Field((0.9, 0.999), description="betas of adamw")
    weight_decay: float = Field(5e-4, ge=0.0, description="weight decay")
    decay_norms: bool = Field(True, description="apply weight decay to biases and norm layers, too")


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
    clip_gradient: Positive | None = Field(None, description="largest gradient norm")
    ema: float | None = Field(
        None, gt=0.0, lt=1.0, description="decay of a moving average of weights, which is then the student"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the processor has it"
    )
    channels_last: bool | Literal["auto"] = Field("auto", description="memory layout; auto: where it helps")
    compile: bool = Field(False, description="torch.compile the networks")
    fast: bool | Literal["auto"] = Field(
        "auto",
        description="small images: whole steps in device memory, on CUDA as one graph; auto: on CUDA, where it can be",
    )
    ship: Literal["last", "best"] = Field(
        "last", description="whose weights are the student: the last epoch's, or those of the best on the val images"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations; the last is always evaluated")
    checkpoint_minutes: float = Field(
        2.0, ge=0.0, description="minutes between checkpoints within an epoch; 0: every step"
    )
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    tensorboard: bool = Field(False, description="write TensorBoard files beside metrics.jsonl (extra: tensorboard)")

    @model_validator(mode="after")
    def _parts_fit(self) -> Train:
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate cuts {self.batch_size} images (batch_size) into {self.accumulate} parts")
        return self


class Run(Section):
    """A whole run."""

    task: str = Field(
        "classification",
        description="what the student answers: classification, segmentation, or a task of another package",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the one source of chance")
    out: Path | None = Field(None, description="folder of the run; default: runs/STUDENT-TIME")
    data: Data = Field(default_factory=Data, description="where the images come from")
    teacher: Teacher | None = Field(None, description="the network that is imitated; none for train")
    student: Student = Field(default_factory=Student, description="the network that is trained")
    objective: dict[str, Term] = Field(
        default_factory=lambda: {"cross_entropy": Term(weight=1.0), "balance": Term(weight=1.0)},
        description="terms by name, each with its weight and the objective's arguments",
    )
    train: Train = Field(default_factory=Train, description="the training loop")

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
            if batch * 3 * height * width > BATCH_BYTES:
                raise ValueError(
                    f"{batch} pictures of {height} x {width} (train.batch_size, data.size or input_size) take "
                    f"{batch * 3 * height * width / 1e9:,.0f} GB a step; up to {BATCH_BYTES / 1e9:,.0f} GB are taken"
                )
        return self
