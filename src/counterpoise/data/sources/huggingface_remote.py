"""Parquet data sets of Hugging Face's layout at an address, read by row groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from counterpoise import config
from counterpoise.data.packs import tables
from counterpoise.data.packs.finding import require_positive
from counterpoise.data.packs.reading import PackSet
from counterpoise.data.sources import columns as of
from counterpoise.data.sources import parquet_files
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits
from counterpoise.data.sources.columns import Columns
from counterpoise.errors import DataError, damage
from counterpoise.system.addresses import Files
from counterpoise.system.files import held


class Reach(NamedTuple):
    """How a set at an address is read: the options of the source that have these names."""

    address: str
    train: str | None
    val: str | None
    cache: Path | None
    cache_gb: float
    timeout: float


def load(
    data: config.Data,
    reach: Reach,
    image: str | None,
    label: str | None,
    train_split: str | None,
    val_split: str | None,
    group: str | None,
    shared: bool,
) -> Splits:
    """As the set on disk. Raises DataError, ConfigError."""
    require_positive(cache_gb=reach.cache_gb, timeout=reach.timeout)
    files = Files(reach.address, reach.timeout)
    found = parquet_files.of_address(files, reach.train, reach.val)
    where = files.address
    halves = of.find_halves(found.splits, where, train_split or found.train, val_split or found.val)

    def opened(name: str) -> tables.Split:
        return tables.opened(files, name, found.splits[name], reach.cache, (image, label))

    train = opened(halves.train)
    features = _features(train, next(iter(train.footers)))
    columns = of.choose(features, image, label)
    train_set = _images(train, columns, reach, f"file {next(iter(train.footers))}")
    others: dict[str, tables.Split] = {}

    def val(name: str) -> ImageSet:
        others[name] = opened(name)
        images = _images(others[name], columns, reach, f"split '{halves.train}'")
        _relabel(images, name, train_set.classes)
        return images

    grouped = None
    if group is not None:
        column = of.group_column(features, group)
        grouped = of.Grouped(column, shared, lambda name: _groups(others.get(name, train), column, features[column]))
    plain = columns.label if of.names_of(features[columns.label]) is None else None
    return of.in_halves(data, halves, train_set, val, where, plain, grouped)


def _groups(split: tables.Split, column: str, feature: Any) -> list[str]:
    """The group of each picture; of all its columns, this one alone is fetched. Raises DataError."""
    for file in split.footers:
        of.require((column,), _features(split, file), f"File {file}", split.files.address, "others")
    return of.group_names(tables.column(split, column), feature)


def _images(split: tables.Split, columns: Columns, reach: Reach, other: str) -> PackSet:
    """The pictures of a split. Raises DataError where its files do not fit one another."""
    where, first = split.files.address, next(iter(split.footers))
    expected = _features(split, first)
    for file in split.footers:
        features = _features(split, file)
        of.require(columns, features, f"File {file}", where, other)
        for column in columns:
            if features[column] != expected[column]:
                raise DataError(
                    f"The files of split '{split.name}' of {where} differ: column '{column}' is "
                    f"{_short(expected[column])} in {first}, and {_short(features[column])} in {file}."
                )
    names = of.names_of(expected[columns.label])
    wanted = tables.Wanted(
        *columns, text=lambda value: of.text_of(value, names), classes=lambda met: of.classes_of(met, names)
    )
    with held(split.folder / ".lock", raises=DataError):
        place, pack = tables.index(split, wanted, int(reach.cache_gb * 1e9))
    return PackSet(place, pack, split.name, f"split {split.name} of {where}")


def _relabel(images: PackSet, split: str, classes: Sequence[str]) -> None:
    """Number classes as training does, by name. Raises DataError where one is met that training lacks."""
    if images.classes == tuple(classes):
        return
    numbers = {name: number for number, name in enumerate(classes)}
    for own in torch.unique(images.labels).tolist():
        if own != UNLABELED and images.classes[own] not in numbers:
            raise of.unknown_class(images.classes[own], split, classes)
    # One more at the end, which UNLABELED (-1) finds.
    moved = torch.tensor([*(numbers.get(name, UNLABELED) for name in images.classes), UNLABELED])
    images.labels, images.classes = moved[images.labels], tuple(classes)


def _features(split: tables.Split, file: str) -> Any:
    import datasets

    try:
        return datasets.Features.from_arrow_schema(split.footers[file].schema.to_arrow_schema())
    except Exception as error:  # whatever others wrote there
        raise DataError(f"{split.files.address}/{file} cannot be read as parquet: {damage(error)}.") from None


def _short(feature: Any) -> str:
    text = str(feature)
    return text if len(text) <= 100 else f"{text[:100]}..."
