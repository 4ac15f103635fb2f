"""Whether a pack is what it was when it was written: every byte of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from counterpoise.data.packs.format import BLOCK, INDEX, Pack, Part, Shard, file_checksum
from counterpoise.data.packs.places import Folder, is_pack, read_pack
from counterpoise.data.packs.reading import Table
from counterpoise.errors import DataError
from counterpoise.system.files import named

_NAMED = 8


def verify(folder: Path) -> dict[str, Any]:
    """Compare every byte of a pack with its checksums.

    Returns:
        What the pack holds.

    Raises:
        DataError: it is no finished pack, or something in it has changed; names each shard and each image.
    """
    if not is_pack(folder):
        raise DataError(f"{folder} holds no finished pack: there is no pack.json.")
    pack = read_pack(folder)
    damages = list(_damages(folder, pack))
    if damages:
        more = f"\n  - and {len(damages) - _NAMED} more" if len(damages) > _NAMED else ""
        raise DataError(
            f"Pack {folder} is damaged:{''.join(f'{chr(10)}  - {one}' for one in damages[:_NAMED])}{more}\n"
            "Copy these files again, or pack the set again."
        )
    shards = sum(len(part.shards) for part in pack.parts.values())
    images = {f"images of {name}": part.samples for name, part in pack.parts.items()}
    return {"pack": str(folder), **images, "classes": len(pack.classes), "shards": shards, "bytes": pack.bytes}


def _damages(folder: Path, pack: Pack) -> Iterator[str]:
    place = Folder(folder)
    for part in pack.parts.values():
        whole = True
        for name, expected in part.index.items():
            try:
                path = named(folder / INDEX, name)
                if path.stat().st_size != expected.bytes or file_checksum(path) != expected.checksum:
                    whole = False
                    yield f"index/{name}: its bytes have changed"
            except OSError:
                whole = False
                yield f"index/{name} cannot be read"
        for number, shard in enumerate(part.shards):
            yield from _of_shard(place, pack, part, number, shard, whole)


def _of_shard(place: Folder, pack: Pack, part: Part, number: int, shard: Shard, whole: bool) -> Iterator[str]:
    """What is wrong with a shard; whole: whether its index is as it was."""
    try:
        size, checksum = 0, 0
        with named(place.folder, shard.name).open("rb") as file:
            while block := file.read(BLOCK):
                size, checksum = size + len(block), zlib.crc32(block, checksum)
    except OSError as error:
        yield f"{shard.name} cannot be read: {error.strerror or error}"
        return
    if size != shard.bytes:
        what = "was cut short" if size < shard.bytes else "is another file"
        yield f"{shard.name} {what}: {size:,} bytes, expected {shard.bytes:,}"
    elif shard.checksum is not None and checksum != shard.checksum:
        found = _changed(place, pack, part, number, shard) if whole else []
        files = f" in {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}" if found else ""
        yield f"{shard.name}: its bytes have changed{files}"


def _changed(place: Folder, pack: Pack, part: Part, number: int, shard: Shard) -> list[str]:
    """The images and masks of a shard that are not what they were."""
    found = []
    last = part.ends[number]
    for kind in ("images", "masks") if pack.meaning is not None else ("images",):
        table = Table(place, part, kind)
        for index in range(last - shard.samples, last):
            record = table.records[index]
            content = place.read(shard, int(record["offset"]), int(record["length"]))
            if np.uint32(zlib.crc32(content)) != record["checksum"]:
                found.append(table.names.name(index).decode("utf-8", "replace"))
    return found
