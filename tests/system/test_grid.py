"""Tables in terminals of any width: what names a row is never cut, and no number or path is broken."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from counterpoise.commands.tables import print_all
from counterpoise.system.grid import Grid, names, numbers, texts, wrapped

NAME = "stores/of-a-name-that-is-long/student-of-teacher.onnx"


def shown(grid: Grid, width: int) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False, emoji=False
    )
    console.print(grid, crop=False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def measured(name: str = "x.onnx") -> Grid:
    grid = Grid("what a call costs", [*names(""), *texts("runtime"), *numbers("median ms", "95% interval", "peak MB")])
    grid.add(name, "onnxruntime (onnxruntime 1.27.0)", "123.456", "0.00123 - 123.456", "1,234,567")
    grid.add("y.onnx", "onnxruntime (onnxruntime 1.27.0)", "2", "-", "3")
    return grid


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 120, 300])
def test_names_numbers_and_words_are_whole_at_any_width(width: int) -> None:
    out = shown(measured(NAME), width)
    for word in (NAME, "y.onnx", "123.456", "0.00123 - 123.456", "1,234,567", "onnxruntime", "1.27.0)", "interval"):
        assert word in out
    assert "…" not in out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert max(map(len, shown(measured(NAME), width).splitlines())) <= width


def test_columns_without_room_go_below_led_by_the_names() -> None:
    lines = shown(measured(), 30).splitlines()
    assert sum("x.onnx" in line for line in lines) > 1
    assert not any("x.onnx" in line and line.count("onnxruntime") > 1 for line in lines)


def test_a_name_wider_than_the_terminal_leads_a_list() -> None:
    lines = shown(measured(NAME), 30).splitlines()
    assert NAME in lines
    assert "  peak MB       1,234,567" in lines


def test_a_wide_terminal_has_one_line_a_row() -> None:
    lines = shown(measured(NAME), 200).splitlines()
    (row,) = [line for line in lines if NAME in line]
    assert re.search(r"onnxruntime \(onnxruntime 1.27.0\) +123.456 +0.00123 - 123.456 +1,234,567", row)


@settings(max_examples=60)
@given(
    width=st.integers(1, 90),
    rows=st.lists(st.tuples(*[st.text("ab cé漢-", max_size=30)] * 3), min_size=1, max_size=4),
)
def test_every_word_of_every_cell_is_there(width: int, rows: list[tuple[str, str, str]]) -> None:
    grid = Grid("", [*names("name"), *texts("words"), *numbers("number")])
    for row in rows:
        grid.add(*row)
    out = shown(grid, width).split()
    for row in rows:
        for cell in row:
            assert set(cell.split()) <= set(out)


def test_lines_break_between_words_and_paths_stay_whole() -> None:
    assert wrapped("Student: runs/a-very-long-name/student is there", 20) == [
        "Student:",
        "runs/a-very-long-name/student",
        "is there",
    ]


def test_what_is_no_terminal_gets_every_line_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # set where tests run in several processes
    print_all(["a line of words " * 20, measured(NAME)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("a line of words " * 20).rstrip()
    assert len([line for line in lines if NAME in line]) == 1
