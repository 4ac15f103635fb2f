"""What may be asked of an export and of what is done with it: keywords in Python, flags on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, SkipValidation

from counterpoise.config import Section
from counterpoise.config.options import NO_FLAG, Epoch, Place, Show
from counterpoise.engine.options import DataPath, DataSet, Model

if TYPE_CHECKING:
    from counterpoise.deploy.base import Calibration

    Teacher = Mapping[str, Any] | Place
else:  # what a flag holds of it
    Calibration, Teacher = object, Place

CALIBRATION_IMAGES = 256


def _number(batch: Any) -> Any:
    if batch == "dynamic":
        return None
    if isinstance(batch, str) and not batch.isdigit():
        raise ValueError(f"--batch is a number of pictures or dynamic, got '{batch}'.")
    return batch


class Export(Section):
    """What an export is to be, and on what it is compared with the student."""

    to: str = Field(description="onnx, openvino, executorch, litert or coreml")
    precision: str = Field(default="float32", description="float32, float16 or int8")
    batch: Annotated[int | None, BeforeValidator(_number)] = Field(
        default=None,
        description="how many pictures it takes at once, or dynamic; default: dynamic, where the format can",
    )
    size: tuple[int, int] | None = Field(
        default=None,
        description="height and width of its pixels, where the student takes any and the data does not tell",
    )
    out: Place | None = Field(
        default=None,
        description="folder to write; default: exports/FORMAT-PRECISION in the run, or beside the student folder",
    )
    overwrite: bool = Field(default=False, description="replace an older export there")
    data: DataPath = None
    data_set: DataSet = None
    images: int | None = Field(
        default=None,
        description="on how many validation images at most it is compared, spread evenly; default: all of them",
    )
    calibration: Annotated[Calibration | Mapping[str, Any] | None, SkipValidation, NO_FLAG] = Field(
        default=None, description="of int8: a Calibration; or by name its method, images, data and keep"
    )
    calibration_method: str | None = Field(
        default=None, description="of int8: minmax, percentile or entropy, as the format has them"
    )
    calibration_images: int = Field(default=CALIBRATION_IMAGES, description="of int8: how many training images")
    calibration_data: DataPath = Field(
        default=None, description="of int8: another data folder or run file to take them from"
    )
    keep: Sequence[str] | None = Field(default=None, description="of int8: layers that stay in float")
    within: float | None = Field(
        default=None,
        description="of int8: keep layers in float, the most sensitive first, until the metric on training images is "
        "at most so many points below that in float",
    )
    min_same: float | None = Field(
        default=None, description="of int8: percent of the answers that must be the student's own; default: 90"
    )
    opset: int | None = Field(default=None, description="of onnx: the version of its operators; default: 20")
    model: Model = None
    make_environment: bool = Field(
        default=False, description="make the Python environment of its own that litert runs in, where it is not there"
    )
    epoch: Epoch = None
    any_size: bool | None = Field(
        default=None,
        description="scenes of any height and width; default: where the format can, no size is given, and validation "
        "scenes differ in size",
    )
    show: Show = False

    @property
    def of_int8(self) -> list[str]:
        """What was said of calibration, by name."""
        names = ("calibration", "calibration_method", "calibration_images", "calibration_data", "keep")
        return [name for name in names if name in self.model_fields_set and getattr(self, name) is not None]

    @property
    def calibrated_by(self) -> Calibration | Mapping[str, Any]:
        """What was said of calibration, in one."""
        if self.calibration is not None and not isinstance(self.calibration, Mapping):
            return self.calibration
        single = {"images": self.calibration_images, "data": self.calibration_data, "keep": self.keep or ()}
        if self.calibration_method is not None:
            single["method"] = self.calibration_method
        return {**single, **(self.calibration or {})}


class Verify(Section):
    """With what an export or a student is compared."""

    student: Place | None = Field(
        default=None, description="of an export: its student folder or run, to compare with on validation images"
    )
    data: DataPath = None
    data_set: DataSet = None
    images: int | None = Field(default=None, description="on how many validation images at most; default: all of them")
    model: Model = None
    show: Show = False


class Finetune(Section):
    """How a student is prepared for 8 bits."""

    out: Place = Field(description="folder of the new run")
    epochs: int = Field(default=2, description="passes over the training data")
    learning_rate: float = Field(default=1e-4, description="of AdamW, falling as a cosine")
    objective: Annotated[Mapping[str, Any] | None, NO_FLAG] = Field(
        default=None, description="terms as in a run file; default: cross_entropy and balance, each with weight 1"
    )
    teacher: Annotated[Teacher | None, SkipValidation] = Field(
        default=None, description="a student folder or run to learn from instead of itself"
    )
    store: Place | None = Field(default=None, description="a teacher store to learn from instead")
    keep: Sequence[str] | None = Field(default=None, description="layers that will stay in float, as for export")
    data: DataPath = None
    data_set: DataSet = None
    options: Annotated[Mapping[str, Any] | None, NO_FLAG] = Field(
        default=None, description='further values of the run file, such as {"seed": 1, "train": {"batch_size": 32}}'
    )
    resume: bool = Field(default=False, description="go on with the run in --out from its last checkpoint")
    overwrite: bool = Field(default=False, description="replace an older run in --out")
    model: Model = None
    show: Show = False


class Measure(Section):
    """How students and exports are measured."""

    threads: Sequence[int] | None = Field(
        default=None, description="numbers of threads; default: one, and all processors"
    )
    batches: Annotated[Sequence[int], Parameter(name="batch")] = Field(
        default=(1, 8), description="pictures at once; an export for a fixed number is measured with that"
    )
    rounds: int = Field(default=9, description="turns of each, 6 or more, over which the median has its interval")
    seconds: float = Field(default=0.2, description="of calls in each turn, which are at least five")
    size: tuple[int, int] | None = Field(default=None, description="height and width of pictures, for what takes any")
    model: str | None = Field(
        default=None, description="the network of student folders where it is code of your own, file.py:function"
    )
    epoch: Epoch = None
    tell: Annotated[Callable[[str], None], NO_FLAG] = Field(
        default=lambda text: None, description="told now and then how far it is"
    )


class Push(Section):
    """What of a student is published, and where."""

    to: str | None = Field(
        default=None, description="org/name on the Hub; made where it is not there. Log in with hf auth login"
    )
    out: Place | None = Field(
        default=None, description="instead, a new folder that is ready for huggingface_hub.upload_folder"
    )
    exports: Sequence[Place] | None = Field(
        default=None, description="export folders; default: those in the run, or beside the student folder"
    )
    measured: Sequence[Place] | None = Field(
        default=None,
        description="files that measure --out wrote; default: measure*.json in the run, or beside the student folder",
    )
    license_id: Annotated[str | None, Parameter(name="license")] = Field(
        default=None, description="of the whole, as the Hub knows it, such as apache-2.0"
    )
    private: bool = Field(default=False, description="make the repository a private one")
    epoch: Epoch = None


class Try(Section):
    """What the page holds on which anyone can show the student a picture."""

    out: Place | None = Field(default=None, description="folder of the site; default: sites/NAME")
    samples: Sequence[Place] | None = Field(
        default=None, description="pictures, or folders of them, that the page offers; default: drawn ones"
    )
    evaluation_pictures: int = Field(
        default=0, description="how many pictures of the student's evaluation data the page offers"
    )
    size: Annotated[tuple[int, int] | None, NO_FLAG] = Field(
        default=None, description="height and width that the student is shown, where neither it nor its data says so"
    )
    data: DataPath = Field(
        default=None,
        description="data folder or run file to calibrate 8 bits with; default: the data of the run that the student "
        "lies in",
    )
    model: Model = None
    overwrite: bool = Field(default=False, description="replace an older site in that folder")
    epoch: Epoch = None
