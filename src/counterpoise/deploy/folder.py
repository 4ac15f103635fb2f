"""The export folder on disk: what lies in it, written whole, read with its hashes checked."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from counterpoise.config import MOST_CHANNELS, Intensity
from counterpoise.deploy.base import find
from counterpoise.errors import ExportError, ModelError, RunError
from counterpoise.models.promise import Promise, ScenePromise
from counterpoise.system import documents
from counterpoise.system.files import named, reason, replacing_folder, sha256_of, standing

VERSION = 1
BY_WINDOW = 2
"""The version of exports that are one window of a scene, which readers of the first would show whole scenes."""
DESCRIPTION = "export.json"
RUNNER = "run.py"
REFERENCE = "reference.safetensors"
Edge = Annotated[int, Field(ge=1, le=2**15)]
Byte = Annotated[int, Field(ge=0, le=255)]


class Sliding(BaseModel):
    """How a window of the size that an export takes slides over scenes."""

    stride: tuple[Edge, Edge]
    """By how many pixels, down and across."""
    blend: Literal["mean", "linear", "gaussian"]
    """How the windows over a pixel count."""


class Input(BaseModel):
    """What an export takes: pixels as uint8 [batch, channels, height, width]; it normalizes them itself."""

    dtype: str = "uint8"
    layout: str = "NCHW"
    channels: Literal["RGB"] | Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = "RGB"
    """RGB, or how many there are."""
    size: tuple[Edge, Edge]
    any_size: bool = False
    """Whether height and width are free; size is then that of the pictures in reference.safetensors."""
    reduction: float = 1.0
    """How many times smaller scenes are shown than they are; of one size, those that then have it."""
    around: tuple[Byte, ...] | None = Field(None, min_length=1, max_length=MOST_CHANNELS)
    """Scenes of another size are resized by one factor into the upper left, and this color, a number a channel, lies
    around them; None: they are resized to the size, whatever their shape."""
    batch: Annotated[int, Field(ge=1, le=2**16)] | None
    """How many pictures at once; None any number."""
    crop_share: float | None
    """Part of the shorter side that the central crop keeps; None: pictures are resized whole."""
    fit: Literal["crop", "squash", "pad"] = "crop"
    """How pictures are brought to the size."""
    alpha: Literal["white", "ignore"] = "white"
    """A fourth band: transparency, composited over white, or data, left out."""
    white_level: int | None = None
    """White in gray files of 16 bits; None: 65535."""
    intensity: Intensity | None = None
    """How values of any depth become 8 bits."""
    window: Sliding | None = None
    """Where scenes are answered window by window, at their own size; None: at once."""

    @model_serializer(mode="wrap")
    def _what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {
            name: value for name, value in values.items() if name not in ("intensity", "window") or value is not None
        }

    @property
    def count(self) -> int:
        """How many channels pictures have."""
        return 3 if self.channels == "RGB" else self.channels


class File(BaseModel):
    bytes: int
    sha256: str


class Description(BaseModel):
    """export.json."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    format: str
    precision: str
    task: str
    architecture: str
    classes: tuple[str, ...]
    input: Input
    outputs: Literal["logits", "probabilities"] = "logits"
    """What it answers: of logits, the softmax are probabilities; of several labels, the sigmoid of each."""
    promise: Promise | None = None
    """When it answers, and when it is not sure: of this file's own answers."""
    scene_promise: ScenePromise | None = None
    """Which pixels of a scene it answers: of this file's own answers."""
    thresholds: tuple[float, ...] | None = None
    """Of several labels, or questions: the probability from which on each is there."""
    normalization: dict[str, tuple[float, ...]]
    """Of pixels in [0, 1]; for information, the file does it."""
    student_sha256: str
    """That of the student's model.safetensors."""
    parameters: int
    files: dict[str, File]
    versions: dict[str, str]
    calibration: dict[str, Any] | None = None
    """In 8 bits: method, images, and the layers kept in float."""
    agreement: dict[str, Any] | None = None
    """With the PyTorch student on validation images; None where there were none, or the runtime does not run here."""
    verified: bool
    """Whether its runtime has opened it and agreed with the student."""
    notes: dict[str, Any] = {}


def is_export(path: Path) -> bool:
    """Whether a folder is an export."""
    return (standing(path) / DESCRIPTION).is_file()


def read(folder: Path) -> Description:
    """The description of an export folder whose files are those described.

    Raises ModelError where a file is missing, damaged or changed, or the folder is of a newer version.
    """
    folder = standing(folder)
    path = folder / DESCRIPTION
    try:
        values = documents.read_json(path, within=folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {documents.why_unread(error)}.") from None
    version = values.get("version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > BY_WINDOW:
        raise ModelError(
            f"{path} has version {version}, this counterpoise reads up to {BY_WINDOW}: pip install -U counterpoise."
        )
    try:
        description = Description.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ModelError(f"{path} is damaged: {where}: {first['msg'].lower()}.") from None
    _check_listed(folder, description)
    for name, file in description.files.items():
        try:
            found = sha256_of(named(folder, name, limit=file.bytes))
        except OSError as error:
            raise ModelError(f"Export {folder} is incomplete or damaged: {error}.") from None
        if found != file.sha256:
            raise ModelError(
                f"{folder / name} is not the file that {DESCRIPTION} describes: its sha256 is {found[:12]}..., "
                f"expected {file.sha256[:12]}... It was changed or damaged; copy the folder anew, or export again."
            )
    return description


def check_student(folder: Path, description: Description, student: Path, weights_sha256: str) -> None:
    """Raises ModelError where an export was made from another student than one with these weights."""
    if description.student_sha256 != weights_sha256:
        raise ModelError(
            f"{folder} was made from another student: its weights are {description.student_sha256[:12]}..., those of "
            f"{student} {weights_sha256[:12]}..."
        )


def _check_listed(folder: Path, description: Description) -> None:
    """Raises ModelError where a file that the runtime opens is not among those with a hash."""
    first, *more = find(description.format).files
    for known in (first, *(name for name in more if (folder / name).exists())):
        if not any(name == known or name.startswith(f"{known}/") for name in description.files):
            raise ModelError(f"{folder / DESCRIPTION} is damaged: files does not list {known}.")


def measured(folder: Path, names: tuple[str, ...]) -> dict[str, File]:
    """Bytes and hashes of files of a folder, by their path in it; of a folder in it, those of all its files."""
    found = [file for name in names for file in ((folder / name), *sorted((folder / name).rglob("*")))]
    return {
        file.relative_to(folder).as_posix(): File(bytes=file.stat().st_size, sha256=sha256_of(file))
        for file in found
        if file.is_file()
    }


def describe(folder: Path, description: Description) -> None:
    """Write export.json."""
    text = json.dumps(description.model_dump(), indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def check_free(path: Path, overwrite: bool) -> None:
    """Raises ExportError where something is at `path` that may not be replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise ExportError(f"{path} is there already: give --overwrite, or another --out.")
    if not is_export(path) and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path} is no export folder, so it is not replaced: give another --out.")


@contextlib.contextmanager
def writing(path: Path, needed: int) -> Iterator[Path]:
    """A new folder beside `path`, which on leaving is `path`, on disk and whole; an older one then goes.

    Args:
        needed: bytes that it will take at most.

    Raises RunError where the disk has no room or cannot be written; `path` is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise RunError(f"{path} could not be written: {reason(error)}.") from error
    if free < needed:
        raise RunError(f"{path} needs up to {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there.")
    with replacing_folder(path) as new:
        yield new
