"""Tars that others made, in the layout of webdataset: an index of them, made at first sight by one pass over each."""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.class_names import is_number, of_label
from counterpoise.data.images import extensions, header_size
from counterpoise.data.packs import format as layout
from counterpoise.data.packs.places import Place, is_pack, read_pack
from counterpoise.data.packs.rows import Rows, merge, read_done, rows_of, texts_of, tidy
from counterpoise.data.packs.tars import Member, members
from counterpoise.data.sources.base import UNLABELED
from counterpoise.data.walking import ordered
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError
from counterpoise.system.documents import parse_json

FIELDS = ("label", "cls", "class", "class_id", "target")
"""Of a KEY.json, where labels usually are."""
MOST_CLASSES = 1_000_000
_ANY_SIZE = Reading(max_megapixels=float("inf"))


@dataclass(frozen=True)
class Layout:
    """Which files of a sample are what.

    Attributes:
        image: ending of the image, such as jpg; None: the only one that is an image.
        mask: first part of the ending of the mask.
        label: field of KEY.json with the label; None: KEY.cls, or the first of `FIELDS`.
    """

    image: str | None = None
    mask: str = "mask"
    label: str | None = None


@dataclass(frozen=True)
class Tar:
    """A tar file: its name below the folder or the address, the part that it is of, size, and when it was changed."""

    name: str
    part: str
    bytes: int
    changed: int


def index(place: Place, tars: Iterable[Tar], folder: Path, of: Layout, where: str) -> layout.Pack:
    """The index of tars in `folder`, as that of a pack; made where it is not there, or the tars have changed.

    What one sitting has looked through, the next need not.

    Raises:
        DataError: a tar is damaged, or holds what is no set of images.
    """
    tars = list(tars)
    seen = {"tars": [[tar.name, tar.part, tar.bytes, tar.changed] for tar in tars], "layout": asdict(of)}
    if is_pack(folder):
        found = read_pack(folder)
        as_now = found.numbered or all(of_label(name, numbered=True) == name for name in found.classes)
        if found.made_from == seen and as_now:
            return found
    done = {tar.name: shard for tar in tars if (shard := _done(folder, tar)) is not None}
    if len(done) < len(tars):
        print(f"{where}: {len(tars) - len(done)} tar files are looked through once, for an index", file=sys.stderr)
    done |= _look_through_all(place, [tar for tar in tars if tar.name not in done], folder, of)
    parts: dict[str, list[layout.Shard]] = {}
    for tar in tars:
        if done[tar.name].samples:
            parts.setdefault(tar.part, []).append(done[tar.name])
    if not parts:
        raise DataError(f"The tars of {where} hold no samples.")
    every = [shard.name for shards in parts.values() for shard in shards]
    masked = {rows_of(folder, name, "masks") is not None for name in every}
    if len(masked) > 1:
        raise DataError(f"Some tars of {where} have masks and others have none; read them as sets of their own.")
    classes, numbered = _classes(folder, every)
    numbers = {name: number for number, name in enumerate(classes)}

    def relabeled(shard: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        if masked == {True}:  # the classes of scenes are in their masks
            return np.zeros_like(labels)
        named = (of_label(text, numbered=True) for text in texts_of(folder, shard))
        own = [UNLABELED if name is None else numbers[name] for name in named]
        return np.array([*own, UNLABELED], dtype=np.int64)[labels]

    pack = layout.Pack(
        classes=classes,
        divided_as=classes,
        numbered=numbered,
        parts={
            name: layout.Part(file=name, shards=shards, index=merge(folder, name, shards, masked == {True}, relabeled))
            for name, shards in parts.items()
        },
        meaning=_UNKNOWN if masked == {True} else None,
        made_from=seen,
    )
    layout.write(pack, folder)
    tidy(folder)
    return pack


_UNKNOWN = layout.Meaning(names=[], colors=[], void=[], ignore=None, given=[], lossy=False, resize=False)
"""What masks mean is said by a list of classes, whenever they are read."""


def _done(folder: Path, tar: Tar) -> layout.Shard | None:
    shard = read_done(folder, tar.name)
    return shard if shard is not None and (shard.bytes, shard.changed) == (tar.bytes, tar.changed) else None


def _look_through_all(place: Place, tars: list[Tar], folder: Path, of: Layout) -> dict[str, layout.Shard]:
    """Each in one pass; some at once where they lie far away. Of several that are wrong the first is named."""
    threads = ThreadPoolExecutor(place.at_once)
    try:
        found = threads.map(lambda tar: _look_through(place, tar, folder, of), tars)
        return {tar.name: shard for tar, shard in zip(tars, found, strict=True)}
    finally:
        threads.shutdown(cancel_futures=True)


def _look_through(place: Place, tar: Tar, folder: Path, of: Layout) -> layout.Shard:
    shard = layout.Shard(name=tar.name, samples=0, bytes=tar.bytes, changed=tar.changed)
    rows, texts, seen = Rows(), dict[str, int](), set[str]()
    where = place.called(shard)
    with io.BufferedReader(_Opened(place, shard), 2**22) as file:
        for key, found in groupby(members(file, where), lambda member: member.key):
            if key in seen:
                raise DataError(f"{where} holds two samples of the key '{key}': files of one sample lie side by side.")
            seen.add(key)
            text = _sample(rows, list(found), where, of)
            rows.add(UNLABELED if text is None else texts.setdefault(text, len(texts)))
    shard = shard.model_copy(update={"samples": rows.count})
    named = np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)
    rows.write(folder, shard, texts=named)
    return shard


def _sample(rows: Rows, files: list[Member], where: str, of: Layout) -> str | None:
    """Note the files of a sample; its label as text."""
    key = files[0].key
    by_ending = {member.ending: member for member in files}
    if len(by_ending) < len(files):
        raise DataError(f"{where} holds two samples of the key '{key}': one of their files is there twice.")
    masks = [member for member in files if member.ending.split(".")[0] == of.mask and _is_image(member)]
    images = [member for member in files if _is_image(member) and member not in masks]
    if of.image is not None:
        images = [member for member in images if of.image in (member.ending, member.ending.split(".")[0])]
    if len(images) != 1 or len(masks) > 1:
        many = masks if len(masks) > 1 else images
        raise DataError(
            f"{where}: sample '{key}' has {len(many) or 'no'} {'masks' if len(masks) > 1 else 'images'} "
            f"({', '.join(sorted(by_ending))}); which ending is the image: --data.options.image, and the first part of "
            "the mask's: --data.options.mask."
        )
    for table, found in (("images", images), ("masks", masks)):
        for member in found:
            content = member.content
            rows.file(
                table, member.name.encode("utf-8", "surrogateescape"), member.offset, len(content),
                zlib.crc32(content), extent_of(content),
            )  # fmt: skip
    if rows.uneven:
        raise DataError(f"{where}: sample '{key}' has {'a' if masks else 'no'} mask, unlike those before it.")
    return _label(by_ending, f"{where}: sample '{key}'", of)


def _is_image(member: Member) -> bool:
    return PurePosixPath(f"x.{member.ending}").suffix in extensions()


def extent_of(content: bytes) -> tuple[int, int]:
    """Height and width of an image; 0 and 0 where its header cannot be read."""
    try:
        return header_size(content, "image", _ANY_SIZE)
    except CorruptImage:  # said where it is read
        return 0, 0


def _label(files: dict[str, Member], sample: str, of: Layout) -> str | None:
    """The label as text; None where there is none."""
    if of.label is None and (member := files.get("cls")) is not None:
        return of_label(member.content[:1000].decode("utf-8", "replace"), numbered=True)
    if (member := files.get("json")) is None:
        return None
    try:
        values = parse_json(member.content)
    except ValueError as error:
        raise DataError(f"{sample}: its .json is damaged: {error}.") from None
    names = FIELDS if of.label is None else (of.label,)
    value = next((values[name] for name in names if name in values), None) if isinstance(values, dict) else None
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return of_label(value, numbered=True)
    several = " Several labels a picture are read from a table: docs/multilabel.md." if isinstance(value, list) else ""
    raise DataError(f"{sample}: its label is {value!r:.200}, expected a number or a name.{several}")


def _classes(folder: Path, shards: Iterable[str]) -> tuple[list[str], bool]:
    """All labels of the tars in order, and whether they are numbers, of which none is left out."""
    # Earlier versions have kept texts of a .json as they were.
    texts = {text for shard in shards for text in texts_of(folder, shard)}
    names = {name for text in texts if (name := of_label(text, numbered=True)) is not None}
    if names and all(is_number(name) and int(name) >= 0 for name in names):
        most = max(map(int, names))
        if most >= MOST_CLASSES:
            raise DataError(f"Labels go up to {most:,}, and there may be {MOST_CLASSES:,} classes: are they labels?")
        return [str(number) for number in range(most + 1)], True
    return ordered(names), False


class _Opened(io.RawIOBase):
    """A shard as a file that is read from its beginning to its end."""

    def __init__(self, place: Place, shard: layout.Shard) -> None:
        self._place, self._shard, self._at = place, shard, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._shard.bytes}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._shard.bytes - self._at)
        content = self._place.read(self._shard, self._at, length) if length > 0 else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
