"""Sets in memory: decoded once where they fit, and put one after the other."""

from __future__ import annotations

from typing import Literal

import torch

from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.data.sources.concatenation import Concatenation
from counterpoise.errors import CorruptImage

_AHEAD = 256  # images that are asked for at once, where they lie far away


def in_memory(images: ImageSet, limit_bytes: float, on_corrupt: Literal["stop", "skip"] = "stop") -> ImageSet:
    """Decode a set once, into memory, where all its images have one size and fit; else give it back as it is.

    The fingerprint stays that of the files, and what is shown does not depend on where pixels are kept: a set that
    holds what cannot be read stays as it is, so that others take their places as in a set that does not fit.

    Args:
        limit_bytes: most bytes that pixels and masks may take.
        on_corrupt: 'stop' raises CorruptImage.
    """
    if isinstance(images, ArraySet):
        return images
    extent = _extent(images, limit_bytes, on_corrupt)
    if extent is None:
        return images
    pixels = torch.empty(len(images), images.channels, *extent, dtype=torch.uint8)
    masks = torch.empty(len(images), *extent, dtype=torch.uint8) if images.masked else None
    for index in range(len(images)):
        if index % _AHEAD == 0:
            images.expect(range(index, min(index + _AHEAD, len(images))))
        try:
            image = images.read(index)
            mask = images.read_mask(index) if images.masked else None
        except CorruptImage:
            if on_corrupt == "stop":
                raise
            return images
        if tuple(image.shape[1:]) != extent:  # a header that lies
            return images
        pixels[index] = image
        if masks is not None and mask is not None:
            masks[index] = mask
    names = [images.name(index) for index in range(len(images))]
    held = ArraySet(pixels, images.labels, images.classes, names, images.corrupt, images.fingerprint(), masks)
    held.reading, held.origin, held.notes = images.reading, images.origin, images.notes
    held.blocks, held.questions = images.blocks, images.questions
    held.groups, held.group_names = images.groups, images.group_names
    held.spacings = [images.spacing(index) for index in range(len(images))]
    return held


def _extent(images: ImageSet, limit_bytes: float, on_corrupt: Literal["stop", "skip"]) -> tuple[int, int] | None:
    """The one size of all images, where they fit; else None. Headers are read up to the first that differs."""
    extent: tuple[int, int] | None = None
    for index in range(len(images)):
        try:
            found = images.extent(index)
        except CorruptImage:
            if on_corrupt == "stop":
                raise
            return None
        extent = extent or found
        if found != extent or len(images) * (images.channels + images.masked) * extent[0] * extent[1] > limit_bytes:
            return None
    return extent


def concatenate(labeled: ImageSet, unlabeled: ImageSet) -> ImageSet:
    """`labeled`, its classes kept, followed by the images of `unlabeled`, whose labels become UNLABELED.

    One ArraySet where both are in memory, of one size, and no scenes.
    """
    unknown = torch.full((len(unlabeled), *labeled.labels.shape[1:]), UNLABELED, dtype=labeled.labels.dtype)
    labels = torch.cat([labeled.labels, unknown])
    both: ImageSet = Concatenation([labeled, unlabeled], labels, labeled.classes)
    arrays = [part for part in (labeled, unlabeled) if isinstance(part, ArraySet) and not part.masked]
    if len(arrays) == 2 and arrays[0].extent(0) == arrays[1].extent(0):
        names = [part.name(index) for part in arrays for index in range(len(part))]
        images = torch.cat([part.images for part in arrays])
        blocks = both.blocks
        both = ArraySet(images, labels, labeled.classes, names, labeled.corrupt + unlabeled.corrupt)
        both.blocks = blocks
        both.spacings = [part.spacing(index) for part in arrays for index in range(len(part))]
    both.reading = labeled.reading
    both.origin = " and ".join(part.origin for part in (labeled, unlabeled) if part.origin)
    both.notes = [*labeled.notes, *unlabeled.notes]
    return both
