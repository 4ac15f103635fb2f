"""Headers of JPEGs that say nothing but what their pixels need: most photos of data sets, and all that a pack makes."""

from __future__ import annotations

_SCAN, _QUANTIZATION = 0xDA, 0xDB
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all by Huffman
_PASSED_OVER = (0xC4, 0xDD, 0xFE)  # codes and restarts, which the decoder reads for itself; comments
_IGNORED = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0"}  # metadata that change nothing, by how they begin


def plain_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG of gray or three colors in 8 bits, with no metadata that could matter.

    None for any other: its header is then Pillow's to read, so that what is upright, and what is no plain JPEG, is
    decided in one place wherever there is anything to decide.
    """
    try:
        return _size(content)
    except IndexError:  # it ends before its pixels begin
        return None


def _size(content: bytes) -> tuple[int, int] | None:
    size = None
    place = 2
    while content[place] == 0xFF:
        marker, length = content[place + 1], _word(content, place + 2)
        if marker in _FRAMES and size is None:
            if content[place + 4] != 8 or content[place + 9] not in (1, 3) or length != 8 + 3 * content[place + 9]:
                return None
            size = _word(content, place + 5), _word(content, place + 7)
        elif marker == _SCAN:
            return size if size is not None and min(size) > 0 and place + 2 + length <= len(content) else None
        elif marker == _QUANTIZATION:
            if length % 65 != 2 or any(content[table] > 15 for table in range(place + 4, place + 2 + length, 65)):
                return None
        elif marker in _IGNORED:
            if length < 16 or not content.startswith(_IGNORED[marker], place + 4):
                return None
        elif marker not in _PASSED_OVER or length < 2:
            return None
        place += 2 + length
    return None


def _word(content: bytes, place: int) -> int:
    return content[place] << 8 | content[place + 1]
