"""The student folder on disk: what lies in it, and reading it safely."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from counterpoise.config import LARGEST_EDGE, MOST_CHANNELS, MOST_REDUCED, Intensity
from counterpoise.decoding import Reading
from counterpoise.errors import ModelError, nearest
from counterpoise.models.promise import Promise, ScenePromise
from counterpoise.system import documents
from counterpoise.system.files import regular, standing

FORMAT = 1
WITH_INTENSITY = 2
"""The format of students whose pictures are read as `data.intensity` says, or whose windows overlap or blend otherwise
than by default, which readers of the first do not know."""
WEIGHTS = "model.safetensors"
DESCRIPTION = "student.json"
CARD = "README.md"
TIMM_CONFIG = "config.json"
UNTRAINED = "untrained: the student imitated features alone"
STUDENT = "student"  # within a run folder
Blend = Literal["mean", "linear", "gaussian"]
Edge = Annotated[int, Field(ge=1, le=LARGEST_EDGE)]


class Input(BaseModel):
    """What images the student is made for."""

    size: int | None = Field(ge=1, le=LARGEST_EDGE, description="edge in pixels; none takes images as they come")
    crop_share: float = Field(ge=0.01, le=1.0, description="part of the shorter side that the central crop keeps")
    fit: Literal["crop", "squash", "pad"] = Field("crop", description="how a picture is brought to that size")
    whole: bool = Field(False, description="trained on whole pictures, and so evaluated")
    reduction: float = Field(
        1.0, ge=1.0, le=MOST_REDUCED, description="how many times smaller than they are scenes are shown to it"
    )
    window: tuple[Edge, Edge] | None = Field(
        None, description="height and width of the window that slides over a scene"
    )
    overlap: float | None = Field(
        None, ge=0.0, le=0.95, description="share of that window which the next one covers again; none: a third"
    )
    blend: Blend = Field("mean", description="how the windows over a pixel count")
    alpha: Literal["white", "ignore"] = Field(
        "white", description="a fourth band: transparency, composited over white, or data, left out"
    )
    white_level: int | None = Field(None, ge=1, le=65535, description="white in gray files of 16 bits; none: 65535")
    channels: int = Field(3, ge=1, le=MOST_CHANNELS, description="of pictures: 3 are RGB, 1 gray")
    intensity: Intensity | None = Field(None, description="how values of any depth become 8 bits")

    @property
    def scenes(self) -> tuple[float, tuple[int, int] | None, float | None, str]:
        """What a `SceneView` holds."""
        return self.reduction, self.window, self.overlap, self.blend

    @property
    def reading(self) -> Reading:
        """How picture files are read for the student."""
        intensity = None if self.intensity is None else self.intensity.mapping
        return Reading(self.alpha, self.white_level, channels=self.channels, intensity=intensity)


class Normalization(BaseModel):
    """Of the channels of pixels in [0, 1]; the student applies it itself."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Description(BaseModel):
    """student.json."""

    model_config = ConfigDict(frozen=True)

    format: int = Field(ge=1)
    architecture: str
    arguments: dict[str, Any]
    task: str
    classes: tuple[str, ...] = Field(min_length=1)
    input: Input
    normalization: Normalization
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    weights_sha256: str
    thresholds: dict[str, tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...]] | None = None
    """Of several labels: the probability from which on each is answered, of the student of each epoch: last, best."""
    promise: Promise | None = None
    """When it answers, and when it is not sure."""
    scene_promise: ScenePromise | None = None
    """Of scenes: which pixels it answers."""

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name")
        given = len(self.normalization.mean), len(self.normalization.std)
        if given != (self.input.channels, self.input.channels):
            raise ValueError(
                f"input.channels is {self.input.channels}, and mean and std are of {given[0]} and {given[1]}"
            )
        return self

    @property
    def own_thresholds(self) -> tuple[float, ...] | None:
        """Those of this student; None where there are none, or not one for each class."""
        chosen = (self.thresholds or {}).get(shipped_epoch(self.provenance))
        return chosen if chosen is not None and len(chosen) == len(self.classes) else None

    def values(self) -> dict[str, Any]:
        """As student.json has it."""
        values = self.model_dump()
        if self.input.intensity is None:  # as readers of the first format know it
            values["input"].pop("intensity")
        for name, usual in (("overlap", None), ("blend", "mean")):
            if values["input"][name] == usual:
                values["input"].pop(name)
        unused = {name for name in ("thresholds", "promise", "scene_promise") if values[name] is None}
        return {name: value for name, value in values.items() if name not in unused}


def shipped_epoch(provenance: Mapping[str, Any]) -> str:
    """Whether a student is that of its run's "last" epoch, or of its "best" one; older ones are all of the last."""
    epoch = provenance.get("epoch")
    return str(epoch.get("ships", "last")) if isinstance(epoch, Mapping) else "last"


def find(path: Path) -> Path:
    """The student folder that `path` is, or that the run folder `path` holds. Raises ModelError where there is none."""
    for folder in (path, path / STUDENT):
        found = standing(folder)
        if (found / DESCRIPTION).is_file():
            return found
    if not path.exists():
        beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(f"{path} does not exist.{nearest(path.name, beside)}")
    if not path.is_dir():
        raise ModelError(f"{path} is a file, expected a student folder or a run folder.")
    if (path / "run.yaml").is_file():
        best = path / "checkpoints" / "best.safetensors"
        so_far = f" {best} holds its best weights so far." if best.is_file() else ""
        raise ModelError(f"Run {path} has no {STUDENT}/ yet: it is not finished. Go on with --resume.{so_far}")
    raise ModelError(f"{path} is neither a student folder nor a finished run: it holds no {DESCRIPTION}.")


def read(folder: Path) -> tuple[Description, bytes]:
    """Description and weights file of a student folder.

    Raises ModelError where a file is missing or damaged, the weights are not those described, or the format is newer.
    """
    description = describe(folder / DESCRIPTION)
    weights = folder / WEIGHTS
    try:
        content = regular(weights, within=folder).read_bytes()
    except OSError as error:
        raise ModelError(
            f"Student folder {folder} is incomplete: {WEIGHTS} cannot be read ({error.strerror})."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != description.weights_sha256:
        raise ModelError(
            f"{weights} is not the file that {DESCRIPTION} describes: its sha256 is {found[:12]}..., "
            f"expected {description.weights_sha256[:12]}... It was changed or damaged; copy the folder anew."
        )
    return description, content


def describe(path: Path) -> Description:
    """What a student.json says. Raises ModelError where it is missing, damaged or newer."""
    try:
        values = documents.read_json(path, within=path.parent)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {documents.why_unread(error)}.") from None
    version = values.get("format") if isinstance(values, dict) else None
    if isinstance(version, int) and version > WITH_INTENSITY:
        raise ModelError(
            f"{path} has format {version}, this counterpoise reads up to {WITH_INTENSITY}: pip install -U counterpoise."
        )
    try:
        return Description.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ModelError(f"{path} is damaged: {where}: {first['msg'].lower()}.") from None
