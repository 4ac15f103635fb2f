"""A batch as a picture: its views, their labels, and what a teacher says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from counterpoise.data.images import to_picture, visible
from counterpoise.system.files import replacing
from counterpoise.tasks.confusion import largest_class, upsample
from counterpoise.tasks.overlays import overlay

MOST, COLUMNS, EDGE = 36, 6, 160
"""Photos at most, those in a row, and how wide each is shown, in pixels."""
SCENES = 4


def write(
    path: Path, images: Tensor, target: Tensor, teacher: Tensor | None, classes: Sequence[str], several: bool
) -> None:
    """Write a batch as one PNG.

    Args:
        images: uint8 [N, C, H, W].
        target: as in `Batch`.
        teacher: its logits, [N, classes] or [N, classes, H', W'].
        several: whether each class is a question of its own.
    """
    if target.ndim >= 3:
        _scenes(path, images[:SCENES], target[:SCENES], None if teacher is None else teacher[:SCENES], classes)
        return
    font, line = ImageFont.load_default(size=12), 16
    count = min(MOST, len(images))
    rows = -(-count // COLUMNS)
    tile = EDGE + (2 if teacher is None else 3) * line
    sheet = Image.new("RGB", (COLUMNS * (EDGE + 8) + 8, rows * (tile + 8) + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for number in range(count):
        picture = to_picture(visible(images[number].cpu()))
        scale = EDGE / max(picture.size)
        method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), method)
        x, y = 8 + number % COLUMNS * (EDGE + 8), 8 + number // COLUMNS * (tile + 8)
        sheet.paste(picture, (x, y))
        said = [f"label: {_labels(target[number], classes)}"]
        if teacher is not None:
            said.append(f"teacher: {_answer(teacher[number], several, classes)}")
        for row, text in enumerate(said):
            pen.text((x, y + EDGE + row * line), _cut(text, font), fill="black", font=font)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _scenes(path: Path, images: Tensor, target: Tensor, teacher: Tensor | None, classes: Sequence[str]) -> None:
    """Scenes under one another, and beside them the truth and the teacher's answer."""
    size = images.shape[-2:]
    masks = {"truth": target.cpu()}
    if teacher is not None:
        logits = upsample(teacher, (size[0], size[1]))
        masks["teacher"] = (largest_class(logits) if target.ndim == 3 else (logits > 0).to(torch.int8)).cpu()
    tall = torch.cat(list(images.cpu()), dim=-2)
    overlay(path, tall, {title: torch.cat(list(mask), dim=-2) for title, mask in masks.items()}, classes)


def _labels(target: Tensor, classes: Sequence[str]) -> str:
    """An index, or a number a class: of several labels, or of mixed views."""
    if target.ndim == 0:
        return classes[int(target)] if int(target) >= 0 else "none"
    there = [
        f"{classes[index]} {target[index]:.0%}".removesuffix(" 100%") for index in (target > 0).nonzero().flatten()
    ]
    return ", ".join(there) or "none"


def _answer(logits: Tensor, several: bool, classes: Sequence[str]) -> str:
    """The likeliest class and how likely it is to the teacher; of several labels those that are likelier than not."""
    if several:
        return ", ".join(classes[index] for index in (logits > 0).nonzero().flatten()) or "none"
    probability, index = logits.float().softmax(-1).max(-1)
    return f"{classes[int(index)]} {float(probability):.0%}"


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as is as wide as a tile."""
    while font.getlength(text) > EDGE:
        text = f"{text[:-2]}…"
    return text
