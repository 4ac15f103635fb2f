"""Rows of results.csv as others may have left them."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterpoise.errors import ConfigError
from counterpoise.studies import results

ROW = {
    "pair": "a",
    "method": "kd",
    "seed": "0",
    "fold": "1/3",
    "last": "90.0",
    "origin": "here",
    "plan_sha256": "0" * 64,
}


@pytest.mark.parametrize(
    ("column", "given"),
    [("seed", ""), ("seed", "first"), ("last", "high"), ("best", "?"), ("fold", "1/"), ("fold", "/3")],
)
def test_a_row_without_its_numbers_is_named(column: str, given: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results.write_rows(path, results.COLUMNS, [ROW, {**ROW, column: given}])
    with pytest.raises(ConfigError, match=f"{column} of row 2 is .*, expected a number"):
        results.read_csv(path)
    results.write_rows(path, results.COLUMNS, [ROW, {**ROW, "seed": "1"}])
    assert [results.unit(row) for row in results.read_csv(path)] == [(1, 0), (1, 1)]
