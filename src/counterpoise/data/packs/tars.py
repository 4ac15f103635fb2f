"""Tar files member by member: written with nothing in them but what was put there, and looked through by headers."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, NamedTuple, cast

from counterpoise.bands import Whole
from counterpoise.data.packs.format import MOST
from counterpoise.data.walking import is_leftover
from counterpoise.errors import DataError, damage

TAR_BLOCK = 512
_END = bytes(2 * TAR_BLOCK)


class TarWriter:
    """Writes a tar file in one pass: equal members make equal bytes, whoever writes them and when.

    Attributes:
        size: bytes written.
        checksum: CRC-32 of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.checksum = 0

    def add(self, name: str, content: bytes) -> int:
        """Write a member; where its bytes begin."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(content)
        self._write(bytes(-len(content) % TAR_BLOCK))
        return offset

    def close(self) -> None:
        """Write the end of the tar."""
        self._write(_END)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self.size += len(content)
        self.checksum = zlib.crc32(content, self.checksum)


def member_size(length: int) -> int:
    """Bytes that a file takes in a tar."""
    return TAR_BLOCK + length + -length % TAR_BLOCK


class Member(NamedTuple):
    """A file in a tar. key, ending: its name up to the first dot of its last part, and behind that."""

    name: str
    key: str
    ending: str
    offset: int
    content: bytes


def members(file: IO[bytes], where: str) -> Iterator[Member]:
    """The files of a tar in their order, in one pass. Folders and links are left out.

    Raises:
        DataError: it is no plain tar, was cut short, or holds a file of more than `MOST` bytes.
    """
    try:
        whole = cast(IO[bytes], Whole(file))  # a header says how long it is
        with tarfile.open(fileobj=whole, mode="r:", errorlevel=1) as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # else all of them would be kept
                name = info.name.removeprefix("./")
                folder, slash, last = name.rpartition("/")
                if not info.isreg() or is_leftover(last):
                    continue
                if info.size > MOST or info.issparse():
                    raise DataError(f"{where}: {name} is {'sparse' if info.issparse() else 'too large'} for an image.")
                inside = tar.extractfile(info)
                content = b"" if inside is None else inside.read()
                if len(content) != info.size:
                    raise DataError(f"{where} was cut short within {name}.")
                stem, _, ending = last.partition(".")
                yield Member(name, folder + slash + stem, ending.lower(), info.offset_data, content)
            end = tar.offset
        file.seek(end)
        if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):
            raise DataError(f"{where} was cut short: it has no end.")
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        raise DataError(f"{where} is no plain tar, or is damaged: {damage(error)}.") from None
