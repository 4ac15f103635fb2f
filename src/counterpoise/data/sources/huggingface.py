"""Hugging Face data sets on disk: parquet files, as a hub's snapshot has them, or what `save_to_disk` wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.images import header_size, pixels_of
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, find
from counterpoise.data.walking import image_files, ordered
from counterpoise.errors import ConfigError, CorruptImage, DataError, MissingExtraError, first_line, nearest, unknown
from counterpoise.system.files import expanded

_LABEL_NAMES = ("label", "labels", "class", "target")  # what a column of plain numbers or strings is usually called


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


def parquet_files(path: Path) -> dict[str, list[str]]:
    """The parquet files of each split: train-00000-of-00002.parquet, or train/0000.parquet, here or in `data`."""
    splits: dict[str, list[str]] = {}
    for file in sorted({*path.glob("*.parquet"), *path.glob("*/*.parquet"), *path.glob("data/*/*.parquet")}):
        name = re.sub(r"-\d+-of-\d+$", "", file.stem)
        if name.isdigit():
            name = file.parent.name
        if name == "all":  # a word that the library keeps for itself
            name = "train"
        splits.setdefault(name, []).append(str(file))
    return splits


@register(
    "huggingface",
    summary="a Hugging Face data set on disk: parquet files, or written by save_to_disk (extra: hf)",
    # Images beside a table are a folder of images, as `metadata.parquet` is part of some.
    recognizes=lambda path: _saved(path) or (bool(parquet_files(path)) and not image_files(path)),
)
def load(
    data: config.Data,
    *,
    image: str | None = None,
    label: str | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
) -> Splits:
    """Splits train and validation (or val, valid, test); else one split, divided by `data.val_fraction`.

    Args:
        train_split, val_split: names of the splits to train and to evaluate on.
        image: column of pictures; default: the only one.
        label: column of class names or numbers; default: the only ClassLabel, or the only one that can serve.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Reading a Hugging Face data set", "hf") from None
    path = expanded(data.path) if data.path else Path()
    try:
        if _saved(path):
            whole = datasets.load_from_disk(str(path))
        else:  # the library's own reader: no code of the folder's runs
            whole = datasets.load_dataset("parquet", data_files=parquet_files(path))
    except Exception as error:  # damaged JSON, missing tables and more
        raise DataError(f"{path} cannot be read as a Hugging Face data set: {first_line(error)}.") from error
    splits = dict(whole) if isinstance(whole, Mapping) else {"train": whole}
    halves = find(splits, str(path), train_split, val_split)
    if halves is None and len(splits) == 1:
        halves = Halves(next(iter(splits)), None, "", ())
    if halves is None:
        raise DataError(
            f"{path} has no split 'train', only {', '.join(splits)}: name one, --data.options.train_split NAME."
        )
    train_name = halves.train
    train = splits[train_name]
    features = train.features
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image) or _is_bytes(feature)]
    image_column = _column("image", image, list(features), pictures, pictures)
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    scalars = [name for name, feature in features.items() if name in named or _is_scalar(feature)]
    usual = [name for name in _LABEL_NAMES if name in scalars]
    label_column = _column("label", label, list(features), scalars, named or usual[:1] or scalars)

    def build(name: str, classes: Sequence[str]) -> HuggingFaceSet:
        rows = splits[name]
        for column in (image_column, label_column):
            if column not in rows.column_names:
                raise DataError(f"Split '{name}' of {path} has no column '{column}', which split '{train_name}' has.")
        encoded = rows.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        return HuggingFaceSet(encoded, name, _labels(rows, name, label_column, classes), classes)

    classes = _classes(train, label_column)
    train_set = build(train_name, classes)
    train_set.origin = f"split {train_name} of {path}"
    if halves.unused:
        train_set.notes.append(f"not used: {', '.join(halves.unused)} of {path}")
    if halves.val is None:
        return split_by_fraction(train_set, data.val_fraction, data.split_seed)
    val_set = build(halves.val, classes)
    val_set.origin = f"split {halves.val} of {path}" + (f" ({halves.why})" if halves.why else "")
    both = Splits(train_set, val_set)
    name_parts(both, halves)
    return both


def _is_bytes(feature: Any) -> bool:
    """Whether a column holds files as {bytes, path}, which programs write that do not say that these are pictures."""
    return isinstance(feature, Mapping) and str(getattr(feature.get("bytes"), "dtype", "")).endswith("binary")


def _column(
    option: str, given: str | None, columns: Sequence[str], fitting: Sequence[str], likely: Sequence[str]
) -> str:
    """The column that was asked for, or the only likely one."""
    if given is not None:
        if given not in columns:
            raise ConfigError(f"data.options.{option}: {unknown('Column', given, columns)}")
        if given not in fitting:
            fit = ", ".join(fitting) or "none"
            raise ConfigError(
                f"data.options.{option}: column '{given}' cannot serve as {option}; those that can: {fit}."
            )
        return given
    if not likely:
        raise DataError(f"The data set has no column that can serve as {option}; its columns are {', '.join(columns)}.")
    if len(likely) > 1:
        raise ConfigError(f"{', '.join(likely)} can all serve as {option}; choose one with data.options.{option}.")
    return likely[0]


def _is_scalar(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool", "string", "large_string"))


def _classes(rows: Any, column: str) -> list[str]:
    names = getattr(rows.features[column], "names", None)  # those of a ClassLabel, in its order
    return list(names) if names is not None else ordered(str(value) for value in set(rows[column][:]) - {None})


def _labels(rows: Any, split: str, column: str, classes: Sequence[str]) -> Tensor:
    """int64 [N] indices into `classes`, by name, so that splits may number their classes differently."""
    names = getattr(rows.features[column], "names", None)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = []
    for value in rows[column][:]:
        if value is None or (names is not None and value < 0):  # -1 stands for a withheld label
            labels.append(UNLABELED)
            continue
        name = names[value] if names is not None else str(value)
        if name not in numbers:
            raise DataError(
                f"Class '{name}' of split '{split}' is unknown to the training data.{nearest(name, classes)}"
            )
        labels.append(numbers[name])
    return torch.tensor(labels, dtype=torch.int64)
