"""A set written into a pack, shard by shard, each whole or not at all, so that it goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from counterpoise import config
from counterpoise.data import random, sources
from counterpoise.data.images import pixels_of
from counterpoise.data.packs import format as layout
from counterpoise.data.packs import further
from counterpoise.data.packs.places import Folder, is_pack, read_pack
from counterpoise.data.packs.reading import PackSet, Table, opened
from counterpoise.data.packs.rows import Rows, merge, read_done, rows_of, tidy
from counterpoise.data.packs.samples import Preparing, Sample, Shrinking, meaning_of
from counterpoise.data.packs.tars import TarWriter
from counterpoise.data.sources.base import ImageSet, Subset
from counterpoise.data.sources.mask_folders import QuestionFiles
from counterpoise.data.sources.outlines import DrawnScenes
from counterpoise.data.split_names import is_split_name
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError, RunError
from counterpoise.system.addresses import address_of
from counterpoise.system.documents import read_json
from counterpoise.system.files import expanded, held, make_folder, reason, replacing, write_text

SHARD_BYTES = 2**28
COMPARED, COMPARED_BYTES = 32, 2**24
"""Samples of a shard that is there which are compared with the set, and about how many bytes of it at most."""
ROUNDED = 4.0
"""How far pixels may lie apart on average that we write as JPEGs: another version of a library writes other bytes."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
LOCK = ".lock"


def make(
    data: config.Data,
    out: Path,
    *,
    shrinking: Shrinking | None = None,
    shards: int | str | None = None,
    shuffled: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the set that a data section speaks of into a pack, or go on with it.

    Args:
        shrinking: how images are made smaller; None: files are copied as they are.
        shards: how many the training part is divided into, or how many bytes a shard has, such as 256MB.
        shuffled: whether images are written in random order, which is then that of the set.
        tell: is told how many images of how many are packed.

    Returns:
        What was packed: pack, images by part, classes, shards, bytes, and how many shards were there already.

    Raises:
        DataError: the set cannot be packed, or a pack of something else is there.
        ConfigError: `shards` is neither a number nor a size, or `data` speaks of two sets.
        RunError: the disk is full, or the like.
    """
    if data.unlabeled is not None:
        raise ConfigError("data.unlabeled is another set: pack each on its own.")
    out = expanded(out)
    for given in (data.path, data.unlabeled):
        if given is not None and address_of(given) is None and out.resolve().is_relative_to(expanded(given).resolve()):
            raise ConfigError(f"--out {out} lies in {given}, which would then hold its own pack. Give another --out.")
    if shrinking is not None and data.intensity is not None:
        raise ConfigError(
            "shorter makes JPEGs of 8 bits, and data.intensity is of the values in files: leave out shorter, and files "
            "are kept as they are."
        )
    if shrinking is not None and data.channels != 3:
        raise ConfigError(
            f"shorter makes JPEGs, of three channels, and data.channels is {data.channels}: leave it out, and files "
            "are kept as they are."
        )
    parts, divided_as = _parts(data)
    if next(iter(parts.values())).multilabel:
        raise ConfigError(
            "A pack keeps one class an image, and these have several labels: read them from where they are."
        )
    meaning = meaning_of(next(iter(parts.values())), shrinking is not None)
    if shuffled:
        parts = {name: part.subset(random.permutation(0, 0, len(part))) for name, part in parts.items()}
    samples, size = _bounds(shards, len(next(iter(parts.values()))))
    plan = {
        "images": {name: part.fingerprint() for name, part in parts.items()},
        "shards": samples or size,
        "shuffled": shuffled,
        "shrunk": shrinking and shrinking.values(next(iter(parts.values())).reading),
    }
    if (groups := further.groups_of(parts)) is not None:
        plan["groups"] = {name: hashlib.sha256(packed.encode()).hexdigest() for name, packed in groups.items()}
    try:
        make_folder(out)
        with held(out / LOCK, 0, busy=f"{out} is being packed by another process.", raises=DataError):
            packing = _Packing(out, parts, plan, samples, size, shrinking, data.on_corrupt == "skip", tell)
            return packing.facts(packing.pack(divided_as, meaning))
    except OSError as error:
        raise RunError(f"Pack {out} could not be written: {reason(error)}. The same command goes on.") from error


class _Packing:
    """One set on its way into a folder."""

    def __init__(
        self,
        out: Path,
        parts: Mapping[str, ImageSet],
        plan: dict[str, Any],
        samples: int | None,
        size: int,
        shrinking: Shrinking | None,
        skip: bool,
        tell: Callable[[int, int], None],
    ) -> None:
        self.out, self.parts, self.plan = out, parts, plan
        self.samples, self.size, self.shrinking, self.skip, self.tell = samples, size, shrinking, skip, tell
        self.total, self.done, self.kept = sum(map(len, parts.values())), 0, 0

    def pack(self, divided_as: tuple[str, ...], meaning: layout.Meaning | None) -> layout.Pack:
        """The finished pack; shards that are there are kept."""
        if is_pack(self.out):
            found = read_pack(self.out)
            self._require(found.made_from, "holds another pack")
            for name, images in self.parts.items():
                self._look_through(found.parts[name], images, found.meaning is not None)
            self._tidy()
            self.kept = sum(len(part.shards) for part in found.parts.values())
            return found
        self._begin()
        train = next(iter(self.parts.values()))
        parts: dict[str, layout.Part] = {}
        for name, images in self.parts.items():
            file = layout.stem(name, [part.file for part in parts.values()])
            shards = self._shards(images, file)
            parts[name] = layout.Part(file=file, shards=shards, index=merge(self.out, file, shards, images.masked))
        pack = layout.Pack(
            classes=list(train.classes),
            divided_as=list(divided_as),
            parts=parts,
            meaning=meaning,
            shrunk=self.plan["shrunk"],
            made_from=self.plan,
            groups=further.groups_of(self.parts),
            group_names=further.group_names_of(self.parts),
            questions=further.questions_of(train),
            spacings=further.spacings_of(self.parts),
        )
        self._compare(pack)
        layout.write(pack, self.out)
        self._tidy()
        return pack

    def facts(self, pack: layout.Pack) -> dict[str, Any]:
        """What is there, as values."""
        shards = sum(len(part.shards) for part in pack.parts.values())
        facts: dict[str, Any] = {"pack": str(self.out), "images": self.total}
        facts |= {f"images of {name}": part.samples for name, part in pack.parts.items()}
        return facts | {
            "classes": len(pack.classes), "shards": shards, "shards that were there": self.kept, "bytes": pack.bytes
        }  # fmt: skip

    def _begin(self) -> None:
        """Write down what is packed, or see that it is what was begun."""
        path = self.out / layout.PLAN
        if path.exists():
            try:
                begun = read_json(path)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read: {error}. Give another --out, or remove {self.out}.") from None
            self._require(begun, "holds the beginning of another pack")
            return
        strangers = sorted(
            entry.name for entry in self.out.iterdir() if entry.name != LOCK and ".partial" not in entry.name
        )
        if strangers:
            raise DataError(f"{self.out} is no empty folder: it holds {strangers[0]}. Give another --out.")
        write_text(path, json.dumps(self.plan, indent=1) + "\n")

    def _require(self, there: Any, what: str) -> None:
        if there == self.plan:
            return
        there = there if isinstance(there, dict) else {}
        words = {"images": "images", "shards": "--shards", "shuffled": "--shuffle", "shrunk": "--shorter or --quality"}
        words["groups"] = "data.options.group"
        other = [key for key in words if there.get(key) != self.plan.get(key)]
        raise DataError(
            f"{self.out} {what}: {' and '.join(words[key] for key in other)} differ. Give another --out, or remove it."
        )

    def _look_through(self, part: layout.Part, images: ImageSet, masked: bool) -> None:
        """See that the shards of a finished part hold what the set holds."""
        tables = {table: Table(Folder(self.out), part, table).records for table in _tables(masked)}
        with Preparing(images, self.shrinking, self.skip) as preparing:
            for shard, last in zip(part.shards, part.ends, strict=True):
                first = last - shard.samples
                records = {table: rows[first:last] for table, rows in tables.items()}
                self._require_same(preparing, images, shard, first, records, "holds another pack")

    def _require_same(
        self,
        preparing: Preparing,
        images: ImageSet,
        shard: layout.Shard,
        first: int,
        records: Mapping[str, NDArray[Any]],
        what: str,
    ) -> None:
        """Raises DataError where some files of a shard are not those of the set, whatever their names and sizes.

        Args:
            first: index of its first sample.
            records: of its samples, by table.
            what: what the folder holds then, in words.
        """
        count = max(1, min(shard.samples, COMPARED, shard.samples * COMPARED_BYTES // shard.bytes))
        chosen = [number * shard.samples // count for number in range(count)]
        as_they_are = self.shrinking is None and _rests_on_files(images)
        for number, sample in zip(chosen, preparing.again([first + each for each in chosen]), strict=True):
            for table, file in sample.files.items():
                offset, _, length, checksum, *_ = records[table][number].item()
                if checksum == file.checksum:
                    continue
                with (self.out / shard.name).open("rb") as tar:
                    tar.seek(offset)
                    there = tar.read(length)
                if as_they_are or _apart(there, file.content, images) > (ROUNDED if table == "images" else 0):
                    raise DataError(
                        f"{self.out} {what}: images differ, {os.fsdecode(file.name)} in what it holds, if not in name "
                        "and size. Give another --out, or remove it."
                    )

    def _shards(self, images: ImageSet, file: str) -> list[layout.Shard]:
        """Write the shards of a part that are not there yet."""
        shards: list[layout.Shard] = []
        first = 0
        with Preparing(images, self.shrinking, self.skip) as preparing:
            while first < len(images):
                name = f"{file}-{len(shards):06d}.tar"
                shard = read_done(self.out, name)
                if shard is None or not _stands(self.out / name, shard):
                    shard = self._write(name, images, preparing, first)
                else:
                    records = {table: rows_of(self.out, name, table) for table in _tables(images.masked)}
                    self._require_same(preparing, images, shard, first, records, "holds the beginning of another pack")
                    self.kept += 1
                shards.append(shard)
                first += shard.samples
                self.done += shard.samples
                self.tell(self.done, self.total)
        return shards

    def _write(self, name: str, images: ImageSet, preparing: Preparing, first: int) -> layout.Shard:
        rows = Rows()
        with replacing(self.out / name) as temporary, temporary.open("wb") as file:
            tar = TarWriter(file)
            for sample in preparing.samples(first):
                _add(tar, rows, sample, int(images.labels[first + rows.count]), first + rows.count)
                if rows.count == self.samples or tar.size >= self.size:
                    break
                self.tell(self.done + rows.count, self.total)
            tar.close()
        shard = layout.Shard(name=name, samples=rows.count, bytes=tar.size, checksum=tar.checksum)
        rows.write(self.out, shard)
        return shard

    def _compare(self, pack: layout.Pack) -> None:
        """See that what was packed is what was to be packed."""
        for name, images in self.parts.items():
            packed = opened(Folder(self.out), pack, name, "")
            same = len(packed) == len(images) and torch.equal(packed.labels, images.labels)
            if same and self.shrinking is None and _rests_on_files(images):
                same = packed.fingerprint() == self.plan["images"][name]
            if not same:
                raise DataError(f"Files of {images.origin or name} changed while they were packed: remove {self.out}.")

    def _tidy(self) -> None:
        tidy(self.out)
        (self.out / layout.PLAN).unlink(missing_ok=True)


def _add(tar: TarWriter, rows: Rows, sample: Sample, label: int, number: int) -> None:
    """Put a sample into the tar, and what is to be known of it into the index."""
    rows.add(label)
    for table, file in sample.files.items():
        offset = tar.add(f"{number:09d}.{file.ending}", file.content)
        rows.file(table, file.name, offset, len(file.content), file.checksum, file.extent)
    if sample.has_label:
        tar.add(f"{number:09d}.cls", b"%d" % label)


def _tables(masked: bool) -> tuple[str, ...]:
    return ("images", "masks") if masked else ("images",)


def _apart(there: bytes, here: bytes, images: ImageSet) -> float:
    """How far two pictures lie apart, per value."""
    try:
        pixels, others = (pixels_of(content, "image", images.reading) for content in (there, here))
    except CorruptImage:
        return float("inf")
    return float((pixels.float() - others.float()).abs().mean()) if pixels.shape == others.shape else float("inf")


def _stands(path: Path, shard: layout.Shard) -> bool:
    return shard.samples > 0 and path.is_file() and path.stat().st_size == shard.bytes


def _parts(data: config.Data) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """All parts of the data by name, the one to train on first; and the classes as they are where it is divided."""
    data = data.model_copy(update={"held_out": 0, "fold": None, "class_order": "numbers"})
    train, val = sources.load(data)
    if train.split_from is not None:
        return {train.called or "train": _whole(train)}, train.divided_as
    parts = {train.called or "train": train, val.called or "val": val}
    for name in train.unused if sources.has_option(data, "val_split") else ():
        options = {**data.options, "val_split": name}
        if is_split_name(name) and name not in parts:
            try:
                parts[name] = sources.load(data.model_copy(update={"options": options})).val
            except CounterpoiseError as error:
                raise DataError(f"Part '{name}' of the data cannot be packed: {error}") from None
    for part in parts.values():
        part.read_as(train.reading)
    return parts, train.classes


def _whole(part: ImageSet) -> ImageSet:
    """What a part was divided from, in the classes of today."""
    assert part.split_from is not None
    whole = part.split_from
    whole.read_as(part.reading)
    return whole


def _rests_on_files(images: ImageSet) -> bool:
    """Whether its fingerprint is of paths and sizes, as that of a pack is."""
    whole = images.whole if isinstance(images, Subset) else images
    return isinstance(whole, sources.FileSet | PackSet) and not isinstance(whole, DrawnScenes | QuestionFiles)


def _bounds(shards: int | str | None, images: int) -> tuple[int | None, int]:
    """Samples a shard, where their number is given, and bytes."""
    if shards is None:
        return None, SHARD_BYTES
    found = re.fullmatch(r"([0-9]{1,15})\s*(?:([kmg]i?)?b)?", str(shards).strip().lower())
    if found is None or int(found[1]) < 1:
        raise ConfigError(f"shards is how many (--shards 64) or how large (--shards 256MB), got {shards!r}.")
    if not str(shards).strip().lower().endswith("b"):
        return -(-images // int(found[1])), 2**62
    return None, int(found[1]) * _UNITS[found[2] or ""]
