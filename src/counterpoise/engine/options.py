"""What may be asked of a student or of a recording: keywords in Python, flags on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    PlainValidator,
    SkipValidation,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from counterpoise import config
from counterpoise.config import Section
from counterpoise.config.options import NO_FLAG, Device, Epoch, Place, Show

if TYPE_CHECKING:
    from torch import nn

    from counterpoise.data.sources.base import Splits
    from counterpoise.engine.inputs import RunLike
    from counterpoise.models.catalog import Model as NamedModel

    Network = nn.Module
    Teacher = config.Teacher | Mapping[str, Any] | Place | Network
    Part = tuple[int, int]
    Titles = Mapping[str, Place]
else:  # what a flag holds of it
    Network, Teacher, Part, Titles = object, config.Teacher, str, dict[str, Place]
    RunLike, NamedModel, Splits = Path, str, object

DataPath = Annotated[
    RunLike | None,
    SkipValidation,
    Field(description="data folder or run file; default: the data of the run that the student lies in"),
]
DataSet = Annotated[Splits | None, SkipValidation, NO_FLAG, Field(description="Splits(train, val), instead of data")]
Model = Annotated[
    NamedModel | None,
    SkipValidation,
    Field(description="the student's network where it is code of your own, file.py:function"),
]


Averaged = Annotated[
    int,
    Field(
        description="answers are means over so many views of each picture, as teacher.views has them: 2 with its "
        "mirror image, 4 upside down, too; 10 of photos; 6 and 12 of scenes"
    ),
]


Edges = Annotated[int, Field(ge=1)]


class Window(Section):
    """Through what scenes are looked at."""

    window: tuple[Edges, Edges] | None = Field(
        default=None,
        description="height and width of a window that slides over scenes, in pixels as the student sees them; "
        "default: the student's own, or none (segmentation)",
    )
    overlap: float | None = Field(
        default=None,
        ge=0.0,
        le=0.95,
        description="share of the window that the next one covers again; default: a third",
    )
    blend: Literal["mean", "linear", "gaussian"] | None = Field(
        default=None,
        description="how windows over a pixel count: alike (mean), less towards their edges (linear), or as a bell "
        "from their middles (gaussian); default: the student's own, or mean",
    )


class Evaluate(Window):
    """On what a student is scored."""

    data: DataPath = None
    split: str | None = Field(
        default=None, description="which split to score on where the data has several, such as test"
    )
    model: Model = None
    batch_size: int | None = Field(
        default=None, description="images at once; default: as in the run that the student lies in, else 250"
    )
    device: Device = "auto"
    data_set: DataSet = None
    epoch: Epoch = None
    scores: tuple[str, ...] = Field(
        default=(),
        description="of masks: further scores by name, see `counterpoise list scores`, such as hd95 or cldice",
    )
    by_case: Place | None = Field(
        default=None, description="of masks: CSV file for the scores of each case and each picture"
    )
    overwrite: bool = Field(default=False, description="replace the file of --by-case")
    views: Averaged = 1
    show: Show = False


Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Promised(Section):
    """What a student promises, and on which pictures that is tried."""

    risk: Share = Field(default=0.02, description="at most this share of its answers is wrong")
    confidence: Share = Field(default=0.95, description="how sure that is, over the choice of the pictures")
    coverage: Share = Field(
        default=0.9, description="share of pictures whose true class is in the set of classes it names"
    )
    data: DataPath = None
    split: str | None = Field(default=None, description="which split of it, where there are several, such as test")
    model: Model = None
    batch_size: int | None = Field(default=None, description="images at once; default: as in the run, else 250")
    device: Device = "auto"
    data_set: DataSet = None
    show: Show = False


class Cascaded(Section):
    """On which pictures a student and its teacher answer together, and how much they may lose."""

    teacher: Annotated[Place | None, NO_FLAG] = Field(
        default=None, description="student folder, or run, of the teacher"
    )
    give: float = Field(
        default=0.0, ge=0.0, le=100.0, description="points of top-1 that both together may be behind the teacher alone"
    )
    data: DataPath = None
    split: str | None = Field(default=None, description="which split of it, where there are several, such as test")
    batch_size: int | None = Field(default=None, description="images at once; default: as in the run, else 250")
    device: Device = "auto"
    data_set: DataSet = None


def _as_section(teacher: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """Values of the section are looked through; folders and modules are taken as they are."""
    return validated(teacher) if isinstance(teacher, Mapping) else teacher


class Gauge(Section):
    """Between whom and on what the divergences are measured."""

    data: DataPath = None
    teacher: Annotated[Teacher | None, WrapValidator(_as_section)] = Field(
        default=None, description="as in a run file; default: the teacher of the run that the student lies in"
    )
    model: Model = None
    temperature: float = Field(default=1.0, description="of both softmaxes")
    batch_size: int = Field(default=250, description="images at once")
    device: Device = "auto"
    data_set: DataSet = None
    epoch: Epoch = None
    show: Show = False


class Predict(Window):
    """Who answers, and what is drawn."""

    student: Place | None = Field(default=None, description="student folder, or a run's folder; it must be given")
    out: Place | None = Field(
        default=None,
        description="folder for colored masks, and for sheets of picture, truth and answers side by side "
        "(segmentation)",
    )
    beside: Titles | None = Field(
        default=None, description="further students for those sheets, by title: --beside.teacher runs/teacher"
    )
    data: DataPath = Field(
        default=None, description="instead of pictures, those of this data folder's or run file's validation part"
    )
    split: str | None = Field(default=None, description="which split of it, where there are several")
    first: int | None = Field(default=None, description="how many of them; default: all, and 8 with --out")
    model: Model = None
    probabilities: Literal["png", "tiff"] | None = Field(
        default=None,
        description="with --out, also a file of each class's probability at every pixel: png of 16 bits, in which "
        "65535 is 1, or tiff of floats (segmentation)",
    )
    overwrite: bool = Field(default=False, description="replace files in --out")
    volumes: bool = Field(
        default=False,
        description="TIFFs are stacks of pages, and folders of DICOM series, each answered as one volume, as NIfTI is "
        "anyway; without it a TIFF is its first page, and each file a picture",
    )
    axis: Literal[0, 1, 2] | None = Field(
        default=None,
        description="of NIfTI, along which slices lie; default: that of the data that the student learned from",
    )
    level: int | None = Field(
        default=None,
        description="pictures are whole-slide images, read at this level by parts; 0 is the largest (extra: slides)",
    )
    mpp: float | None = Field(
        default=None,
        description="the same by microns per pixel; default of both: that of the data that the student learned from",
    )
    views: Averaged = 1
    max_megapixels: float | None = Field(default=None, description="larger pictures are refused; default: 179")
    epoch: Epoch = None

    @field_validator("axis", mode="before")
    @classmethod
    def _numbers_may_be_text(cls, axis: Any) -> Any:
        """On the command line they are."""
        return int(axis) if isinstance(axis, str) and axis.isdecimal() else axis


def _part(part: Any) -> Any:
    """2/8 as (1, 8)."""
    if not isinstance(part, str):
        return part
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--part is such as 2/8, the second of eight parts, got '{part}'.")
    return int(found[1]) - 1, int(found[2])


class Record(Section):
    """What is recorded of a teacher."""

    out: Annotated[Place | None, NO_FLAG] = Field(
        default=None, description="folder of the store; default: the run's out"
    )
    views: Literal["auto", "complete", "epochs", "plain"] = Field(
        default="auto",
        description="complete, every view where they can be counted (pad, crop and mirror), good for any number of "
        "epochs; epochs, those of some epochs of the run's seed; plain, images as they are; auto, complete where that "
        "is possible, else epochs",
    )
    epochs: int | None = Field(default=None, description="of how many epochs views are recorded; default: train.epochs")
    precision: str = Field(
        default="float16", description="float16, int8, int4, float32, or topK for the K largest logits"
    )
    part: Annotated[Part | None, PlainValidator(_part)] = Field(
        default=None,
        description="which of several parts to record, such as 2/8, in Python (1, 8); default: as torchrun says; merge "
        "folders with `counterpoise store merge`",
    )
    student: Annotated[Network | None, SkipValidation, NO_FLAG] = Field(default=None, description="as for distill")
    teacher: Annotated[Network | None, SkipValidation, NO_FLAG] = Field(default=None, description="as for distill")
    data: DataSet = None
    show: Show = False


class Probe(Section):
    """Where the teacher goes that is made."""

    out: Place = Field(description="folder of the teacher: the network and its new classifier")
    overwrite: bool = Field(default=False, description="replace what is in --out")
    network: Annotated[Network | None, SkipValidation, NO_FLAG] = Field(
        default=None, description="a module to probe instead of teacher.model, with its weights"
    )
    show: Show = False


class Pack(Section):
    """Where a set is packed, and how."""

    out: Place = Field(description="folder of the pack; the same command goes on with one that was stopped")
    shorter: int | None = Field(
        default=None,
        ge=1,
        description="make larger images smaller, to a shorter side of so many pixels; default: files are copied as "
        "they are",
    )
    quality: int | None = Field(default=None, ge=1, le=100, description="of the JPEGs that those become; default: 95")
    shards: str | int | None = Field(
        default=None,
        description="how many the training part is divided into, such as 64, or bytes of each, such as 512MB; default: "
        "256MiB",
    )
    shuffle: bool = Field(
        default=False,
        description="write images in random order, for data.shuffle blocks; that is another order than the folder's, "
        "and so another run",
    )
    show: Show = False
