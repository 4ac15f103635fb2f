"""The kinds of data by name. A new kind is one file in this folder with one function under `@register`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from counterpoise.data.problems import Problem
from counterpoise.data.sources.base import Splits
from counterpoise.system.registry import Registry

Load = TypeVar("Load", bound=Callable[..., Splits])


@dataclass(frozen=True)
class Source:
    """A kind of data.

    Attributes:
        load: function (data: config.Data, *, option=default, ...) -> Splits; its keywords are the `data.options`.
        recognizes: whether an existing folder is of this kind; None where one cannot tell.
        needs_path: whether `data.path` must name an existing folder.
        files: whether a file, where `data.path` is one, is of this kind by its name; None where folders are read.
        addresses: whether `data.path` may be an address, such as s3://bucket/pack.
        recognizes_address: whether what is at an address is of this kind, by its options, where several kinds may be.
        check: function of the arguments of `load` that yields every problem of the data, where a source can say more
            than the error of `load`, which is the first of them.
    """

    name: str
    summary: str
    load: Callable[..., Splits]
    recognizes: Callable[[Path], bool] | None
    needs_path: bool
    check: Callable[..., Iterable[Problem]] | None = None
    addresses: bool = False
    files: Callable[[Path], bool] | None = None
    recognizes_address: Callable[[str, Mapping[str, Any]], bool] | None = None


SOURCES: Registry[Source] = Registry("Source", "counterpoise.data.sources", "counterpoise.sources")


def register(
    name: str,
    *,
    summary: str,
    recognizes: Callable[[Path], bool] | None = None,
    needs_path: bool = True,
    check: Callable[..., Iterable[Problem]] | None = None,
    addresses: bool = False,
    files: Callable[[Path], bool] | None = None,
    recognizes_address: Callable[[str, Mapping[str, Any]], bool] | None = None,
) -> Callable[[Load], Load]:
    """Decorator that makes a function a source of data; the arguments are those of `Source`."""

    def keep(function: Load) -> Load:
        source = Source(name, summary, function, recognizes, needs_path, check, addresses, files, recognizes_address)
        SOURCES.add(name, source, function.__module__)
        return function

    return keep


def names() -> list[str]:
    """Names of all sources."""
    return sorted(SOURCES.entries())


def summaries() -> dict[str, str]:
    """One line on each source, by name."""
    return {name: source.summary for name, source in sorted(SOURCES.entries().items())}
