"""Packs: tar shards with an index beside them, as `counterpoise pack` writes them."""

from __future__ import annotations

from pathlib import Path

from counterpoise import config
from counterpoise.data.packs.format import Pack
from counterpoise.data.packs.places import Folder, Place, is_pack, read_pack
from counterpoise.data.packs.reading import opened
from counterpoise.data.packs.remote import Address
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.division import split_by_fraction
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, find
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.addresses import address_of
from counterpoise.system.files import expanded


@register(
    "shards",
    summary="a pack, written by `counterpoise pack`: a folder, or an address that fsspec knows (extra: remote)",
    recognizes=is_pack,
    addresses=True,
)
def load(
    data: config.Data,
    *,
    train_split: str | None = None,
    val_split: str | None = None,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    timeout: float = 60.0,
) -> Splits:
    """The parts of a pack as those of the folder that was packed; one part is divided by `data.val_fraction`.

    Args:
        train_split, val_split: names of the parts to train and to evaluate on.
        cache: of a pack at an address, folder for what was fetched; default: counterpoise/packs in the user's cache.
        cache_gb: how large that may become.
        timeout: seconds that a request may take before it is asked again.
    """
    assert data.path is not None  # the registry has seen to it
    for name, value in (("cache_gb", cache_gb), ("timeout", timeout)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"data.options.{name} must be more than 0, got {value:g}.")
    address = address_of(data.path)
    if address is not None:
        there = Address(address, cache and expanded(cache), int(cache_gb * 1e9), timeout)
        return _splits(data, there, there.pack, address, train_split, val_split)
    root = expanded(data.path)
    if not is_pack(root):
        raise DataError(f"{root} holds no finished pack: run `counterpoise pack` with --out {root} to its end.")
    return _splits(data, Folder(root), read_pack(root), str(root), train_split, val_split)


def _splits(
    data: config.Data, place: Place, pack: Pack, where: str, train_split: str | None, val_split: str | None
) -> Splits:
    halves = find(pack.parts, where, train_split, val_split)
    if halves is None and len(pack.parts) == 1 and val_split is None:
        halves = Halves(next(iter(pack.parts)), None, "", ())
    if halves is None:
        raise DataError(
            f"{where} has no part 'train', only {', '.join(sorted(pack.parts))}: name one, "
            "--data.options.train_split NAME."
        )

    def part(name: str) -> ImageSet:
        return opened(place, pack, name, f"{name} of {where}")

    if halves.val is None:
        whole = part(halves.train)
        # As the folder was divided: the draw depends on the order of the classes.
        divided = split_by_fraction(whole.in_order(pack.divided_as), data.val_fraction, data.split_seed)
        splits = Splits(*(half.in_order(pack.classes) for half in divided))
    else:
        splits = Splits(part(halves.train), part(halves.val))
        splits.val.origin += f" ({halves.why})" if halves.why else ""
    if halves.unused:
        splits.train.notes.append(f"not used: {', '.join(halves.unused)} of {where}")
    return splits
