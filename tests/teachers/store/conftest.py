"""A teacher whose logits are a function of sample and view, so that whatever is read can be checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise.teachers.store import Chunk, Header, StoreWriter

CLASSES = 40


def answers(indices: Tensor, slots: Tensor, shape: tuple[int, ...] = (CLASSES,)) -> Tensor:
    """float32 [N, *shape]: distinct for every sample and view."""
    place = torch.arange(torch.Size(shape).numel()).view(shape)
    seed = (slots * 1000 + indices).view(-1, *[1] * len(shape))
    return 8 * torch.sin(0.37 * seed + 1.7 * place).float() + 0.01 * seed


def make_header(**changes: Any) -> Header:
    """50 samples in 3 views and 20 samples a chunk, but for what is changed."""
    shape = changes.get("shape", (CLASSES,))
    values: dict[str, Any] = {
        "data": "d" * 64,
        "teacher": "e" * 64,
        "kind": "epochs",
        "views": {"format": 1, "seed": 0, "padding": 4},
        "count": 50,
        "slots": (0, 1, 2),
        "shape": shape,
        "precision": "float32",
        "rows_per_chunk": 20,
    }
    return Header(**{**values, **changes})


def batches(chunk: Chunk, shape: tuple[int, ...] = (CLASSES,), size: int = 3) -> Iterator[Tensor]:
    """The logits of a chunk, `size` samples at a time."""
    for start in range(chunk.start, chunk.stop, size):
        indices = torch.arange(start, min(start + size, chunk.stop))
        yield answers(indices, torch.full_like(indices, chunk.slot), shape)


def record(path: Path, header: Header, part: tuple[int, int] = (0, 1), limit: int | None = None, size: int = 3) -> bool:
    """Record what is missing of a part, at most `limit` chunks; whether the store is finished."""
    with StoreWriter.create(path, header, part) as writer:
        for chunk in writer.missing()[:limit]:
            writer.write(chunk, batches(chunk, header.shape, size))
        return writer.finish()


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative path, but for the lock."""
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and f.name != ".lock"}


def every_view(header: Header) -> tuple[Tensor, Tensor]:
    """Indices and slots of all views of a store, shuffled."""
    order = torch.randperm(header.count * len(header.slots), generator=torch.Generator().manual_seed(0))
    return order % header.count, torch.tensor(header.slots)[order // header.count]


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """A finished store of `make_header()`."""
    path = tmp_path / "store"
    assert record(path, make_header())
    return path


def fork(task: Callable[[], object]) -> int:
    """A child process that does the task and exits with 0; much sooner ready than a new interpreter."""
    child = os.fork()
    if child:
        return child
    try:
        task()
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)


class Kit:
    """The functions above, for test modules that cannot import this one."""

    answers = staticmethod(answers)
    header = staticmethod(make_header)
    batches = staticmethod(batches)
    record = staticmethod(record)
    contents = staticmethod(contents)
    every_view = staticmethod(every_view)
    fork = staticmethod(fork)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    """The function that flips one bit of a file."""

    def flip_bit(path: Path, bit: int) -> None:
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)

    return flip_bit
