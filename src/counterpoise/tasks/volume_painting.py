"""Answers to whole volumes: slice by slice, and written as one volume that lies where the volume does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from counterpoise.data import volume_files
from counterpoise.errors import ConfigError, RunError
from counterpoise.tasks.base import Probabilities
from counterpoise.tasks.painting import Painter, names_of, parts

if TYPE_CHECKING:
    from counterpoise.data.sources.volumes import VolumeScenes
    from counterpoise.models.network import VisionModel

_MOST = 16  # bytes of probabilities for each pixel that max_megapixels allows, as of volumes themselves


def draw(
    painter: Painter,
    model: VisionModel,
    images: VolumeScenes,
    name: str,
    out: Path | None,
    overwrite: bool,
    probabilities: Probabilities | None,
) -> dict[str, Any]:
    """Answer all slices of the one case of `images`: see `Task.draw_volume`."""
    if probabilities == "png":
        raise ConfigError("Probabilities of volumes are floats in volumes of their own: --probabilities tiff.")
    (case,) = images.cases
    like, (count, height, width) = case.images[0], case.size
    ending = volume_files.ending_of(like)
    masks = [kind.replace(".png", ending) for kind in painter.mask_files(model)]
    soft = [f"{part}-probability{ending}" for part in parts(model)] if probabilities else []
    files = [] if out is None else [out / f"{name}-{kind}" for kind in (*masks, *soft)]
    if (there := next((file for file in files if file.exists()), None)) is not None and not overwrite:
        raise RunError(f"{there} is there already: give --overwrite, or another --out.")
    if 4 * len(soft) * count * height * width > _MOST * model.reading.max_megapixels * 1e6:
        raise ConfigError(f"The probabilities of {like.path} take more memory than max_megapixels allows.")
    answers, shares = [], np.zeros((len(soft), count, height, width), np.float32)
    for index in range(count):
        mask, belief = painter.answer_of(model, images.read(index), bool(soft))
        answers.append(mask)
        if belief is not None:
            shares[:, index] = belief.numpy()
    whole = torch.stack(answers, -3)  # [..., N, H, W]
    told = painter.described(model, whole.flatten(-3, -2))
    found = {**told, "height": height, "width": width, "slices": count}
    if out is None:
        return found
    out.mkdir(parents=True, exist_ok=True)
    layers: list[Tensor] = [*whole] if whole.ndim == 4 else [whole]
    for file, layer in zip(files, layers, strict=False):
        volume_files.write(file, layer.to(torch.uint8).numpy(), like)
    for file, values in zip(files[len(masks) :], shares, strict=True):
        volume_files.write(file, values, like)
    written = [str(file) for file in files[: len(masks)]]
    found |= {"mask": written[0]} if len(written) == 1 else {"masks": written}
    if soft:
        found["probabilities"] = dict(zip(names_of(model), map(str, files[len(masks) :]), strict=True))
    return found
