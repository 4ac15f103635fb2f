"""CIFAR-10 and CIFAR-100 in the official layout of Python pickles (Krizhevsky 2009)."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.registry import register
from counterpoise.errors import ConfigError, DataError, damage
from counterpoise.system.files import expanded


@dataclass(frozen=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: dict[str, tuple[str, str]]  # by the value of the option: key of the labels, key of their names

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


_LAYOUTS = (
    _Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels={"fine": ("labels", "label_names")},
    ),
    _Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        meta="meta",
        labels={
            "fine": ("fine_labels", "fine_label_names"),
            "coarse": ("coarse_labels", "coarse_label_names"),
        },
    ),
)


def _candidates(path: Path) -> list[tuple[Path, _Layout]]:
    """Folders, `path` itself or a child of the official name, with at least one image file of a layout."""
    return [
        (folder, layout)
        for layout in _LAYOUTS
        for folder in (path, path / layout.folder)
        if any((folder / name).is_file() for name in (*layout.train, layout.test))
    ]


@register(
    "cifar",
    summary="CIFAR-10 or CIFAR-100 as the official Python pickles; the test split is val",
    recognizes=lambda path: bool(_candidates(path)),
)
def load(data: config.Data, *, labels: Literal["fine", "coarse"] = "fine") -> Splits:
    """The official folder, or the folder that holds it.

    Args:
        labels: the 100 fine or the 20 coarse classes of CIFAR-100.
    """
    assert data.path is not None  # the registry has seen to it
    path = expanded(data.path)
    found = _candidates(path)
    if len(found) != 1:
        folders = " or ".join(layout.folder for _, layout in found or [(path, layout) for layout in _LAYOUTS])
        raise DataError(
            f"{path} holds more than one CIFAR; give the path of one: {folders}."
            if found
            else f"{path} holds no CIFAR pickles; expected the folder {folders}, or its files."
        )
    folder, layout = found[0]
    if labels not in layout.labels:
        raise ConfigError("data.options.labels: coarse labels are those of CIFAR-100, and this is CIFAR-10.")
    missing = [name for name in layout.files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} is not complete: {', '.join(missing)} missing.")
    key, names_key = layout.labels[labels]
    classes = _names(folder / layout.meta, names_key)
    return Splits(
        _read_half(folder, layout.train, key, classes, "train"), _read_half(folder, [layout.test], key, classes, "test")
    )


def _names(path: Path, key: str) -> list[str]:
    names = _read(path).get(key)
    if not isinstance(names, list | tuple) or len(names) < 2:
        raise DataError(f"{path} must hold a list '{key}' of at least 2 class names.")
    return [_text(name) for name in names]


def _read_half(folder: Path, files: Sequence[str], key: str, classes: Sequence[str], name: str) -> ArraySet:
    parts = [_read_part(folder / file, key, classes) for file in files]
    # Concatenated even where it is one: an array out of a pickle may lie in read-only memory.
    images = torch.from_numpy(np.concatenate([pixels for pixels, _ in parts]))
    return ArraySet(images, torch.tensor([label for _, labels in parts for label in labels]), classes, name)


def _read_part(path: Path, key: str, classes: Sequence[str]) -> tuple[NDArray[np.uint8], list[int]]:
    record = _read(path)
    pixels, labels = record.get("data"), record.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        kind = "nothing" if pixels is None else type(pixels).__name__
        given = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else kind
        raise DataError(f"{path}: 'data' must be uint8 [N, 3072] (3 channels of 32x32), got {given}.")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list | tuple) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: '{key}' must be a list of whole numbers.")
    if len(labels) != len(pixels):
        raise DataError(f"{path} has {len(pixels)} images and {len(labels)} labels in '{key}'.")
    if not labels or min(labels) < 0 or max(labels) >= len(classes):
        given = f"{min(labels)} to {max(labels)}" if labels else "none"
        raise DataError(f"{path}: labels in '{key}' must be 0 to {len(classes) - 1}, got {given}.")
    return pixels.reshape(-1, 3, 32, 32), list(labels)


def _read(path: Path) -> dict[str, Any]:
    """A pickled dictionary, its keys as text whichever Python wrote it."""
    try:
        with path.open("rb") as file:
            record = _DataUnpickler(file, path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} is not a whole pickle: {damage(error)}.") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} must hold a dictionary, got {type(record).__name__}.")
    return {_text(key): value for key, value in record.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for codecs.encode, which Python 3 uses to write bytes in old protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding '{encoding}' has no place here")
    return text.encode("latin1")


class _DataUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and plain numpy arrays; refuses a pickle that names anything else."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")  # Python 2 wrote str, which holds pixels as well as names
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "_codecs", "encode":
                return _latin1
            case "numpy", "ndarray":
                return None  # an argument of _reconstruct, and never to be called
            case "numpy", "dtype":
                return np.dtype
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _reconstruct
            case (("numpy.core.numeric" | "numpy._core.numeric"), "_frombuffer"):
                return _from_buffer
        raise DataError(
            f"{self._path} tries to run code ('{module}.{name}') and was refused; CIFAR files hold data only."
        )


def _reconstruct(kind: None, shape: Any, dtype: Any) -> NDArray[Any]:
    """Stands in for numpy's function of this name, which makes the empty array that the pickle then fills."""
    return np.ndarray((0,), np.uint8)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Stands in for numpy's function of this name, used by pickle protocol 5."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)
