"""Whether an export takes pictures of one size or of any: as the scenes are that it is compared on, where it can."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from counterpoise import tasks
from counterpoise.deploy import agreement, pictures
from counterpoise.deploy.any_size import stride_of
from counterpoise.deploy.base import Format, Request, Window, kind_and_line
from counterpoise.errors import ConfigError, ExportError
from counterpoise.tasks.sliding import stride_of as stride_of_view

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.deploy.network import Deployed
    from counterpoise.models.network import VisionModel


def settled(
    network: Deployed, chosen: Format, request: Request, images: ImageSet | None, asked: bool | None
) -> tuple[Request, str]:
    """Whether an export takes pictures of any size, and why it does not where scenes differ.

    Of a student that looks through a window, it is one window, which slides over pictures of any size.

    Args:
        images: those it is compared on; where they differ in size, it shall take any.
        asked: whether the user wants it; None: as images are.

    Raises:
        ConfigError: it is asked for, and the student or the format takes one size. ExportError: the runtime, too.
    """
    student = network.student
    view, whole = student.scenes, tasks.get(student.task).whole
    if asked is None and view.window is not None and student.input_size is None:
        return replace(request, size=view.window, window=Window(stride_of_view(view), view.blend)), ""
    if asked is False or (whole and not asked):
        return request, ""
    if not asked and (images is None or images.common_extent is not None):
        return request, ""
    why = ""
    if whole:
        why = "a classifier is shown pictures at one size"
    elif student.input_size is not None:
        why = f"the student takes pictures of {student.input_size} x {student.input_size}"
    elif student.scenes.window is not None:
        why = "the student looks through a window of one size"
    elif not chosen.any_size:
        why = f"{chosen.name} is given one size here"
    if why and asked:
        raise ConfigError(f"any_size cannot be: {why}. Leave it out.")
    if not why:
        why = _unlike(network, chosen, request)
        if why and asked:
            raise ExportError(f"The export cannot take pictures of any size: {why}.")
    return (request, f"fixed, though scenes differ: {why}") if why else (replace(request, any_size=True), "")


def _unlike(network: Deployed, chosen: Format, request: Request) -> str:
    """Why a float32 export of any size does not answer as the student; empty where it does at all sizes `_tried`."""
    wanted = replace(request, precision="float32", any_size=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            chosen.convert(network, wanted, {}, Path(folder))
            runtime = chosen.open(Path(folder))
        except ExportError as error:
            return str(error).rstrip(".")
        for size in _tried(network.student, request.size):
            shown = pictures.generated(1, size, request.channels)
            expected = agreement.student_answer(network, shown)
            try:
                found = torch.from_numpy(agreement.answer(runtime, shown.numpy(), request.batch))
            except Exception as error:  # each runtime has errors of its own
                return f"at {size[0]} x {size[1]} the runtime says {kind_and_line(error)}"
            bound = agreement.rounding("float32", float(expected.abs().max())) or 0.0
            if not agreement.difference(found, expected) <= bound:
                return f"at {size[0]} x {size[1]} its graph answers otherwise than the student"
        del runtime
    return ""


def _tried(student: VisionModel, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths by which a graph is judged: odd ones, multiples of the stride, the export's."""
    step = max(stride_of(student), 16)
    return [size, (step, 2 * step), (2 * step + 1, 3 * step - 1), (5 * step - 3, step + 2)]
