"""Tar shards: packs as `counterpoise pack` writes them, and tars in the layout of webdataset that others made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from counterpoise import config
from counterpoise.data.packs import finding, foreign, labels
from counterpoise.data.packs.cache import Cache
from counterpoise.data.packs.format import INDEX, PLAN, Pack
from counterpoise.data.packs.places import Folder, Place, is_pack, read_pack
from counterpoise.data.packs.reading import PackSet, opened
from counterpoise.data.packs.remote import Address, Ranges
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.given import file_of
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, find
from counterpoise.data.walking import image_files, subfolders
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.addresses import TIMEOUT, Files, address_of
from counterpoise.system.files import expanded, held, is_folder

Prepare = Callable[[PackSet], None]
_LIMIT = 50 * 10**9


def _recognizes(path: Path) -> bool:
    """A folder of class folders may hold a tar, too."""
    if is_pack(path):
        return True
    return bool(finding.tars_below(path)) and not any(image_files(path / name) for name in subfolders(path))


@register(
    "shards",
    summary="a pack, written by `counterpoise pack`, or tars as webdataset reads them: a folder, or an address that "
    "fsspec knows (extra: remote)",
    recognizes=_recognizes,
    addresses=True,
)
def load(
    data: config.Data,
    *,
    train_split: str | None = None,
    val_split: str | None = None,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    timeout: float = TIMEOUT,
    train: str | None = None,
    val: str | None = None,
    image: str | None = None,
    label: str | None = None,
    mask: str = "mask",
    classes: Path | None = None,
    ignore: int | None = None,
    labeled: bool = True,
) -> Splits:
    """The parts of a pack as those of the folder that was packed; one part is divided by `data.val_fraction`.

    All but the first five options are for tars that others made.

    Args:
        train_split, val_split: names of the parts to train and to evaluate on.
        cache: folder for what was fetched from an address, and for the index of others' tars; default:
            counterpoise/packs in the user's cache, and beside the tars.
        cache_gb: how large that may become.
        timeout: seconds that a request may take before it is asked again.
        train, val: which tars are of these parts: names, with *, {0000..0146} and {a,b}; default: by a word in their
            paths, such as train.
        image, mask: ending of the image of a sample, and first part of the ending of its mask.
        label: field of KEY.json that holds the label; default: KEY.cls, or a field label, cls, class, class_id, target.
        classes: file with a name a line, in the order of their numbers; of scenes, as for masks_folder.
        ignore: as for masks_folder.
        labeled: false leaves labels alone, for distill.
    """
    assert data.path is not None  # the registry has seen to it
    finding.require_positive(cache_gb=cache_gb, timeout=timeout)
    address, root = address_of(data.path), cache and expanded(cache)
    files = None if address is None else Files(address, timeout)
    of, limit = foreign.Layout(image, mask, label), int(cache_gb * 1e9)
    where = str(expanded(data.path)) if address is None else address
    place, pack = _pack(Path(where), files, root, limit) if train is None and val is None else (None, None)
    ours = {"train": train, "val": val, "image": image, "label": label, "classes": classes, "ignore": ignore}
    if place is not None and pack is not None:
        strange = [name for name, value in ours.items() if value is not None]
        if strange:
            raise ConfigError(f"data.options.{strange[0]} is for tars that others made, and {where} is a pack.")
        return _splits(data, place, pack, where, train_split, val_split, lambda images: None)
    place, pack = _tars(where, files, root, limit, of, train, val)
    if classes is not None and address is None:
        classes = file_of(classes, Path(where) if is_folder(Path(where)) else Path(where).parent, "classes")
    if pack.meaning is not None:
        pack = labels.with_meaning(pack, classes, ignore, where)
    names = labels.read_classes(classes) if classes is not None and pack.meaning is None and labeled else None

    def prepare(images: PackSet) -> None:
        if not labeled and not images.masked:
            labels.without_labels(images)
            return
        labels.require_labels(images)
        if names is not None and classes is not None:
            labels.name_classes(images, names, classes)

    return _splits(data, place, pack, where, train_split, val_split, prepare)


def all_images(path: Path) -> list[ImageSet] | None:
    """The pictures of all parts of a pack or of tars, without labels or masks; None where a folder holds neither."""
    address = address_of(path)
    if address is None and not _recognizes(path):
        return None
    where = address or str(path)
    files = None if address is None else Files(address, 60.0)
    place, pack = _pack(path, files, None, _LIMIT)
    if place is None or pack is None:
        place, pack = _tars(where, files, None, _LIMIT, foreign.Layout(), None, None)
    found: list[ImageSet] = [PackSet(place, pack, name, f"{name} of {where}") for name in sorted(pack.parts)]
    if pack.meaning is not None:
        found[0].notes.append(f"data.unlabeled: the masks in {where} are left alone")
    return found


def _pack(root: Path, files: Files | None, cache: Path | None, limit: int) -> tuple[Place | None, Pack | None]:
    """The pack that is there, if one is."""
    if files is not None:
        there = Address.of(files, cache, limit)
        return (None, None) if there is None else (there, there.pack)
    if is_pack(root):
        return Folder(root), read_pack(root)
    if (root / PLAN).is_file():
        raise DataError(f"{root} holds no finished pack: run `counterpoise pack` with --out {root} to its end.")
    return None, None


def _tars(
    where: str,
    files: Files | None,
    cache: Path | None,
    limit: int,
    of: foreign.Layout,
    train: str | None,
    val: str | None,
) -> tuple[Place, Pack]:
    """Others' tars, and their index, which is made where there is none."""
    place: Place
    if files is not None:
        tars = finding.of_address(files, train, val)
        folder = finding.cached_index(where, cache, of, tars, state=True)
        place = Ranges(files, Cache(folder.parent, folder.name, limit), folder / INDEX)
    else:
        tars = finding.of_folder(Path(where), train, val)
        beside = finding.index_beside(Path(where), of, tars) if cache is None else None
        folder = beside or finding.cached_index(where, cache, of, tars)
        place = Folder(Path(where), folder / INDEX)
    with held(folder / ".lock", raises=DataError):
        return place, foreign.index(place, tars, folder, of, where)


def _splits(
    data: config.Data,
    place: Place,
    pack: Pack,
    where: str,
    train_split: str | None,
    val_split: str | None,
    prepare: Prepare,
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
        images = opened(place, pack, name, f"{name} of {where}")
        prepare(images)
        return images

    if halves.val is None:
        whole = part(halves.train)
        # As the folder was divided: the draw depends on the order of the classes.
        order = pack.divided_as if sorted(pack.divided_as) == sorted(whole.classes) else whole.classes
        divided = split_by_fraction(whole.in_order(order), data.val_fraction, data.split_seed)
        splits = Splits(*(half.in_order(whole.classes) for half in divided))
    else:
        splits = Splits(part(halves.train), part(halves.val))
        splits.val.origin += f" ({halves.why})" if halves.why else ""
    name_parts(splits, halves)
    if halves.unused:
        splits.train.notes.append(f"not used: {', '.join(halves.unused)} of {where}")
    return splits
