"""Whole-slide images at one of their levels, by parts through OpenSlide; their masks by tiles through tifffile."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from counterpoise.bands import TIFFS, check_page, tiff_pages
from counterpoise.data.label_map import UNKNOWN, LabelMap
from counterpoise.data.mask_file import read_mask
from counterpoise.data.rasters import ALL, MaskParts, Raster
from counterpoise.data.sources.base import IGNORE
from counterpoise.decoding import Reading, Unreadable
from counterpoise.errors import ConfigError, CorruptImage, DataError, MissingExtraError, damage
from counterpoise.reading import bounded
from counterpoise.system.files import regular

ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".tif", ".tiff")
_LIKE = 0.2
"""By how much, as a share, a level may differ from the microns per pixel that are asked for."""
_LARGEST_TILE = 8192
_BAND = 512
_OPEN = 4


class At(NamedTuple):
    """Which level of slides is read: its number, 0 being the largest, or its microns per pixel."""

    level: int | None = None
    mpp: float | None = None

    def check(self) -> None:
        """Raises ConfigError unless it is one of both."""
        if (self.level is None) == (self.mpp is None):
            raise ConfigError("Slides have several levels: give level (0 is the largest), or mpp, microns per pixel.")
        if self.level is not None and self.level < 0:
            raise ConfigError(f"level is a number from 0 on, got {self.level}.")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ConfigError(f"mpp is microns per pixel, above 0, got {self.mpp:g}.")


class Slide(Raster):
    """A slide at a level, of which parts are read as they are asked for.

    Raises:
        CorruptImage: it is none, or has no such level. MissingExtraError.
    """

    def __init__(self, path: Path, at: At) -> None:
        self.path, self.level = str(path), 0
        slide = _opened(self.path)
        found = slide.properties
        self.level = _level(self.path, slide, at)
        width, height = slide.level_dimensions[self.level]
        self._size = (int(height), int(width))
        self.zoom = float(slide.level_downsamples[self.level])
        tiles = [found.get(f"openslide.level[{self.level}].tile-{side}", "0") for side in ("width", "height")]
        if any(not tile.isdecimal() or int(tile) > _LARGEST_TILE for tile in tiles):
            raise CorruptImage(self.path, f"its tiles are {' x '.join(tiles)} pixels, more than {_LARGEST_TILE}")
        sides = [found.get(f"openslide.mpp-{axis}") for axis in ("y", "x")]
        own = [float(side) for side in sides if side]
        self.mpp = (own[0] * self.zoom, own[1] * self.zoom) if len(own) == 2 and min(own) > 0 else None

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def shape(self) -> tuple[int, int, int]:
        return (3, *self._size)

    def part(self, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        (top, bottom, _), (left, right, _) = (
            part.indices(edge) for part, edge in zip((rows, columns), self.size, strict=True)
        )
        corner = round(left * self.zoom), round(top * self.zoom)
        try:
            found = _opened(self.path).read_region(corner, self.level, (right - left, bottom - top))
        except (MemoryError, CorruptImage):
            raise
        except Exception as error:  # whatever OpenSlide finds wrong with a tile
            _open.cache_clear()  # a slide that has failed once fails from then on
            raise CorruptImage(self.path, damage(error)) from None
        if found.getextrema()[3][0] < 255:  # nothing was scanned there
            found = Image.alpha_composite(Image.new("RGBA", found.size, "white"), found)
        return torch.from_numpy(np.array(found.convert("RGB"))).permute(2, 0, 1).contiguous()

    def whole(self, reading: Reading) -> Tensor:
        """All of it, where that is allowed. Raises CorruptImage."""
        _require_small(self.path, self.size, reading)
        return self.part()

    def resized(self, size: tuple[int, int]) -> Raster:
        if size == self.size:
            return self
        raise ConfigError("data.scenes.reduction is for pictures: of slides give another level (data.options.level).")


class SlideMask(MaskParts):
    """The mask of a slide at its level, uint8 [H, W] by parts: a TIFF in tiles or strips, or a picture of that size.

    Raises:
        CorruptImage: it cannot be read, or has no level of this size. MissingExtraError.
    """

    def __init__(self, path: Path, label_map: LabelMap, size: tuple[int, int], reading: Reading) -> None:
        self.path, self.label_map, self.shape, self.reading = path, label_map, size, reading
        with regular(path).open("rb") as file:
            start = file.read(4)
        self._held: Tensor | None = None
        self._pages: list[Any] = []
        if start not in TIFFS:
            self._held = read_mask(path, label_map, reading)
            if tuple(self._held.shape) != size:
                raise self._unfit([(self._held.shape[0], self._held.shape[1])])
            return
        try:
            self._pages = [self._page_of(tiff_pages(str(regular(path))))]
        except (CorruptImage, MemoryError):
            raise
        except Unreadable as error:
            raise CorruptImage(str(path), str(error)) from None
        except Exception as error:  # damaged files raise many kinds of errors
            raise CorruptImage(str(path), damage(error)) from None

    def _page_of(self, pages: Any) -> Any:
        """The level of this size, among the pages and those below the first."""
        every = [
            page for page in (*pages, *(pages[0].pages or ())) if type(page.imagelength) is type(page.imagewidth) is int
        ]
        of_size = [page for page in every if (page.imagelength, page.imagewidth) == self.shape]
        if not of_size:
            raise self._unfit([(page.imagelength, page.imagewidth) for page in every])
        page = of_size[0].aspage()
        check_page(page, self.reading._replace(max_megapixels=math.inf))
        if page.samplesperpixel != 1 or page.bitspersample != 8:
            kind = f"{page.samplesperpixel} channels of {page.bitspersample} bits"
            raise Unreadable(f"it has {kind}, and masks of slides hold one of 8 bits: the numbers of classes")
        return page

    def _unfit(self, sizes: list[tuple[int, int]]) -> CorruptImage:
        told = ", ".join(f"{width} x {height}" for height, width in sizes[:6])
        wanted = f"{self.shape[1]} x {self.shape[0]}"
        return CorruptImage(str(self.path), f"it has {told} pixels, and its slide at this level {wanted}")

    def part(self, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        if self._held is not None:
            return self._held[rows, columns]
        ends = [part.indices(edge)[:2] for part, edge in zip((rows, columns), self.shape, strict=True)]
        try:
            values = _region(self._pages[0], *ends)
        except MemoryError:
            raise
        except Exception as error:
            raise CorruptImage(str(self.path), str(error) if isinstance(error, Unreadable) else damage(error)) from None
        classes = self.label_map.of_values[values]
        if (classes == UNKNOWN).any():
            strange = int(values[classes == UNKNOWN][0])
            raise DataError(
                f"Mask {self.path} holds the value {strange}, which is no class of {self.label_map.file}: write the "
                "value behind each name, or set data.options.ignore to what is void."
            )
        return torch.from_numpy(classes)

    def whole(self) -> Tensor:
        _require_small(str(self.path), self.shape, self.reading)
        return self.part()

    def counts(self) -> Tensor:
        """Pixels by class, int64 [256], counted in bands."""
        found = torch.zeros(IGNORE + 1, dtype=torch.int64)
        for top in range(0, self.shape[0], _BAND):
            found += torch.bincount(self.part(slice(top, top + _BAND)).flatten(), minlength=IGNORE + 1)
        return found


def _region(page: Any, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.uint8]:
    """Values of a part of a page, from the tiles or strips that it lies in."""
    tall = page.tilelength if page.is_tiled else page.rowsperstrip
    wide = page.tilewidth if page.is_tiled else page.imagewidth
    across = -(-page.imagewidth // wide)
    found = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), np.uint8)
    file = page.parent.filehandle
    for down in range(rows[0] // tall, -(-rows[1] // tall)):
        for over in range(columns[0] // wide, -(-columns[1] // wide)):
            index = down * across + over
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if not count:  # a tile that is left out is 0
                continue
            if offset + count > file.size:
                raise Unreadable("a part of it lies beyond its end: it is cut off, or damaged")
            file.seek(offset)
            segment = page.decode(file.read(count), index)[0]
            tile = segment.reshape(segment.shape[-3], segment.shape[-2])
            top, left = down * tall, over * wide
            high, low = max(rows[0], top), min(rows[1], top + tile.shape[0])
            begin, end = max(columns[0], left), min(columns[1], left + tile.shape[1])
            found[high - rows[0] : low - rows[0], begin - columns[0] : end - columns[0]] = tile[
                high - top : low - top, begin - left : end - left
            ]
    return found


def slide_paths(given: Iterable[Any]) -> Iterator[Path]:
    """The slides that paths mean: themselves, or those in folders. Raises ConfigError, DataError."""
    for one in given:
        if not isinstance(one, str | os.PathLike):
            raise ConfigError(
                f"Slides are read from files, and this is a {type(one).__name__}: leave out level and mpp."
            )
        path = Path(one)
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(ENDINGS))
        if not found:
            raise DataError(f"{path} holds no slides ({', '.join(ENDINGS)}).")
        yield from found


def _level(path: str, slide: Any, at: At) -> int:
    """The number of the level that is asked for. Raises CorruptImage where the slide has none."""
    if at.level is not None:
        if at.level < slide.level_count:
            return at.level
        raise CorruptImage(path, f"it has {slide.level_count} levels, from 0 on, and level is {at.level}")
    assert at.mpp is not None
    own = slide.properties.get("openslide.mpp-x")
    if not own or not float(own) > 0:
        raise CorruptImage(path, "it does not say its microns per pixel: give level in place of mpp")
    there = [float(own) * zoom for zoom in slide.level_downsamples]
    nearest = min(range(len(there)), key=lambda level: abs(math.log(there[level] / at.mpp)))
    if abs(there[nearest] / at.mpp - 1) > _LIKE:
        told = ", ".join(f"{value:.3g}" for value in there)
        raise CorruptImage(path, f"its levels have {told} microns per pixel, none of them {at.mpp:g}")
    return nearest


def _require_small(path: str, size: tuple[int, int], reading: Reading) -> None:
    try:
        bounded(*size, reading)
    except Unreadable as error:
        raise CorruptImage(path, f"{error}; a smaller level, or a window (data.scenes.window) needs less") from None


def _opened(path: str) -> Any:
    """A slide, open in this process. Raises CorruptImage, MissingExtraError."""
    return _open(path, os.getpid())


@lru_cache(_OPEN)
def _open(path: str, _process: int) -> Any:
    try:
        import openslide
    except ImportError:
        raise MissingExtraError("Reading whole-slide images", "slides") from None
    try:
        return openslide.OpenSlide(regular(Path(path)))
    except FileNotFoundError:
        raise CorruptImage(path, "the file does not exist") from None
    except openslide.OpenSlideError as error:
        kind = isinstance(error, openslide.OpenSlideUnsupportedFormatError)
        why = "it is no whole-slide image, nor a TIFF in tiles" if kind else damage(error)
        raise CorruptImage(path, why) from None
