"""What of a set goes into a pack: bytes of files as they are, or images made smaller."""

from __future__ import annotations

import io
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from counterpoise import decoding
from counterpoise.data.images import extensions, header_size, reading_specification, skipping_advised, to_picture
from counterpoise.data.packs.format import MOST, Meaning
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.sources.files import FileSet
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError, UnfitFileError
from counterpoise.system.files import regular

_AHEAD = 32
_ANY_SIZE = Reading(max_megapixels=float("inf"))


@dataclass(frozen=True)
class Shrinking:
    """How images are made smaller: their shorter side, and the quality of the JPEGs that those become."""

    shorter: int
    quality: int

    def values(self, reading: Reading) -> dict[str, Any]:
        """As JSON holds it, with how the files were read."""
        return {"shorter": self.shorter, "quality": self.quality, **reading_specification(reading)}


class PackedFile(NamedTuple):
    """A file as it is in a pack. ending: of its name in the tar, without a dot."""

    name: bytes
    ending: str
    content: bytes
    extent: tuple[int, int]

    @property
    def checksum(self) -> int:
        """CRC-32 of the bytes."""
        return zlib.crc32(self.content)


class Sample(NamedTuple):
    """What is packed of one sample: its files by table (images, masks), and whether it has a label."""

    files: dict[str, PackedFile]
    has_label: bool


class Preparing:
    """Reads the samples of a set in order, some ahead in threads.

    Args:
        skip: whether an image that cannot be made smaller, as it cannot be read, is packed as it is.
    """

    def __init__(self, images: ImageSet, shrinking: Shrinking | None, skip: bool) -> None:
        self._images, self._shrinking, self._skip = images, shrinking, skip
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._ahead: deque[Future[Sample]] = deque()
        self._next = self._asked = 0

    def samples(self, first: int) -> Iterator[Sample]:
        """The samples from `first` on; what is not taken now is there when it goes on from where this stopped."""
        if first != self._next:
            self._ahead.clear()
            self._next = self._asked = first
        while self._next < len(self._images):
            while self._asked < min(self._next + _AHEAD, len(self._images)):
                self._ahead.append(self._threads.submit(self._sample, self._asked))
                self._asked += 1
            self._next += 1
            yield self._ahead.popleft().result()

    @skipping_advised()
    def _sample(self, index: int) -> Sample:
        images = self._images
        label = int(images.labels[index])
        content = _content(images, index)
        file = PackedFile(_name(images, index), _ending(images, index, content), content, _extent(content))
        if self._shrinking is not None and not images.masked:
            with suppress(CorruptImage) if self._skip else nullcontext():
                file = _shrunk(images, index, file, self._shrinking)
        return Sample({"images": file}, label >= 0 and not images.masked)

    def __enter__(self) -> Preparing:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)


def meaning_of(images: ImageSet, shrunk: bool) -> Meaning | None:
    """What the values of the masks mean; None where these are no scenes."""
    if images.masked:
        raise DataError("Scenes cannot be packed yet.")
    return None


def _content(images: ImageSet, index: int) -> bytes:
    file = images.file(index)
    if file is None:
        raise DataError(
            f"{images.name(index)} lies in no image file: sets that are held in memory need no pack, and get none."
        )
    content = file if isinstance(file, bytes) else read_whole(file)
    if len(content) > MOST:
        raise DataError(f"{images.name(index)} has {len(content):,} bytes, and a pack takes files of up to {MOST:,}.")
    return content


def read_whole(path: Path) -> bytes:
    """The bytes of a file. Raises DataError."""
    try:
        return regular(path).read_bytes()
    except OSError as error:
        why = f"it {error.strerror}" if isinstance(error, UnfitFileError) else error.strerror or str(error)
        raise DataError(f"{path} cannot be packed: {why}.") from None


def _name(images: ImageSet, index: int) -> bytes:
    """The path within the set, as its fingerprint has it."""
    return os.fsencode(images.files[index] if isinstance(images, FileSet) else images.name(index))


def _ending(images: ImageSet, index: int, content: bytes) -> str:
    """The ending of a name in the tar, as the readers of such tars know it."""
    ending = PurePosixPath(images.name(index)).suffix.lower()
    if ending not in extensions():
        try:
            with decoding.opened(io.BytesIO(content), _ANY_SIZE) as image:
                ending = f".{(image.format or 'jpg').lower()}"
        except Exception:  # no picture: said where it is read
            ending = ".jpg"
    return {".jpeg": "jpg", ".jpe": "jpg", ".jfif": "jpg"}.get(ending, ending[1:])


def _extent(content: bytes) -> tuple[int, int]:
    try:
        return header_size(content, "image", _ANY_SIZE)
    except CorruptImage:  # said where it is read
        return 0, 0


def smaller(extent: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width with a shorter side of `shorter` pixels; as they are where that is no less."""
    least = min(extent)
    if least <= shorter:
        return extent
    return max(shorter, round(extent[0] * shorter / least)), max(shorter, round(extent[1] * shorter / least))


def _shrunk(images: ImageSet, index: int, file: PackedFile, shrinking: Shrinking) -> PackedFile:
    """A JPEG of fewer pixels; the file as it is where it has no more than it may."""
    size = smaller(images.extent(index), shrinking.shorter)
    if size == images.extent(index):
        return file
    picture = to_picture(images.read(index)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=shrinking.quality)
    return PackedFile(file.name, "jpg", written.getvalue(), size)
