"""Whether a pack is what it was when it was written: every byte of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from counterpoise.data.packs.format import Pack, Part, Shard, file_checksum
from counterpoise.data.packs.places import Folder, Place, is_pack, read_pack
from counterpoise.data.packs.reading import Table
from counterpoise.data.packs.remote import Address
from counterpoise.errors import DataError, Unreachable
from counterpoise.system.addresses import Files, address_of

_NAMED = 8
_TIMEOUT = 60.0
_LIMIT = 10**9


def verify(what: Path) -> dict[str, Any]:
    """Compare every byte of a pack with its checksums, also of one at an address.

    Returns:
        What the pack holds.

    Raises:
        DataError: it is no finished pack, or something in it has changed; names each shard and each image.
    """
    address = address_of(what)
    place: Place
    if address is not None:
        found = Address.of(Files(address, _TIMEOUT), None, _LIMIT)
        if found is None:
            raise DataError(f"{address} holds no finished pack: there is no pack.json.")
        place, pack = found, found.pack
    elif is_pack(what):
        place, pack = Folder(what), read_pack(what)
    else:
        raise DataError(f"{what} holds no finished pack: there is no pack.json.")
    where = address or str(what)
    damages = list(_damages(place, pack))
    if damages:
        more = f"\n  - and {len(damages) - _NAMED} more" if len(damages) > _NAMED else ""
        raise DataError(
            f"Pack {where} is damaged:{''.join(f'{chr(10)}  - {one}' for one in damages[:_NAMED])}{more}\n"
            "Copy these files again, or pack the set again."
        )
    shards = sum(len(part.shards) for part in pack.parts.values())
    images = {f"images of {name}": part.samples for name, part in pack.parts.items()}
    return {"pack": where, **images, "classes": len(pack.classes), "shards": shards, "bytes": pack.bytes}


def _damages(place: Place, pack: Pack) -> Iterator[str]:
    for part in pack.parts.values():
        whole = True
        for name, expected in part.index.items():
            try:
                path = place.index(name)
                if path.stat().st_size != expected.bytes or file_checksum(path) != expected.checksum:
                    whole = False
                    yield f"index/{name}: its bytes have changed"
            except Unreachable:
                raise
            except DataError as error:
                whole = False
                yield str(error)
        for number, shard in enumerate(part.shards):
            yield from _of_shard(place, pack, part, number, shard, whole)


def _of_shard(place: Place, pack: Pack, part: Part, number: int, shard: Shard, whole: bool) -> Iterator[str]:
    """What is wrong with a shard; whole: whether its index is as it was."""
    size, checksum = 0, 0
    try:
        for block in place.whole(shard):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    except Unreachable:  # nothing is known of any shard
        raise
    except DataError as error:
        yield str(error)
        return
    if size != shard.bytes:
        what = "was cut short" if size < shard.bytes else "is another file"
        yield f"{shard.name} {what}: {size:,} bytes, expected {shard.bytes:,}"
    elif shard.checksum is not None and checksum != shard.checksum:
        found = _changed(place, pack, part, number, shard) if whole else []
        files = f" in {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}" if found else ""
        yield f"{shard.name}: its bytes have changed{files}"


def _changed(place: Place, pack: Pack, part: Part, number: int, shard: Shard) -> list[str]:
    """The images and masks of a shard that are not what they were."""
    found = []
    last = part.ends[number]
    for kind in ("images", "masks") if pack.meaning is not None else ("images",):
        table = Table(place, part, kind)
        for index in range(last - shard.samples, last):
            record = table.records[index]
            content = _there(place, shard, int(record["offset"]), int(record["length"]))
            if np.uint32(zlib.crc32(content)) != record["checksum"]:
                found.append(table.names.name(index).decode("utf-8", "replace"))
    return found


def _there(place: Place, shard: Shard, offset: int, length: int) -> bytes:
    """Bytes as they lie there now, and not in the cache."""
    if isinstance(place, Address):
        return place.files.read(shard.name, offset, offset + length)
    return place.read(shard, offset, length)
