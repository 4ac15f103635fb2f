"""Tar files member by member: written with nothing in them but what was put there, and looked through by headers."""

from __future__ import annotations

import tarfile
import zlib
from typing import BinaryIO

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
