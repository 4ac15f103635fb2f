"""Hugging Face data sets: parquet files as the hub has them, on disk or at an address; what `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.images import header_size, pixels_of
from counterpoise.data.sources import columns as of
from counterpoise.data.sources import huggingface_remote, parquet_files
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits
from counterpoise.data.sources.registry import register
from counterpoise.data.walking import image_files
from counterpoise.errors import CorruptImage, CounterpoiseError, DataError, MissingExtraError, damage
from counterpoise.system import documents
from counterpoise.system.addresses import TIMEOUT, address_of
from counterpoise.system.files import expanded, named


class HuggingFaceSet(ImageSet):
    """One split of a data set; pictures are decoded when asked.

    Args:
        rows: a `datasets.Dataset` with one column, the encoded pictures.
        split: its name.
    """

    def __init__(self, rows: Any, split: str, labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes)
        self._rows = rows
        self._column: str = rows.column_names[0]
        self._split = split

    def _picture(self, index: int) -> bytes:
        row = self._rows[index][self._column]
        picture: bytes | None = row and row["bytes"]  # save_to_disk brings pictures that lay in files into the table
        if picture is None:
            raise CorruptImage(self.name(index), "the column holds no picture")
        return picture

    def name(self, index: int) -> str:
        return f"{self._split} #{index}"

    def read(self, index: int) -> Tensor:
        return pixels_of(self._picture(index), self.name(index), self.reading)

    def file(self, index: int) -> bytes:
        return self._picture(index)

    def extent(self, index: int) -> tuple[int, int]:
        return header_size(self._picture(index), self.name(index), self.reading)

    @cached_property
    def _sizes(self) -> list[int | None]:
        """Bytes of every picture, from the table's own bookkeeping."""
        import pyarrow.compute as compute

        pictures = self._rows.with_format("arrow")[:][self._column]
        sizes: list[int | None] = compute.binary_length(compute.struct_field(pictures, "bytes")).to_pylist()
        return sizes

    def identity(self, index: int) -> bytes:
        return f"{self.name(index)} {self._sizes[index]}".encode()


_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")


def _saved(path: Path) -> bool:
    return any((path / name).is_file() for name in _SAVED)


def _check_names(path: Path) -> None:
    """Raises OSError or ValueError where what `save_to_disk` wrote names folders or tables that lie elsewhere."""
    splits = [path]
    if (path / _SAVED[0]).is_file():
        names = documents.read_json(path / _SAVED[0], within=path)["splits"]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("it names splits that are no folders")
        splits = [named(path, f"{name}/{_SAVED[2]}").parent for name in names]
    for split in splits:
        for table in documents.read_json(split / _SAVED[2], within=path)["_data_files"]:
            named(split, str(table["filename"]))


@register(
    "huggingface",
    summary="a Hugging Face data set: parquet files in a folder or at an address that fsspec knows (extra: remote), or "
    "written by save_to_disk (extra: hf)",
    # Images beside a table are a folder of images, as `metadata.parquet` is part of some.
    recognizes=lambda path: _saved(path) or (bool(parquet_files.below(path)) and not image_files(path)),
    addresses=True,
    recognizes_address=parquet_files.recognizes_address,
)
def load(
    data: config.Data,
    *,
    image: str | None = None,
    label: str | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    train: str | None = None,
    val: str | None = None,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    timeout: float = TIMEOUT,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Splits train and validation (or val, valid, test); else one split, divided by `data.val_fraction`.

    Args:
        train_split, val_split: names of the splits to train and to evaluate on.
        image: column of pictures; default: the only one.
        label: column of class names or numbers; default: the only ClassLabel, or the only one that can serve.
        train, val: which parquet files are of these splits: names, with *, {0000..0146} and {a,b}; default: as they are
            called.
        cache: folder for what was fetched from an address; default: counterpoise/packs in the user's cache.
        cache_gb: how large that may become.
        timeout: seconds that a request may take before it is asked again.
        group: column of what belongs together, such as patient: none of it is on both sides of a division.
        shared: let groups be on both sides of the data's own division.
    """
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise MissingExtraError("Reading a Hugging Face data set", "hf") from None
    address = data.path and address_of(data.path)
    if address:
        reach = huggingface_remote.Reach(address, train, val, cache and expanded(cache), cache_gb, timeout)
        return huggingface_remote.load(data, reach, image, label, train_split, val_split, group, shared)
    path = expanded(data.path) if data.path else Path()
    try:
        return _on_disk(data, path, of.Asked(image, label, train_split, val_split, group, shared), train, val)
    except (CounterpoiseError, MemoryError):
        raise
    except Exception as error:  # damaged JSON, missing tables and more
        raise DataError(f"{path} cannot be read as a Hugging Face data set: {damage(error)}.") from error


def _on_disk(data: config.Data, path: Path, asked: of.Asked, train: str | None, val: str | None) -> Splits:
    """As `load`. Raises what the libraries do, too, where the files are damaged."""
    import datasets

    tables = parquet_files.Tables({}, None, None)
    if _saved(path):
        _check_names(path)
        whole = datasets.load_from_disk(str(path))
    else:  # by the reader itself: no code of the folder's runs, and load_dataset would count the use at a server
        tables = parquet_files.in_splits(parquet_files.below(path), train, val, str(path))
        files = {split: [str(path / name) for name in names] for split, names in tables.splits.items()}
        whole = datasets.DatasetDict.from_parquet(files)
    splits = dict(whole) if isinstance(whole, Mapping) else {"train": whole}
    for rows in splits.values():
        rows.data.validate(full=True)  # of a mapped table, offsets may lead anywhere
    halves = of.find_halves(splits, str(path), asked.train_split or tables.train, asked.val_split or tables.val)
    train_name = halves.train
    columns = of.choose(splits[train_name].features, asked.image, asked.label)

    def build(name: str, classes: Sequence[str]) -> HuggingFaceSet:
        rows = splits[name]
        of.require(columns, rows.column_names, f"Split '{name}'", str(path), f"split '{train_name}'")
        encoded = rows.select_columns([columns.image]).cast_column(columns.image, datasets.Image(decode=False))
        built = HuggingFaceSet(encoded, name, _labels(rows, name, columns.label, classes), classes)
        built.blocks = _row_groups(path, tables.splits[name]) if tables.splits else None
        return built

    classes = _classes(splits[train_name], columns.label)
    train_set = build(train_name, classes)
    grouped = None
    if asked.group is not None:
        column = of.group_column(splits[train_name].features, asked.group)

        def groups(name: str) -> list[str]:
            of.require((column,), splits[name].column_names, f"Split '{name}'", str(path), f"split '{train_name}'")
            return of.group_names(splits[name][column][:], splits[name].features[column])

        grouped = of.Grouped(column, asked.shared, groups)
    plain = columns.label if of.names_of(splits[train_name].features[columns.label]) is None else None
    return of.in_halves(data, halves, train_set, lambda name: build(name, classes), str(path), plain, grouped)


def _row_groups(path: Path, names: Sequence[str]) -> Tensor:
    """int64 [K], rows of each row group that has any: what lies together."""
    from pyarrow import parquet

    footers = (parquet.read_metadata(path / name) for name in names)
    rows = [footer.row_group(number).num_rows for footer in footers for number in range(footer.num_row_groups)]
    return torch.tensor([count for count in rows if count], dtype=torch.int64)


def _classes(rows: Any, column: str) -> list[str]:
    names = of.names_of(rows.features[column])
    met = () if names is not None else (of.text_of(value, None) for value in set(rows[column][:]))
    return of.classes_of(filter(None, met), names)


def _labels(rows: Any, split: str, column: str, classes: Sequence[str]) -> Tensor:
    """int64 [N] indices into `classes`, by name, so that splits may number their classes differently."""
    names = of.names_of(rows.features[column])
    numbers = {name: number for number, name in enumerate(classes)}
    labels = []
    for value in rows[column][:]:
        name = of.text_of(value, names)
        if name is not None and name not in numbers:
            raise of.unknown_class(name, split, classes)
        labels.append(UNLABELED if name is None else numbers[name])
    return torch.tensor(labels, dtype=torch.int64)
