"""Answers to scenes as files: masks, sheets of panels, and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import ModelError, RunError
from counterpoise.system.files import replacing
from counterpoise.tasks.base import Picture, Probabilities

if TYPE_CHECKING:
    from counterpoise.data.rasters import Shown
    from counterpoise.models.network import VisionModel

WHITE = 65535
"""A probability of 1 in a PNG of 16 bits."""


class Painter(Protocol):
    """What differs between tasks whose answers are maps."""

    def answer_of(self, model: VisionModel, image: Shown, soft: bool = False) -> tuple[Tensor, Tensor | None]:
        """What is drawn of a whole image, and where it is wanted the probability of each class, float32 [C, H, W]."""

    def described(self, model: VisionModel, mask: Tensor) -> dict[str, Any]:
        """A mask in words."""

    def mask_files(self, model: VisionModel) -> list[str]:
        """What the files of a mask are called behind a picture's name."""

    def write(self, files: Sequence[Path], mask: Tensor) -> dict[str, Any]:
        """Write the mask into these files; what the answer says of them."""


def draw(
    painter: Painter,
    models: Mapping[str, VisionModel],
    pictures: Iterable[Picture],
    out: Path,
    overwrite: bool,
    probabilities: Probabilities | None,
) -> list[dict[str, Any]]:
    """Write what models say of pictures: see `Task.draw`."""
    from counterpoise.tasks.overlays import overlay

    *_, student = models.values()
    _check_alike(models, student)
    kinds = [*painter.mask_files(student), "overlay.png"]
    soft = [f"{part}-probability.{_ENDINGS[probabilities]}" for part in parts(student)] if probabilities else []
    answers = []
    for picture in pictures:
        files = [out / f"{picture.name}-{kind}" for kind in (*kinds, *soft)]
        there = [file for file in files if file.exists()]
        if there and not overwrite:
            raise RunError(f"{there[0]} is there already: give --overwrite, or another --out.")
        shares, masks = None, {}
        for title, model in models.items():
            masks[title], shares = painter.answer_of(model, picture.image, bool(soft) and model is student)
        *_, mask = masks.values()
        truth = {} if picture.truth is None else {"truth": picture.truth}
        out.mkdir(parents=True, exist_ok=True)
        written = painter.write(files[: len(kinds) - 1], mask)
        overlay(files[len(kinds) - 1], picture.image, {**truth, **masks}, names_of(student))
        answer = {**painter.described(student, mask), **written, "overlay": str(files[len(kinds) - 1])}
        if shares is not None:
            answer["probabilities"] = _write_probabilities(files[len(kinds) :], shares, names_of(student))
        answers.append(answer)
    return answers


_ENDINGS = {"png": "png", "tiff": "tif"}


def _write_probabilities(files: Sequence[Path], values: Tensor, names: Sequence[str]) -> dict[str, str]:
    for file, layer in zip(files, values.numpy(), strict=True):
        if file.suffix == ".png":
            picture, kind = Image.fromarray(np.rint(layer * WHITE).astype(np.uint16)), "PNG"
        else:
            picture, kind = Image.fromarray(layer.astype(np.float32)), "TIFF"
        with replacing(file) as temporary:
            picture.save(temporary, format=kind)
    return dict(zip(names, map(str, files), strict=True))


def _check_alike(models: Mapping[str, VisionModel], student: VisionModel) -> None:
    for title, other in models.items():
        if names_of(other) != names_of(student):
            raise ModelError(
                f"'{title}' answers in {other.num_classes} classes ({', '.join(names_of(other)[:5])}, ...), "
                f"the student in {student.num_classes} ({', '.join(names_of(student)[:5])}, ...)."
            )
        if other.task and other.task != student.task:
            raise ModelError(f"'{title}' answers to task {other.task}, and the student to {student.task}.")


def names_of(model: VisionModel) -> tuple[str, ...]:
    """Of its classes; their numbers where nobody has named them."""
    return tuple(model.classes or (str(index) for index in range(model.num_classes)))


def shares_of(model: VisionModel, counts: Tensor, pixels: int) -> dict[str, Any]:
    """`classes` by their share of all pixels, largest first; of a student with a promise `unsure`, the share left out.

    Args:
        counts: pixels by class, int64; of one class a pixel [256], by the values of a mask, where 255 is not answered.
    """
    names = names_of(model)
    own = counts[: len(names)]
    order = own.argsort(descending=True, stable=True)[: int((own > 0).sum())]
    found = [{"class": names[index], "share": int(own[index]) / pixels} for index in order.tolist()]
    left = {} if model.scene_promise is None else {"unsure": int(counts[IGNORE]) / pixels}
    return {"classes": found, **left}


def parts(model: VisionModel) -> list[str]:
    """The classes as parts of file names, each once."""
    found: list[str] = []
    for name in names_of(model):
        plain = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in name).strip("-.") or "class"
        while plain.lower() in (one.lower() for one in found):
            plain += "-"
        found.append(plain)
    return found
