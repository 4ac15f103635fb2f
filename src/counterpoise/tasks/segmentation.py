"""Semantic segmentation: a class for every pixel. Networks answer at any resolution; masks are judged at their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from counterpoise.data.sources.masks import IGNORE, MaskedSet
from counterpoise.errors import ConfigError, DataError, ModelError
from counterpoise.tasks.base import Report, Score, Task

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet
    from counterpoise.models.network import VisionModel

_VALUES_AT_ONCE = 2**25  # upsampled logits held at one time: 128 MiB
_NARROWEST, _WIDEST = 192, 640  # pixels of a panel: smaller pictures are enlarged, larger ones reduced
_GAP, _LINE, _SWATCH = 8, 20, 12
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, C, h, w] as float32 [N, C, H, W], bilinear between pixel centers (align_corners false)."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def confusion_matrix(logits: Tensor, target: Tensor) -> Tensor:
    """How often a pixel of one class was taken for another, at the masks' own size.

    Args:
        logits: [N, C, h, w], upsampled here, a few images at a time.
        target: int64 or uint8 [N, H, W]; 255 (and whatever is negative) is void and not counted.

    Returns:
        float64 [C, C]: rows are the true classes, columns the answers.

    Raises:
        ModelError: logits of another shape. DataError: masks of another shape or with classes beyond C.
    """
    _check_dense(logits)
    if target.ndim != 3 or len(target) != len(logits):
        raise DataError(f"Masks must be [{len(logits)}, H, W] for {len(logits)} images, got {list(target.shape)}.")
    classes, (height, width) = logits.shape[1], target.shape[1:]
    counts = torch.zeros(classes * classes, dtype=torch.float64, device=logits.device)
    at_once = max(1, _VALUES_AT_ONCE // (classes * height * width))
    for part, truth in zip(torch.split(logits, at_once), torch.split(target.to(logits.device), at_once), strict=True):
        known = (truth != IGNORE) & (truth >= 0)
        labels = truth[known].long()
        if len(labels) and int(labels.max()) >= classes:
            raise DataError(f"A mask holds class {int(labels.max())}; the network has {classes}, from 0 on.")
        answers = upsample(part, (height, width)).argmax(1)[known]
        counts += torch.bincount(labels * classes + answers, minlength=classes * classes)
    return counts.view(classes, classes)


class MaskScore(Score):
    """Mean intersection over union and pixel accuracy, in percent; `state` is the confusion matrix, flattened."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.state = torch.zeros(num_classes * num_classes, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        found = confusion_matrix(logits, target).flatten()
        self.state = self.state.to(found.device) + found

    def values(self) -> dict[str, float]:
        matrix = self.state.view(self.num_classes, self.num_classes).cpu()
        if not matrix.any():
            return {}
        columns = _by_class(matrix)
        return {"miou": _mean_percent(columns["iou"]), "pixel_accuracy": _accuracy(matrix)}


class SegmentationReport(Report):
    """mIoU, Dice, pixel and mean class accuracy in percent, a table by class, and the confusion matrix.

    All follow from one matrix of counts over all pixels of all images. A class that is neither in the masks nor in the
    answers counts in no mean, and has None in its row.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.matrix = torch.zeros(len(classes), len(classes), dtype=torch.float64)
        self.images = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.matrix += confusion_matrix(logits, target).cpu()
        self.images += int(((target != IGNORE) & (target >= 0)).flatten(1).any(1).sum())

    def values(self) -> dict[str, Any]:
        if not self.images:
            return {"images": 0}
        columns = _by_class(self.matrix)
        return {
            "miou": _mean_percent(columns["iou"]),
            "dice": _mean_percent(columns["dice"]),
            "pixel_accuracy": _accuracy(self.matrix),
            "mean_class_accuracy": _mean_percent(columns["recall"]),
            "images": self.images,
            "per_class": [
                {
                    "class": name,
                    **{key: _percent(column[index]) for key, column in columns.items()},
                    "pixels": int(self.matrix[index].sum()),
                }
                for index, name in enumerate(self.classes)
            ],
            "confusion_matrix": self.matrix.long().tolist(),
        }


def slide(model: VisionModel, images: Tensor, window: tuple[int, int], stride: tuple[int, int] | None = None) -> Tensor:
    """Logits of images seen through a window that moves over them: the mean over all windows that hold a pixel.

    The last window of a row or column ends with the image, and none is larger than it.

    Args:
        images: uint8 [N, 3, H, W].
        window: height and width in pixels.
        stride: by how much it moves, at most its own size; default: two thirds of that.

    Returns:
        float32 [N, C, H, W].
    """
    stride = stride or (max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3))
    if not (0 < stride[0] <= window[0] and 0 < stride[1] <= window[1]):
        raise ConfigError(f"A window of {window} moved by {stride} leaves gaps: each stride must be 1 to its window.")
    size = images.shape[-2:]
    height, width = min(window[0], size[0]), min(window[1], size[1])
    total = torch.zeros(0)
    seen = torch.zeros(size, device=images.device)
    for top in _starts(size[0], height, stride[0]):
        for left in _starts(size[1], width, stride[1]):
            rows, columns = slice(top, top + height), slice(left, left + width)
            logits = model(images[..., rows, columns])
            _check_dense(logits)
            if not total.numel():
                total = torch.zeros(len(images), logits.shape[1], *size, device=logits.device)
            total[..., rows, columns] += upsample(logits, (height, width))
            seen[rows, columns] += 1
    return total / seen


def segment(
    model: VisionModel, image: Tensor, window: tuple[int, int] | None = None, stride: tuple[int, int] | None = None
) -> Tensor:
    """The class of every pixel of an image, seen whole or through a sliding window (see `slide`).

    Args:
        image: uint8 [3, H, W] on any device.

    Returns:
        uint8 [H, W] on the CPU.
    """
    images = image[None].to(model.mean.device)
    with torch.inference_mode():
        logits = model(images) if window is None else slide(model, images, window, stride)
        _check_dense(logits)
        return upsample(logits, (image.shape[1], image.shape[2])).argmax(1)[0].to(torch.uint8).cpu()


class Segmentation(Task):
    """One class a pixel."""

    name = "segmentation"
    hub_name = "image-segmentation"
    headline = "miou"

    def check(self, images: ImageSet) -> None:
        if not isinstance(images, MaskedSet):
            raise ConfigError("Task segmentation learns from masks, and the data holds none: see source masks_folder.")

    def score(self, num_classes: int) -> Score:
        return MaskScore(num_classes)

    def report(self, classes: Sequence[str]) -> Report:
        return SegmentationReport(classes)

    def pseudo_target(self, teacher_logits: Tensor) -> Tensor:
        return teacher_logits.argmax(1)

    def predict(self, model: VisionModel, images: Sequence[Any]) -> list[dict[str, Any]]:
        """The classes found on each picture, by their share of its pixels, largest first:
        {"height", "width", "classes": [{"class", "share"}, ...]}."""
        from counterpoise.data.images import decode, to_tensor

        names = model.classes or tuple(str(index) for index in range(model.num_classes))
        answers = []
        for image in images:
            mask = segment(model, to_tensor(decode(image)))
            counts = torch.bincount(mask.flatten(), minlength=len(names))
            order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
            found = [{"class": names[index], "share": int(counts[index]) / mask.numel()} for index in order.tolist()]
            answers.append({"height": mask.shape[0], "width": mask.shape[1], "classes": found})
        return answers


def palette() -> NDArray[np.uint8]:
    """Colors of classes, uint8 [256, 3]: 0 is black, void (255) is cream, the others are far from their neighbors."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    for index in range(1, 255):
        hue = (index - 1) * _GOLDEN_RATIO % 1  # no new hue is close to those before it
        colors[index] = np.multiply(
            hsv_to_rgb(hue, (0.9, 0.55)[index // 3 % 2], (1.0, 0.75, 0.5)[index % 3]), 255
        ).round()
    colors[IGNORE] = 240, 235, 200
    return colors


def write_mask(path: str | Path, mask: Tensor, colors: Sequence[Sequence[int]] | None = None) -> None:
    """Write a mask as a palette PNG: it shows colors and holds classes, and can be read as a mask again.

    Args:
        mask: uint8 [H, W]; 255 is void.
        colors: RGB of each class, 0 to 255; default: see `palette`.
    """
    picture = Image.fromarray(mask.cpu().to(torch.uint8).numpy())
    picture.putpalette(_colors(colors).tobytes())  # makes it mode P
    _save(picture, Path(path))


def overlay(
    path: str | Path,
    image: Any,
    masks: Mapping[str, Tensor],
    classes: Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    opacity: float = 0.6,
) -> None:
    """Write a picture and masks laid over it side by side, as PNG, with a legend of the classes that occur.

    Args:
        image: path, PIL image, uint8 array [H, W, 3] or uint8 tensor [3, H, W].
        masks: by the title of their panel, such as truth, teacher, student alone, distilled; uint8 [H, W], 255 is void.
        classes: names of the classes.
        colors: RGB of each class, 0 to 255; default: see `palette`.
        opacity: of the colors, 0 to 1.

    Raises:
        DataError: the picture cannot be read, or a mask is not of its size. RunError: the file cannot be written.
    """
    from counterpoise.data.images import decode

    if isinstance(image, Tensor):
        image = image.cpu().permute(1, 2, 0).numpy()
    picture = decode(image)
    shades = _colors(colors)
    layers = {title: mask.cpu().to(torch.uint8).numpy() for title, mask in masks.items()}
    panels = {"image": picture}
    for title, mask in layers.items():
        if mask.shape != (picture.height, picture.width):
            raise DataError(
                f"Mask '{title}' is {list(mask.shape)}, and the picture [{picture.height}, {picture.width}]."
            )
        panels[title] = Image.blend(picture, Image.fromarray(shades[mask]), opacity)
    present = sorted(set().union(*(np.unique(mask).tolist() for mask in layers.values())))
    legend = [(_title(index, classes), tuple(shades[index].tolist())) for index in present]
    _save(_sheet(panels, legend), Path(path))


def _sheet(panels: Mapping[str, Image.Image], legend: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """Panels in a row under their titles, and under them the legend."""
    first = next(iter(panels.values()))
    scale: float = math.ceil(_NARROWEST / first.width) if first.width < _NARROWEST else min(1, _WIDEST / first.width)
    width, height = max(1, round(first.width * scale)), max(1, round(first.height * scale))
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    font = ImageFont.load_default(size=14)
    total = _GAP + len(panels) * (width + _GAP)
    places, left, top = [], _GAP, _LINE + height + _GAP
    for name, _ in legend:
        needed = _SWATCH + 4 + math.ceil(font.getlength(name)) + 2 * _GAP
        if left > _GAP and left + needed > total:
            left, top = _GAP, top + _LINE
        places.append((left, top))
        left += needed
    sheet = Image.new("RGB", (total, top + _LINE + _GAP if legend else top), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels.items()):
        x = _GAP + number * (width + _GAP)
        pen.text((x, 1), title, fill="black", font=font)
        sheet.paste(panel.resize((width, height), resampling), (x, _LINE))
    for (name, color), (x, y) in zip(legend, places, strict=True):
        pen.rectangle((x, y + 3, x + _SWATCH, y + 3 + _SWATCH), fill=color, outline="black")
        pen.text((x + _SWATCH + 4, y), name, fill="black", font=font)
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    from counterpoise.files import replacing

    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _colors(given: Sequence[Sequence[int]] | None) -> NDArray[np.uint8]:
    colors = palette()
    if given is not None:
        colors[: len(given)] = np.asarray(given, dtype=np.uint8)
    return colors


def _title(index: int, classes: Sequence[str]) -> str:
    if index == IGNORE:
        return "void"
    return classes[index] if index < len(classes) else f"class {index}"


def _starts(length: int, window: int, stride: int) -> list[int]:
    return [*range(0, length - window, stride), length - window]


def _check_dense(logits: Any) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"Segmentation needs logits [N, C, h, w], and the network gives {given}.")


def _by_class(matrix: Tensor) -> dict[str, Tensor]:
    """Shares by class [C], NaN where there is nothing to take a share of."""
    hit, truth, answered = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return {
        "iou": hit / (truth + answered - hit),
        "dice": 2 * hit / (truth + answered),
        "precision": hit / answered,
        "recall": hit / truth,
    }


def _accuracy(matrix: Tensor) -> float:
    return 100 * (matrix.diagonal().sum() / matrix.sum()).item()


def _mean_percent(shares: Tensor) -> float:
    return 100 * shares.nanmean().item()


def _percent(share: Tensor) -> float | None:
    return None if share.isnan() else 100 * share.item()


TASK = Segmentation()
