"""What a look at some pictures of a set tells: a fourth band, gray levels that are hardly used, further pages."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoise import bands, config, decoding
from counterpoise.data.images import AS_USUAL, reading_specification
from counterpoise.data.order import BlockOrder, Order
from counterpoise.data.sources.base import ImageSet
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage
from counterpoise.reading import Intensity
from counterpoise.system.files import regular

WINDOWS, FEW = 8, 0.5
"""How many windows of an order are looked at, and the part of the classes of a full shuffle that is told as few."""
LOOKED_AT = 48
"""Pictures of a set, spread evenly."""

FEW_PLANES = 6
"""Slices of volumes that are looked at, each of which is unpacked whole."""

MEASURED = 500
"""Pictures whose headers tell how much crops leave out."""

_LEVELS = (255, 1023, 4095, 16383)  # white of 8, 10, 12 and 14 bits


@dataclass
class Seen:
    """What was found in the pictures that were looked at.

    Attributes:
        count: of them all.
        transparent: those that are not opaque everywhere.
        values: how often each value occurs in their fourth bands, int64 [256].
        left_out: those with a fourth band that their files say is no transparency.
        deep, peak: gray ones of 16 bits, and their largest value.
        deep_bands, band_peak: those of several bands of 16 bits, and the largest value of what is kept, 8 bits.
        paged, pages: those with further pages or frames, and the most that one has.
        colored: those in color that are read as gray.
        values_brought, black, white: how many values were brought to 8 bits by `data.intensity`, and of these to 0
            and 255.
        masks: their mask files, of which the pages count alone.
    """

    count: int = 0
    transparent: int = 0
    values: Any = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    left_out: int = 0
    deep: int = 0
    peak: int = 0
    deep_bands: int = 0
    band_peak: int = 0
    paged: int = 0
    pages: int = 1
    colored: int = 0
    values_brought: int = 0
    black: int = 0
    white: int = 0
    masks: Seen | None = None

    def look(self, file: str | PathLike[str] | bytes, reading: Reading = AS_USUAL) -> None:
        """Add a picture. One that cannot be read tells nothing here; it is named where it is decoded."""
        try:
            if reading.intensity is not None or bands.is_dicom(_start(file)):
                self._add_brought(file if isinstance(file, bytes) else regular(Path(file)).read_bytes(), reading)
                return
            if reading.channels != 3:
                content = file if isinstance(file, bytes) else regular(Path(file)).read_bytes()
                if reading.channels != 1 or content.startswith(bands.NUMPY):
                    self._add_channels(content, reading)
                    return
            with decoding.opened(
                io.BytesIO(file) if isinstance(file, bytes) else regular(Path(file)), reading
            ) as image:
                self._add(image)
                if reading.channels == 1:
                    colors = np.asarray(image.convert("RGB"))
                    self.colored += bool((colors != colors[..., :1]).any())
        except MemoryError:
            raise
        except Exception:  # as `decoding.read`
            return

    def _add_brought(self, content: bytes, reading: Reading) -> None:
        """Add a picture whose values become 8 bits as `data.intensity` says."""
        self._count(np.asarray(decoding.read(content, reading)))
        pages = decoding.pages_of(content, reading)
        self.paged, self.pages = self.paged + (pages > 1), max(self.pages, pages)

    def add_pixels(self, images: ImageSet, index: int) -> None:
        """Add a picture of a set that is no file, such as a slice of a volume."""
        try:
            self._count(images.read(index).numpy())
        except CorruptImage:  # named where it is read
            return

    def _count(self, pixels: Any) -> None:
        self.count += 1
        self.values_brought += pixels.size
        self.black, self.white = self.black + int((pixels == 0).sum()), self.white + int((pixels == 255).sum())

    def _add_channels(self, content: bytes, reading: Reading) -> None:
        """Add a picture whose channels are taken as they are."""
        self.count += 1
        if content.startswith((bands.NUMPY, *bands.TIFFS)):
            read = bands.array if content.startswith(bands.NUMPY) else bands.tiff
            values = read(content, reading)
            if values.dtype == np.uint16:
                self.deep, self.peak = self.deep + 1, max(self.peak, int(values.max()))
            return
        with decoding.opened(io.BytesIO(content), reading) as image:
            if ";16" in decoding.raw_mode(image):
                self.deep_bands, self.band_peak = self.deep_bands + 1, max(self.band_peak, int(np.asarray(image).max()))

    def _add(self, image: Any) -> None:
        decoding.check_grays(image)
        self.count += 1
        pages = decoding.pages(image)
        self.paged += pages > 1
        self.pages = max(self.pages, pages)
        raw, transparent = decoding.raw_mode(image), decoding.is_transparent(image)
        tags = getattr(image, "tag_v2", {})
        self.left_out += image.mode in ("RGB", "RGBA", "L", "LA") and not transparent and tags.get(277, 1) in (2, 4)
        if transparent:
            band = np.asarray(image.convert("RGBA"))[..., 3]
            if (band != 255).any():
                self.transparent += 1
                self.values += np.bincount(band.ravel(), minlength=256)
        elif raw.startswith("I;16") and image.format not in decoding.SCALED:
            self.deep += 1
            self.peak = max(self.peak, int(np.asarray(image).max()))
        if ";16" in raw and image.mode in ("RGB", "RGBA") and image.format not in decoding.SCALED:
            self.deep_bands += 1
            self.band_peak = max(self.band_peak, int(np.asarray(image)[..., :3].max()))

    @property
    def band_is_data(self) -> bool:
        """Whether fourth bands are no cut-outs: those are opaque somewhere, and opaque or clear almost everywhere.

        What files say of the band decides nothing: programs that write four bands call the fourth one alpha.
        """
        total = int(self.values.sum())
        return total > 0 and (self.values[255] == 0 or 2 * int(self.values[0] + self.values[255]) < total)

    @property
    def level(self) -> int | None:
        """The white level that the 16-bit pictures would fit; None where they use what they have."""
        return next((level for level in _LEVELS if self.peak <= level), None) if self.deep else None

    def notes(self, reading: Reading) -> list[str]:
        """What a person must know of these pictures, read in this way: a sentence each, with what mends it."""
        of = f"of {self.count} pictures looked at"
        found = []
        if self.left_out:
            found.append(f"{self.left_out} {of} have a further band that is no transparency: it is left out.")
        if self.transparent and reading.alpha == "ignore":
            found.append(
                f"The fourth band of {self.transparent} {of} is left out, as data, and their colors stay as they are; "
                "--data.alpha white takes it for transparency."
            )
        elif self.transparent:
            found.append(
                f"{self.transparent} {of} are transparent in places and composited over white; where their fourth "
                "band is data, --data.alpha ignore leaves it out."
            )
        if self.deep and reading.white_level is None and self.level is not None:
            found.append(
                f"{self.deep} {of} have 16 bits and values up to {self.peak:,} of 65,535, so they keep "
                f"{self.peak * 255 // 65535 + 1} of 256 gray levels: --data.white_level {self.level} would fit."
            )
        if self.deep and reading.white_level is not None and self.peak > reading.white_level:
            found.append(
                f"{self.deep} {of} have 16 bits and values up to {self.peak:,}: what lies above data.white_level "
                f"{reading.white_level} is white."
            )
        if self.deep and reading.channels != 3:
            found.append(f"{self.deep} {of} have 16 bits and are brought to 8: what is finer than that is not seen.")
        if self.values_brought and reading.intensity is not None:
            black, white = (100 * part / self.values_brought for part in (self.black, self.white))
            few = " Hardly anything lies between: were other values meant?" if black + white > 99 else ""
            found.append(
                f"By data.intensity {said_of_intensity(reading.intensity)}, {black:.3g}% of the values in "
                f"{self.count} pictures looked at are black and {white:.3g}% white.{few}"
            )
        if self.colored:
            found.append(f"{self.colored} {of} are in color and become gray, 0.299 R + 0.587 G + 0.114 B.")
        if self.deep_bands:
            known = f"{self.deep_bands} {of} have several bands of 16 bits, of which the upper 8 are kept"
            few = f", {self.band_peak + 1} of 256 levels: bring their colors to 8 bits, or to all of 16, beforehand"
            found.append(f"{known}{few if self.band_peak < 64 else ''}.")
        for seen, kind in ((self, "pictures"), (self.masks, "masks")):
            if seen is not None and seen.paged:
                found.append(
                    f"{seen.paged} of {seen.count} {kind} looked at have further pages or frames (up to {seen.pages}): "
                    "only the first is read."
                )
        if self.masks is not None and self.paged:
            if self.masks.paged:
                found.append("Where a page is a slice of a volume, --data.source stacks shows all of them.")
            found.append("Where pages are the levels of a slide, --data.source slides shows the one that is named.")
        return found


def _start(file: str | PathLike[str] | bytes) -> bytes:
    """The first bytes of a file, by which its kind is known."""
    if isinstance(file, bytes):
        return file
    with regular(Path(file)).open("rb") as opened:
        return opened.read(132)


def look(images: ImageSet) -> Seen:
    """Look at some pictures of a set, spread evenly; those that lie in memory are what they are.

    Raises DataError where they lie far away, and cannot be had.
    """
    seen, masks = Seen(), Seen()
    if images.reading.intensity is not None and len(images) and images.file(0) is None:
        for index in images.spread(FEW_PLANES):
            seen.add_pixels(images, index)
        return seen
    images.expect(images.spread(LOOKED_AT))
    for index in images.spread(LOOKED_AT):
        for one, of in ((seen, images.file), (masks, images.mask_file)):
            try:
                file = of(index)
            except Exception:  # a picture that is missing is named where it is read
                break
            if file is not None:
                one.look(file, images.reading if one is seen else images.reading._replace(channels=3, intensity=None))
    seen.masks = masks
    return seen


def look_at(files: Iterable[Any], reading: Reading) -> Seen:
    """Look at pictures by path or as bytes; others are what they are."""
    seen = Seen()
    for file in files:
        if isinstance(file, str | PathLike | bytes):
            seen.look(file, reading)
    return seen


def said_of_reading(reading: Reading) -> str:
    """How files are read, in words."""
    channels = "" if reading.channels == 3 else f", {reading.channels} channels"
    if reading.intensity is not None:
        return f"alpha {reading.alpha}, intensity {said_of_intensity(reading.intensity)}{channels}"
    return f"alpha {reading.alpha}, white level {reading.white_level or 65535}{channels}"


def said_of_intensity(intensity: Intensity) -> str:
    """Which values become black and white, in words."""
    ends = (intensity.high,) if intensity.kind in ("zscore", "white") else (intensity.low, intensity.high)
    of = "" if intensity.of == "picture" else f" of whole {intensity.of}s"
    return f"{intensity.kind} {' to '.join(f'{end:g}' for end in ends)}{of}"


def of_evaluation(images: ImageSet, reading: Reading, cropped: bool) -> list[str]:
    """What a person must know of pictures that a student is evaluated on, a sentence each.

    Args:
        reading: how pictures were read for the student.
        cropped: whether it is shown their central squares.
    """
    found = look(images).notes(images.reading)
    if reading_specification(images.reading) != reading_specification(reading):
        own, given = map(said_of_reading, (reading, images.reading))
        found.append(f"The student was trained on pictures that were read with {own}, and these are read with {given}.")
    return [*found, *(cut_off(images) if cropped else [])]


def cut_off(images: ImageSet) -> list[str]:
    """A sentence where the central squares of pictures leave out more than a third of their area, by their extents.

    What a crop_share below 1 leaves out around pictures of any shape does not count.
    """
    square = area = 0
    widest = (1, 1)
    for index in images.spread(MEASURED):
        try:
            height, width = images.extent(index)
        except CorruptImage:  # named where it is read
            continue
        square, area = square + min(height, width) ** 2, area + height * width
        if max(height, width) * min(widest) > max(widest) * min(height, width):
            widest = (height, width)
    if 3 * square >= 2 * area:
        return []
    return [
        "Evaluation and prediction cut the central square out of each picture, which leaves out "
        f"{100 - 100 * square // area}% of their area (the most extreme is {widest[1]} x {widest[0]}): "
        "--data.fit squash or --data.fit pad shows them whole."
    ]


def of_order(images: ImageSet, order: Order, data: config.Data) -> list[str]:
    """What a person must know of the order of an epoch, a sentence each."""
    idle = [key for key in ("block_size", "shuffle_window") if getattr(data, key) is not None]
    if data.shuffle == "full" and idle:
        names = " and ".join(f"data.{key}" for key in idle)
        return [f"The order is full: {names} say{'s' * (len(idle) == 1)} nothing without data.shuffle blocks."]
    return [*fetched_again(images, order, data.balance > 0), *few_classes(images, order)]


def fetched_again(images: ImageSet, order: Order, balanced: bool = False) -> list[str]:
    """A sentence where what is mixed is more than the cache of an address keeps.

    balanced: whether data.balance orders the images, which blocks cannot.
    """
    there = images.kept_share
    if there >= 1:
        return []
    if not isinstance(order, BlockOrder):
        without = "without data.balance, " if balanced else ""
        return [
            f"The cache keeps {100 * there:.2g}% of these images, and any may come anywhere, so that each epoch "
            f"fetches many of them anew, and some more than once: {without}data.shuffle blocks fetches them shard by "
            "shard, or take a larger cache (data.options.cache_gb)."
        ]
    mixed = order.largest / order.count
    if mixed <= there:
        return []
    return [
        f"A window of the order holds {100 * mixed:.2g}% of these images, and the cache keeps {100 * there:.2g}%, so "
        "that they are fetched several times an epoch: take fewer blocks (data.shuffle_window), or a larger cache "
        "(data.options.cache_gb)."
    ]


def few_classes(images: ImageSet, order: Order) -> list[str]:
    """A sentence where images lie sorted by class, so that windows of blocks hold few classes each."""
    counts = images.per_class()
    if images.multilabel or not isinstance(order, BlockOrder) or not counts or not sum(counts):
        return []
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    windows = list(order.windows(0))
    windows = windows[:: max(1, len(windows) // WINDOWS)]
    found = expected = 0.0
    for window in windows:
        there = images.labels[order.at(0, window.first, window.first + int(order.sizes[window.blocks].sum()))]
        there = there[there >= 0]
        found += len(set(there.tolist()))
        expected += float((1 - (1 - shares) ** len(there)).sum())
    if found >= FEW * expected:
        return []
    return [
        f"A window of the order holds {found / len(windows):.0f} classes, and as many images of a full shuffle "
        f"{expected / len(windows):.0f}: images of a class lie together, so that steps see few classes at a time. Take "
        "smaller blocks (data.block_size), more of them (data.shuffle_window), or data.shuffle full."
    ]
