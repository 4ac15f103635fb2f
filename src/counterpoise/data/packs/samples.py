"""What of a set goes into a pack: bytes of files as they are, or images made smaller."""

from __future__ import annotations

import io
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from counterpoise import bands, decoding
from counterpoise.data.images import extensions, header_size, reading_specification, skipping_advised, to_picture
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import resized
from counterpoise.data.packs.format import MOST, Meaning
from counterpoise.data.packs.further import of_volumes
from counterpoise.data.packs.reading import PackedScenes, PackSet
from counterpoise.data.sources.base import IGNORE, ImageSet, Subset
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.mask_folders import QuestionFiles
from counterpoise.data.sources.masks_files import MaskFiles
from counterpoise.data.sources.outlines import DrawnScenes
from counterpoise.data.sources.volumes import VolumeScenes
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError
from counterpoise.system.documents import why_unread
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

    def again(self, indices: Sequence[int]) -> Iterator[Sample]:
        """Some samples, whatever comes next."""
        self._images.expect(indices)
        yield from self._threads.map(self._sample, indices)

    @skipping_advised()
    def _sample(self, index: int) -> Sample:
        images = self._images
        content = _content(images, index, _file(images, index))
        name = _name(images, index, content)
        extent = images.extent(index) if of_volumes(images) else _extent(content)
        file = PackedFile(name, _ending(name, content), content, extent)
        if not images.masked:
            if self._shrinking is not None:
                with suppress(CorruptImage) if self._skip else nullcontext():
                    file = _shrunk(images, index, file, self._shrinking)
            return Sample({"images": file}, int(images.labels[index]) >= 0)
        return Sample(self._scene(index, file), False)

    def _scene(self, index: int, file: PackedFile) -> dict[str, PackedFile]:
        images = self._images
        content = _content(images, index, images.mask_file(index))
        name = _mask_name(images, index)
        mask = PackedFile(name, f"mask.{_ending(name, content)}", content, _extent(content))
        if self._shrinking is not None:
            # A mask that cannot be read would mean another thing among those that are written anew.
            mask = _shrunk_mask(images, index, name, self._shrinking)
            with suppress(CorruptImage) if self._skip else nullcontext():
                file = _shrunk(images, index, file, self._shrinking)
        return {"images": file, "masks": mask}

    def __enter__(self) -> Preparing:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)


def meaning_of(images: ImageSet, shrunk: bool) -> Meaning | None:
    """What the values of the masks mean; None where these are no scenes."""
    if not images.masked:
        return None
    whole = images.whole if isinstance(images, Subset) else images
    if not isinstance(whole, MaskFiles | PackedScenes | DrawnScenes | QuestionFiles | VolumeScenes):
        raise DataError(f"The scenes of {images.origin or 'this source'} lie in no files of their own: none to pack.")
    label_map = whole.label_map
    assert label_map is not None  # of volumes that are scenes
    if shrunk:  # masks of the classes that values stand for
        names = list(label_map.classes)
        return Meaning(names=names, colors=[], void=[], ignore=IGNORE, given=[], lossy=False, resize=False)
    if isinstance(whole, PackedScenes):
        return whole.pack.meaning
    return kept_meaning(label_map, whole.resize if isinstance(whole, MaskFiles) else False)


def kept_meaning(of: LabelMap, resize: bool) -> Meaning:
    """What masks mean, as pack.json has it."""
    return Meaning(
        names=list(of.names),
        colors=list(of.colors),
        void=sorted(of.void),
        ignore=of.ignore,
        given=list(of.given),
        lossy=of.lossy,
        resize=resize,
    )


def _file(images: ImageSet, index: int) -> Path | bytes | None:
    """What an image is decoded from; a slice of a volume as the file that it becomes."""
    if isinstance(images, Subset):
        return _file(*images.find(index))
    return images.as_file(index) if isinstance(images, VolumeScenes) else images.file(index)


def _content(images: ImageSet, index: int, file: Path | bytes | None) -> bytes:
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
        raise DataError(f"{path} cannot be packed: {why_unread(error)}.") from None


def _name(images: ImageSet, index: int, content: bytes) -> bytes:
    """The path within the set, as its fingerprint has it."""
    if isinstance(images, Subset):
        return _name(*images.find(index), content)
    if isinstance(images, FileSet):
        return os.fsencode(images.files[index])
    if isinstance(images, PackSet):
        return images.packed_name(index)
    return os.fsencode(images.place(index) if isinstance(images, VolumeScenes) else images.name(index))


def _mask_name(images: ImageSet, index: int) -> bytes:
    if isinstance(images, Subset):
        return _mask_name(*images.find(index))
    if isinstance(images, PackedScenes):
        return images.packed_mask_name(index)
    if isinstance(images, DrawnScenes | QuestionFiles | VolumeScenes):
        return os.fsencode(images.mask_name(index))
    assert isinstance(images, MaskFiles)
    return os.fsencode(images.mask_files[index])


def _ending(name: bytes, content: bytes) -> str:
    """The ending of a name in the tar, as the readers of such tars know it."""
    ending = PurePosixPath(os.fsdecode(name)).suffix.lower()
    if content.startswith(bands.NUMPY):
        return "npy"
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
    picture.save(written, "JPEG", quality=shrinking.quality, optimize=True)  # the same pixels in fewer bytes
    return PackedFile(file.name, "jpg", written.getvalue(), size)


def _shrunk_mask(images: ImageSet, index: int, name: bytes, shrinking: Shrinking) -> PackedFile:
    """A gray PNG of classes, void 255, as large as its image becomes, by the nearest pixel."""
    size = smaller(images.extent(index), shrinking.shorter)
    written = io.BytesIO()
    Image.fromarray(resized(images.read_mask(index), size).numpy()).save(written, "PNG")
    return PackedFile(name, "mask.png", written.getvalue(), size)
