"""Tables that a terminal of any width shows whole."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

_BETWEEN = 2  # spaces between columns: the padding of one, and the box


@dataclass(frozen=True)
class Column:
    """A column. What names a row, and numbers, stay on one line; texts are broken between words."""

    title: str
    kind: Literal["name", "number", "text"] = "text"

    def widths(self, cells: Sequence[str]) -> tuple[int, int]:
        """The fewest characters that it takes, and how many it would like."""
        lines = [line for cell in cells for line in cell.split("\n")]
        whole = max(map(cell_len, [self.title, *lines]), default=0)
        held = lines if self.kind != "text" else [word for line in lines for word in line.split()]
        return max(map(cell_len, [*self.title.split(), *held]), default=0), whole


def names(*titles: str) -> list[Column]:
    """Columns of what names a row."""
    return [Column(title, "name") for title in titles]


def numbers(*titles: str) -> list[Column]:
    """Columns of numbers, on the right."""
    return [Column(title, "number") for title in titles]


def texts(*titles: str) -> list[Column]:
    """Columns of words."""
    return [Column(title) for title in titles]


@dataclass
class Grid:
    """A table of which nothing is cut.

    Where a terminal is too narrow, texts are broken between words; then columns go below one another, each part led by
    the names; and where no column has room beside the names, each row is a list. Columns of names come first.
    """

    title: str
    columns: Sequence[Column]
    header: bool = True
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row: a text for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        leading = [index for index, column in enumerate(self.columns) if column.kind == "name"]
        parts = self._parts(leading, options.max_width)
        if parts is None:
            yield from self._lists(leading, options.max_width)
            return
        for number, part in enumerate(parts):
            yield self._table(part, options.max_width, self.title if number == 0 else "")

    def _cells(self, index: int) -> list[str]:
        return [row[index] for row in self.rows]

    def _fewest(self, part: Sequence[int]) -> int:
        return sum(self.columns[i].widths(self._cells(i))[0] for i in part) + _BETWEEN * max(len(part) - 1, 0)

    def _parts(self, leading: list[int], width: int) -> list[list[int]] | None:
        """Which columns stand beside one another; None where one has no room beside the names."""
        if self._fewest(leading) > width:
            return None
        parts: list[list[int]] = [list(leading)]
        for index in range(len(self.columns)):
            if index in leading:
                continue
            if self._fewest([*parts[-1], index]) <= width:
                parts[-1].append(index)
            elif self._fewest([*leading, index]) <= width:
                parts.append([*leading, index])
            else:
                return None
        return [part for part in parts if part != leading or len(parts) == 1]

    def _table(self, part: Sequence[int], width: int, title: str) -> Table:
        table = Table(
            title=Text(title) if title else None,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_header=self.header,
        )
        for index, room in zip(part, self._shared(part, width), strict=True):
            column = self.columns[index]
            heading = textwrap.fill(column.title, max(room, 1), break_long_words=False, break_on_hyphens=False)
            table.add_column(
                Text(heading), justify="right" if column.kind == "number" else "left", width=room, overflow="fold"
            )
        for row in self.rows:
            table.add_row(*(Text(row[index]) for index in part))
        return table

    def _shared(self, part: Sequence[int], width: int) -> list[int]:
        """The width of each column: what is left over goes to those that would like more."""
        limits = [self.columns[index].widths(self._cells(index)) for index in part]
        left = width - sum(fewest for fewest, _ in limits) - _BETWEEN * (len(part) - 1)
        given = [fewest for fewest, _ in limits]
        order = sorted(range(len(part)), key=lambda i: limits[i][1] - limits[i][0])
        for rank, i in enumerate(order):
            more = min(limits[i][1] - limits[i][0], left // (len(order) - rank))
            given[i] += more
            left -= more
        return given

    def _lists(self, leading: list[int], width: int) -> Iterator[Text]:
        if self.title:
            yield Text(self.title, style="bold", no_wrap=True, overflow="ignore")
        shown = [index for index in range(len(self.columns)) if index not in leading]
        label = max((cell_len(self.columns[index].title) for index in shown), default=0)
        for row in self.rows:
            yield Text("  ".join(row[index] for index in leading if row[index]), no_wrap=True, overflow="ignore")
            for index in shown:
                yield from self._entry(self.columns[index], row[index], label, width)

    def _entry(self, column: Column, cell: str, label: int, width: int) -> Iterator[Text]:
        room = max(width - label - 2 * _BETWEEN, 1) if column.kind == "text" else max(len(cell), 1)
        lines = [line for part in cell.split("\n") for line in wrapped(part, room)]
        for heading, line in zip_longest([column.title], lines, fillvalue=""):
            spaces = " " * (label - cell_len(heading) + _BETWEEN if label else 0)
            yield Text(f"  {heading}{spaces}{line}".rstrip(), no_wrap=True, overflow="ignore")


def wrapped(text: str, width: int) -> list[str]:
    """A line broken between words where it is longer than `width`; a word is never broken, such as a path."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
