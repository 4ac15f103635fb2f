"""Tables as people write them, and as programs do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from counterpoise.data.table_file import names_of, read_table
from counterpoise.errors import ConfigError, DataError

ROWS = [("a b.jpg", "cat, big"), ("ü.png", "dog")]


def csv_text(separator: str = ",") -> str:
    return f"file{separator}label\r\n" + "".join(f'"{file}"{separator}"{label}"\r\n' for file, label in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", csv_text().encode()),
        ("marked.csv", csv_text().encode("utf-8-sig")),
        ("excel.csv", csv_text("\t").encode("utf-16")),
        ("semicolons.csv", csv_text(";").encode()),
        ("told.csv", f"sep=|\r\n{csv_text('|')}".encode()),
        ("tabs.tsv", csv_text("\t").encode()),
        ("empty-lines.csv", csv_text().replace("\r\n", "\n\n").encode()),
        ("lines.jsonl", "\n".join(json.dumps({"file": file, "label": label}) for file, label in ROWS).encode()),
        ("old.csv", csv_text().encode("cp1252")),
    ],
)
def test_text_of_any_kind_is_the_same_table(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    table = read_table(path, encoding="cp1252" if name == "old.csv" else "utf-8")
    assert (table.names, table.rows) == (("file", "label"), 2)
    assert list(zip(table.text("file"), table.text("label"), strict=True)) == ROWS


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_numbers_beside_missing_ones_are_whole_again(tmp_path: Path, kind: str) -> None:
    """As pandas writes them: a column of whole numbers in which some are missing becomes one of floats."""
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text("n,x\n3.0,1\n,0.5\n10.0,nan\n")
    elif kind == "jsonl":
        path.write_text('{"n": 3.0, "x": 1}\n\n{"n": null, "x": 0.5}\n{"n": 10.0}\n')
    else:
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame({"n": [3.0, math.nan, 10.0], "x": [1, 0.5, math.nan]}).to_parquet(path)
    table = read_table(path)
    assert table.text("n") == ["3", "", "10"]
    assert "such as 3.0: read without it" in table.notes[0] or "such as 10.0: read without it" in table.notes[0]
    assert table.text("x")[1:] == ["0.5", ""]
    assert table.numbers("x")[:2] == [1.0, 0.5]
    assert math.isnan(table.numbers("x")[2])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b\n", "has columns (a, b) and no rows"),
        ("t.csv", b"a,a\n1,2\n", "two columns 'a'"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "row 3 has 3 fields and the first 2"),
        ("t.csv", b'a,b\n1,2\n1,"2\n3,4\n', "line 4: unexpected end of data"),
        ("t.csv", b"a,b\n1,\xe9\n", "line 2 is no utf-8"),
        ("t.csv", b"x/1.jpg,cat\nx/2.jpg,dog\n", "holds no names of columns but a picture, 'x/1.jpg'"),
        ("t.jsonl", b'{"a": 1}\n[1]\n', "line 2 is no object"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("t.jsonl", b'{"a": ' + b"[" * 100_000, "line 1 is no JSON: it is nested too deeply"),
        ("t.jsonl", b'{"a": 1}\n\xff\xfe\n', "is no JSON"),
        ("t.parquet", b"PAR1 and not more", "cannot be read"),
        ("t.xlsx", b"PK", "no table that is known here"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert said in str(error.value)


def test_a_table_without_names_is_given_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x/1.jpg,cat\nx/2.jpg,dog\n")
    table = read_table(tmp_path / "t.csv", columns=["image", "label"])
    assert (table.rows, table.text("label")) == (2, ["cat", "dog"])
    with pytest.raises(DataError, match="row 1 has 2 fields and the first 1"):
        read_table(tmp_path / "t.csv", columns=["image"])
    with pytest.raises(ConfigError, match="no encoding 'klingon'"):
        read_table(tmp_path / "t.csv", encoding="klingon")


@pytest.mark.parametrize("value", [["a"], {"b": 1}, b"x"])
def test_what_is_neither_text_nor_number_is_no_text(tmp_path: Path, value: Any) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": [value, value], "n": ["1", "x"]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.first("a") == []
    with pytest.raises(DataError, match=f"holds {type(value).__name__}s"):
        table.text("a")
    with pytest.raises(DataError, match="holds 'x' in row 2; expected numbers"):
        table.numbers("n")


def test_a_field_may_be_long_as_runs_of_a_mask_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("rle,file\n" + "1 2 " * 50_000 + ",1.jpg\n")
    assert read_table(path).text("rle") == [("1 2 " * 50_000).strip()]
    assert names_of(path) == ["rle", "file"]
