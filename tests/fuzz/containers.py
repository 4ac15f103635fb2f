"""Changed files that hold others: safetensors, zip files, tars and pickles. Names, sizes, offsets, links, payloads."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from mutators import NUMBERS, OUTSIDE, TEXTS, of_bytes, of_json, of_tree

NAMES = (
    OUTSIDE,
    "/tmp/outside.txt",
    "../" * 9 + "etc/passwd",
    "",
    ".",
    "..",
    "a" * 300,
    "a\\..\\b",
    "C:/x",
    "\u202e",
    "a\nb",
    "data.pkl",
    "version",
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X", "", "f32")


def of_safetensors(content: bytes, random: Random) -> bytes:
    """A safetensors file: offsets that overlap or lie outside, other kinds and shapes, headers of any length."""
    if random.random() < 0.2 or len(content) < 10:
        return of_bytes(content, random)
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    told = header[random.choice(names)]
    match random.randrange(9):
        case 0:
            told["data_offsets"] = random.choice(
                ([0, 0], [-4, 0], [0, 2**63], [8, 4], [0], [], [0, len(body)], [1, 5], ["0", "4"], None)
            )
        case 1:
            told["dtype"] = random.choice((*DTYPES, None, 1))
        case 2:
            shape = told["shape"]
            told["shape"] = random.choice(
                (
                    shape[::-1],
                    [*shape, 1],
                    [2**32, 2**32],
                    [2**63],
                    [-1],
                    [0],
                    [0, 2**62],
                    [1.5],
                    None,
                    [[1]],
                    [2**64 + 1],
                    shape * 30,
                )
            )
        case 3:
            header[random.choice(names)] = header[random.choice(names)]
        case 4:
            header[random.choice(TEXTS)] = header.pop(random.choice(names))
        case 5:
            held = header.setdefault("__metadata__", {})
            held[random.choice([*held, "format", "x"])] = random.choice((*TEXTS, None, 1, {}, []))
        case 6:
            header = of_tree(header, random)
        case 7:
            text = of_json(content[8 : 8 + size].strip(), random)
            return struct.pack("<Q", len(text)) + text + body
        case _:
            size = random.choice((0, 1, size - 1, size + 1, len(content), 100_000_001, 2**40, 2**63, 2**64 - 1))
            return struct.pack("<Q", size) + content[8:]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + random.choice((body, body, body[:-1], body + b"\0", b""))


def metadata_of(key: str, change: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """A change of one text among the metadata of a safetensors file, which may be a document of its own."""

    def changed(content: bytes, random: Random) -> bytes:
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        header["__metadata__"][key] = change(header["__metadata__"][key].encode(), random).decode("utf-8", "replace")
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    return changed


class _Call:
    """What a pickle calls when somebody reads it without care."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def payload(random: Random) -> bytes:
    """A pickle that calls something, or makes something without end."""
    import os

    return random.choice(
        (
            pickle.dumps(_Call(os.system, "touch canary"), protocol=random.choice((0, 2, 4))),
            pickle.dumps(_Call(eval, "open('canary', 'w')")),
            pickle.dumps(_Call(exec, "import canary")),
            pickle.dumps(_Call(open, OUTSIDE)),
            pickle.dumps(_Call(bytearray, 2**36)),
            b"ccanary\nmake\n.",
            b"c__main__\nx\n.",
            b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".",
            b"\x80\x02" + b"(" * 20000 + b".",
            b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
            b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"abc.",
            b"\x80\x02K\x00r" + struct.pack("<I", 2**31) + b".",  # an entry of the memo that a list must reach
            b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
            pickle.dumps({"state_dict": None}),
            pickle.dumps([1, 2]),
        )
    )


def of_pickle(content: bytes, random: Random) -> bytes:
    """Another pickle, or the bytes of this one."""
    return payload(random) if random.random() < 0.15 else of_bytes(content, random)


def of_zip(inner: dict[str, Callable[[bytes, Random], bytes]]) -> Callable[[bytes, Random], bytes]:
    """A zip file: its members by the end of their names as `inner` says, their names, sizes and number."""

    def changed(content: bytes, random: Random) -> bytes:
        if random.random() < 0.3:
            return of_bytes(content, random)
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = [(entry.filename, file.read(entry)) for entry in file.infolist()]
        kind, at = zipfile.ZIP_STORED, random.randrange(len(members))
        name, held = members[at]
        match random.randrange(8):
            case 0:
                members[at] = random.choice(NAMES), held
            case 1:
                del members[at]
            case 2:
                members.append((name, random.choice(members)[1]))
            case 3:
                members[at] = name, bytes(10**7)  # a bomb, in small
                kind = zipfile.ZIP_DEFLATED
            case _:
                change = next((change for ending, change in inner.items() if name.endswith(ending)), of_bytes)
                members[at] = name, change(held, random)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as file:
            for name, held in members:
                file.writestr(zipfile.ZipInfo(name or " "), held, kind)
        return out.getvalue()

    return changed


def of_tar(inner: Callable[[str], Callable[[bytes, Random], bytes]]) -> Callable[[bytes, Random], bytes]:
    """A tar: names that lead out of it, links, devices, sizes that are not there, headers of other programs."""

    def changed(content: bytes, random: Random) -> bytes:
        if random.random() < 0.3:
            return of_bytes(content, random)
        with tarfile.open(fileobj=io.BytesIO(content)) as file:
            members = [(entry, file.extractfile(entry).read()) for entry in file.getmembers() if entry.isfile()]  # type: ignore[union-attr]
        info, held = random.choice(members)
        at = members.index((info, held))
        form = random.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        match random.randrange(9):
            case 0:
                info.name = random.choice(NAMES) or "x"
            case 1:
                info.type, info.linkname = random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), random.choice(NAMES)
                info.size, held = 0, b""
            case 2:
                info.type = random.choice(
                    (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z", tarfile.CONTTYPE)
                )
            case 3:
                members.append((info, held))
            case 4:
                del members[at]
                at = None
            case 5:
                random.shuffle(members)
                at = None
            case 6:
                form = tarfile.PAX_FORMAT
                info.pax_headers = {
                    random.choice(
                        ("size", "path", "linkpath", "GNU.sparse.map", "GNU.sparse.size", "hdrcharset", "mtime")
                    ): str(random.choice((*NUMBERS, *TEXTS))).replace("\ud800", "")
                }
            case _:
                held = inner(info.name)(held, random)
                info.size = len(held)
        if at is not None:
            members[at] = info, held
        out = io.BytesIO()
        try:
            with tarfile.open(fileobj=out, mode="w", format=form) as file:
                for entry, part in members:
                    file.addfile(
                        entry, io.BytesIO(part.ljust(entry.size, b"\0")[: entry.size] if entry.size < 10**6 else part)
                    )
        except (ValueError, UnicodeError, OSError):  # what cannot be written in this form
            return of_bytes(content, random)
        found = bytearray(out.getvalue())
        if random.random() < 0.15 and len(found) > 512:  # a size that is not there, with a checksum that is right
            start = 0
            found[start + 124 : start + 136] = random.choice(
                (b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"00000000000\0")
            )
            found[start + 148 : start + 156] = b" " * 8
            found[start + 148 : start + 156] = b"%06o\0 " % sum(found[start : start + 512])
        return bytes(found)

    return changed


def loaded(content: bytes) -> dict[str, Any]:
    """The tensors of a safetensors file."""
    from safetensors.torch import load

    return load(content)
