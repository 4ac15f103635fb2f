"""What a pack is on disk: pack.json, tar shards, and an index of plain numpy arrays that are mapped, not loaded.

pack.json                    what the pack holds: classes, parts, shards, and the checksums of the files below
train-000000.tar, ...        000000000.jpg, 000000000.cls, 000000001.jpg, ...: what webdataset reads
index/train.labels.npy       int64 [N]
index/train.images.npy       `RECORD` [N]: where the bytes of each image are in its shard, and their checksum
index/train.images.names     what each image was called, "circle/03.jpg 4711" and a zero byte: its path and size
index/train.masks.npy, ...   the same for masks, of scenes
"""

from __future__ import annotations

import base64
import mmap
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from counterpoise.errors import DataError
from counterpoise.system.documents import parse_json
from counterpoise.system.files import write_text

VERSION = 1
DESCRIPTION = "pack.json"
PLAN = "packing.json"
"""What is being packed, as long as it is not done."""
INDEX = "index"
BLOCK = 2**24
"""Bytes of a file that are looked at at once."""
RECORD = np.dtype(
    [
        ("offset", "<u8"),  # of the bytes in the shard
        ("name_end", "<u8"),  # where the name ends in the file of names; it begins where the one before ends
        ("length", "<u4"),
        ("checksum", "<u4"),  # CRC-32 of the bytes
        ("height", "<u4"),  # 0 where the header cannot be read
        ("width", "<u4"),
    ]
)
MOST = 2**32 - 1
"""Bytes of one file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(_Part):
    """A file of the index, and its CRC-32."""

    bytes: int = Field(ge=0)
    checksum: int = Field(ge=0, lt=2**32)


class Shard(_Part):
    """A tar file. checksum: CRC-32 of it; None of one that others made. changed: when that was changed last, in ns."""

    name: str
    samples: int = Field(ge=0)
    bytes: int = Field(ge=0)
    checksum: int | None = Field(None, ge=0, lt=2**32)
    changed: int | None = None


class Part(_Part):
    """A part of the data, such as train.

    Attributes:
        file: how the names of its files begin.
        index: its files in the folder of the index.
    """

    file: str
    shards: list[Shard]
    index: dict[str, File]

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(shard.samples for shard in self.shards)

    @property
    def ends(self) -> list[int]:
        """Behind the last sample of each shard."""
        return list(accumulate(shard.samples for shard in self.shards))


class Meaning(_Part):
    """What the values of masks mean: the fields of `LabelMap`, and whether masks are resized to their images."""

    names: list[str]
    colors: list[tuple[int, int, int]]
    void: list[int]
    ignore: int | None
    given: list[int]
    lossy: bool
    resize: bool

    @model_validator(mode="after")
    def _fit(self) -> Meaning:
        values = [*self.void, *self.given, *(value for color in self.colors for value in color)]
        if len(self.names) > 256 or not all(len(each) in (0, len(self.names)) for each in (self.colors, self.given)):
            raise ValueError("names, colors and values are not as many")
        if not all(0 <= value <= 255 for value in values) or not set(self.void) <= {*range(len(self.names))}:
            raise ValueError("colors and values are 0 to 255, and void is among the names")
        return self


class Question(_Part):
    """Which values of masks are a yes and a no; nothing is known of others."""

    name: str
    yes: list[int]
    no: list[int]

    @model_validator(mode="after")
    def _fit(self) -> Question:
        if not all(0 <= value <= 255 for value in (*self.yes, *self.no)) or {*self.yes} & {*self.no}:
            raise ValueError("values are 0 to 255, and none is a yes and a no")
        return self


class Spacings(_Part):
    """Millimeters from row to row and from column to column: the pairs there are, and which of them each sample has.

    Attributes:
        of: as `pack_numbers` has it; -1 where it is not known.
    """

    pairs: list[tuple[float, float]]
    of: str


class Pack(_Part):
    """pack.json.

    Attributes:
        classes: in their order; empty where nothing is labeled.
        divided_as: the classes in the order in which a pack of one part is divided into train and val.
        parts: by what they are called, in no order.
        numbered: whether labels were numbers, which a list of classes may name, in tars that others made.
        meaning: of scenes.
        shrunk: how images were made smaller; None where files are what they were.
        made_from: fingerprints of the parts that were packed, and what was asked for.
        groups: by part, which samples belong together, as `pack_numbers` has them.
        group_names: by part, what these are called, by their numbers.
        questions: of scenes in which each class is a question of its own.
        spacings: by part, of samples whose files do not say it themselves.
    """

    counterpoise_pack: Literal[1] = 1
    classes: list[str]
    divided_as: list[str]
    parts: dict[str, Part]
    numbered: bool = False
    meaning: Meaning | None = None
    shrunk: dict[str, Any] | None = None
    made_from: dict[str, Any] | None = None
    groups: dict[str, str] | None = None
    group_names: dict[str, list[str]] | None = None
    questions: list[Question] | None = None
    spacings: dict[str, Spacings] | None = None

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(shard.bytes for part in self.parts.values() for shard in part.shards)


def parse(text: bytes, where: str) -> Pack:
    """The pack that a pack.json speaks of. Raises DataError where it is none, or of another version."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}.") from None
    version = values.get("counterpoise_pack") if isinstance(values, dict) else None
    if version != VERSION:
        made = f"of version {version}" if isinstance(version, int) else "no pack of Counterpoise"
        raise DataError(f"{where} is {made}, and this is read: version {VERSION}. Pack the set again.")
    try:
        pack = Pack.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise DataError(f"{where} is damaged: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}.") from None
    wrong_name = next((name for name in _names(pack) if not _is_name(name)), 0)
    if wrong_name != 0 or not pack.parts:
        raise DataError(f"{where} is damaged: {f'{wrong_name!r} is no name of a file' if pack.parts else 'no parts'}.")
    return pack


def _is_name(name: str) -> bool:
    parts = name.split("/")
    return not re.search(r"[\\\0]", name) and all(part not in ("", ".", "..") for part in parts)


def _names(pack: Pack) -> Iterator[str]:
    for part in pack.parts.values():
        yield part.file
        yield from part.index
        yield from (shard.name for shard in part.shards)


def write(pack: Pack, folder: Path) -> None:
    """Write pack.json, whole or not at all."""
    later = ("groups", "group_names", "questions", "spacings")
    left_out = {key for key in later if getattr(pack, key) is None}  # what earlier versions read
    write_text(folder / DESCRIPTION, pack.model_dump_json(indent=1, exclude=left_out) + "\n")


def pack_numbers(numbers: NDArray[np.int64]) -> str:
    """Numbers as text: 32 bits each, deflated, base64."""
    return base64.b64encode(zlib.compress(numbers.astype("<i4").tobytes())).decode()


def unpack_numbers(text: str, count: int) -> NDArray[np.int64]:
    """What `pack_numbers` made of `count` numbers. Raises ValueError for anything else."""
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(base64.b64decode(text, validate=True), 4 * count + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(content) != 4 * count:
        raise ValueError(f"{len(content)} bytes, expected {4 * count}")
    return np.frombuffer(content, "<i4").astype(np.int64)


def index_files(file: str, masked: bool) -> list[str]:
    """The names of a part's index files."""
    tables = ("images", "masks") if masked else ("images",)
    return [f"{file}.labels.npy", *(f"{file}.{table}.{kind}" for table in tables for kind in ("npy", "names"))]


def file_checksum(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def mapped(path: Path, dtype: Any, count: int) -> NDArray[Any]:
    """An array [count] of a .npy file, mapped. Raises DataError where the file holds another one."""
    try:
        if count == 0:
            return np.empty(0, dtype)
        # Copied where it is written to, as torch wants; nothing is written. Plain arrays are asked faster than memmaps.
        found: NDArray[Any] = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"Index file {path} cannot be read: {error}.") from None
    if found.dtype != dtype or found.shape != (count,):
        raise DataError(
            f"Index file {path} does not fit its shards: it has {found.dtype} {list(found.shape)}, expected "
            f"{np.dtype(dtype)} [{count}]."
        )
    return found


class Names:
    """What images or masks were called, by index: read where they lie, when asked.

    Args:
        path: the file of names, each with its size behind a space, and a zero byte.
        ends: uint64 [N], where each ends.
    """

    def __init__(self, path: Path, ends: NDArray[np.uint64]) -> None:
        size = path.stat().st_size
        self._bytes: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, "r")) if size else np.empty(0, np.uint8)
        self._ends, self._path = ends, path
        if size != (int(ends[-1]) if len(ends) else 0):
            raise DataError(f"Index file {path} does not fit its shards: it has {size} bytes.")

    def identity(self, index: int) -> bytes:
        """The path and the size of a file."""
        first = int(self._ends[index - 1]) if index else 0
        return self._bytes[first : int(self._ends[index])].tobytes()[:-1]

    def name(self, index: int) -> bytes:
        """The path of a file."""
        return self.identity(index).rpartition(b" ")[0]

    def pieces(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """`identity` of many, each with a zero byte behind it."""
        for first in range(0, len(indices), 2**16):
            if first % 2**22 == 0:
                let_go(self._bytes)
                let_go(self._ends)
            some = indices[first : first + 2**16]
            ends = self._ends[some].astype(np.int64)
            begins = np.where(some > 0, self._ends[some - 1].astype(np.int64), 0)
            lengths = ends - begins
            if (lengths < 2).any() or (begins < 0).any() or (ends > len(self._bytes)).any():
                raise DataError(f"Index file {self._path} does not fit its shards: names end before they begin.")
            if len(some) == some[-1] - some[0] + 1 and (np.diff(some) == 1).all():
                yield self._bytes[begins[0] : ends[-1]].tobytes()
                continue
            places = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            yield self._bytes[places].tobytes()


def let_go(array: NDArray[Any]) -> None:
    """Have no part of a mapped array in memory until it is needed again."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def stem(name: str, taken: Sequence[str]) -> str:
    """How the names of a part's files begin: its own name where that can be, and never one that is taken."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "part"
    while plain in taken:
        plain += "_"
    return plain
