"""The pixels that exports are compared, calibrated and remembered by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise import config, tasks
from counterpoise.data.images import laid, prepare, resize, to_tensor
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.decoding import cut, letterbox
from counterpoise.deploy.base import Request
from counterpoise.engine import inputs
from counterpoise.engine.inputs import RunLike
from counterpoise.errors import ConfigError, DataError
from counterpoise.models.network import VisionModel

AT_ONCE = 32


def show(image: Tensor, size: tuple[int, int], crop_share: float | None, fit: str = "crop") -> Tensor:
    """A picture uint8 [C, H, W] as an export of this size takes it."""
    if crop_share is None:
        return resize(image, size)
    return prepare(image, size[0], crop_share, fit)


def spread(images: ImageSet, count: int | None) -> ImageSet:
    """At most `count` of the images, spread evenly; None: all of them."""
    if count is None or count >= len(images):
        return images
    return images.subset(spread_indices(len(images), count))


def spread_indices(total: int, count: int) -> Tensor:
    """Indices of at most `count` of `total`, spread evenly, int64."""
    count = min(count, total)
    return torch.arange(count) * total // max(1, count)


def mean_color(model: VisionModel) -> tuple[int, ...]:
    """The color, a number a channel, that is next to 0 when it is normalized, which is what dense networks pad with."""
    return tuple(min(255, max(0, round(255 * value))) for value in model.normalization["mean"])


class Pair(NamedTuple):
    """The same pictures twice, with their targets.

    Attributes:
        seen: uint8 [n, C, H, W], as the student is shown them in evaluation.
        fed: uint8 [n, C, h, w], as the runner beside an export feeds it; the same tensor where that is the same.
        covered: height and width of the part of what is fed that each picture covers; None: all of it.
        indices: int64 [n], of the pictures within their set; None: of none.
    """

    seen: Tensor
    fed: Tensor
    target: Tensor
    covered: tuple[tuple[int, int], ...] | None = None
    indices: Tensor | None = None

    def answers(self, logits: Tensor) -> Sequence[Tensor]:
        """What logits for the pixels that are fed say of each picture, [C] or [C, h, w]."""
        if self.covered is None:
            return list(logits)
        size = (self.fed.shape[2], self.fed.shape[3])
        rows = zip(logits.numpy(), self.covered, strict=True)
        return [torch.from_numpy(cut(row, part, size)) for row, part in rows]


def pairs(images: ImageSet, model: VisionModel, section: config.Data, request: Request) -> Iterator[Pair]:
    """Pictures as a student is shown them, and as an export is fed: what has another size than it takes is resized."""
    task, size = tasks.get(model.task), request.fed
    share = None if size is None else task.crop_share(model, size)
    for batch in task.eval_loader(images, model, section, batch_size=AT_ONCE):
        for start in range(0, len(batch.images), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            seen = fed = batch.images[part]
            if size is not None and tuple(seen.shape[-2:]) != size:
                whole = (images.read(index) for index in batch.indices[part].tolist())
                if request.around is not None:
                    boxed = [letterbox(laid(image), size, request.around, model.scenes.reduction) for image in whole]
                    fed = torch.stack([to_tensor(image) for image, _ in boxed])
                    covers = tuple(covered for _, covered in boxed)
                    yield Pair(seen, fed, batch.target[part], covers, batch.indices[part])
                    continue
                fed = torch.stack([show(image, size, share, model.fit) for image in whole])
            yield Pair(seen, fed, batch.target[part], indices=batch.indices[part])


def one_window(pictures: Tensor, request: Request) -> Tensor:
    """Of pictures [N, C, H, W] that are answered window by window, that in the middle of each, as the export is fed."""
    if request.window is None:
        return pictures
    size = request.size
    extent = [min(edge, side) for edge, side in zip(size, pictures.shape[2:], strict=True)]
    top, left = ((side - edge) // 2 for edge, side in zip(extent, pictures.shape[2:], strict=True))
    board = torch.tensor(request.around, dtype=torch.uint8).view(1, -1, 1, 1).repeat(len(pictures), 1, *size)
    board[..., : extent[0], : extent[1]] = pictures[..., top : top + extent[0], left : left + extent[1]]
    return board


def size_of(
    model: VisionModel, given: tuple[int, int] | None, images: ImageSet | None, section: config.Data | None
) -> tuple[int, int]:
    """The input size of an export: the network's, the one given, or that of the first image in evaluation.

    Raises ConfigError where it is not known, or the network takes another.
    """
    if model.input_size is not None:
        own = (model.input_size, model.input_size)
        if given not in (None, own):
            assert given is not None
            raise ConfigError(
                f"size is {given[0]} x {given[1]}, and the student takes {own[0]} x {own[1]}: leave it out."
            )
        return own
    if given is not None:
        if min(given) < 1:
            raise ConfigError(f"size must be two numbers of pixels, height and width, got {given[0]} x {given[1]}.")
        return given
    if model.scenes.window is not None and images is None:
        return model.scenes.window
    if images is None or section is None:
        raise ConfigError(
            "The student takes images of any size, and no data is given to tell which: give --size HEIGHT WIDTH, "
            "or --data PATH."
        )
    first, alone = images.subset(torch.tensor([0])), section.model_copy(update={"workers": 0})
    for batch in tasks.get(model.task).eval_loader(first, model, alone, batch_size=1):
        return int(batch.images.shape[-2]), int(batch.images.shape[-1])
    raise DataError(f"{images.name(0)}, the first image, cannot be read.")


def data_of(student: Path, data: RunLike | None, data_set: Splits | None) -> tuple[Splits | None, config.Data]:
    """The data that was named, or that of the run around a student; None where there is neither."""
    from counterpoise.data.sources import halves, load

    if data_set is not None:
        sets = zip(Splits._fields, halves.handed_in(data_set), strict=True)
        return Splits(*(halves.sound(images, half, halves.HANDED_IN) for half, images in sets)), config.Data()
    try:
        section = inputs.data_section(student, data)
    except ConfigError:
        if data is not None:
            raise
        return None, config.Data()
    return load(section), section


def generated(count: int, size: tuple[int, int], channels: int = 3) -> Tensor:
    """Pictures by integer arithmetic alone, the same everywhere: waves of several lengths, uint8 [count, C, *size]."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    pictures = []
    for index in range(count):
        for channel in range(channels):
            slope = (2 + 3 * index + channel) * rows + (7 - 2 * channel + index) * columns
            bend = rows * columns // (3 + 5 * channel + index)
            pictures.append(np.abs((13 * slope // max(size) * 8 + bend + 90 * channel) % 510 - 255))
    return torch.from_numpy(np.stack(pictures).astype(np.uint8)).view(count, channels, *size)
