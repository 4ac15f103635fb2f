"""YAML and JSON of others are read, or refused in a sentence, however they are made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterpoise.errors import DocumentError, RunError, UnfitFileError
from counterpoise.studies.fitting.costing import Ledger
from counterpoise.system import documents
from counterpoise.system.documents import parse_json, parse_yaml

Command = Callable[..., tuple[int, str, str]]
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_references_are_followed_where_they_are_few() -> None:
    assert parse_yaml("a: &x {b: [1, 2]}\nc: *x\nd: {<<: *x, e: 3}\n") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "holds more than 100,000 values"),
        ("data: " + "[" * 5000 + "]" * 5000, "deep|nest|depth"),
        ("a: &a [*a]", r"\*a refers to something that is not whole"),
        ("a: *b", "b"),
        ("a: 2001-99-99", "month|date|day"),
        ("a: [1, 2", "expected"),
        ("? [a]\n: 1", "a list or a mapping as a key"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' comes twice"),
    ],
)
def test_texts_that_are_no_yaml_in_reason_are_refused_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(DocumentError, match=why) as refused:
        parse_yaml(text)
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' comes twice"),
        (b'{"a":\n "\xff"}', "no text in UTF-8: line 2 holds the byte 0xff"),
        ('{"a": ' + "9" * 5000 + "}", "a number of hundreds of digits"),
        ('{"a": ' + "9" * 400 + "}", "a number of hundreds of digits"),
    ],
)
def test_texts_that_are_no_json_in_reason_are_refused_in_a_sentence(text: str | bytes, why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        parse_json(text)


def test_files_that_are_no_text_are_refused_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(UnfitFileError, match="no text in UTF-8: line 2 holds the byte 0xe9"):
        documents.read_yaml(tmp_path / "file")


def test_rows_of_a_csv_are_by_column(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text('a,b\n1,"2,\n3"\n4\n')
    assert documents.read_csv(tmp_path / "file.csv") == [{"a": "1", "b": "2,\n3"}, {"a": "4", "b": ""}]
    (tmp_path / "file.csv").write_text('a,b\n1,"2')
    with pytest.raises(DocumentError, match="line 2: unexpected end of data"):
        documents.read_csv(tmp_path / "file.csv")


OWN = {
    *("deploy/runner.py", "deploy/litert_worker.py", "deploy/measuring/worker.py"),  # run without the package
    *("deploy/formats/litert.py", "deploy/measuring/timing.py"),  # hear what these answer
    "system/files.py",  # puts in order what it has written
}


def test_json_and_tables_of_others_are_read_in_one_place() -> None:
    root = Path(documents.__file__).parents[1]
    plain = re.compile(r"json\.loads?\((?!json\.dumps)|csv\.DictReader|yaml\.(safe_)?load|pickle\.loads?\(")
    found = {
        file.relative_to(root).as_posix(): match[0]
        for file in sorted(root.rglob("*.py"))
        if (match := plain.search(file.read_text(encoding="utf-8"))) and file != Path(documents.__file__)
    }
    assert not found.keys() - OWN, found


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_files_without_end_or_answer_are_refused(run: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("a: " + "x" * documents.RUN_FILE_BYTES)
    (tmp_path / "laughs.yaml").write_text(LAUGHS + "base: *i\n")
    (tmp_path / "deep.yaml").write_text("data: " + "[" * 5000 + "]" * 5000 + "\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("pipe.yaml", "large.yaml", "/dev/zero", "laughs.yaml", "deep.yaml", "bytes.yaml"):
        code, _, err = run("train", name)
        assert code == 2, name
        assert name in err
        assert len(err) < 500


def test_a_run_file_may_come_from_a_shell(tmp_path: Path) -> None:
    """As in counterpoise train <(echo ...)."""
    program = (
        "import sys; from counterpoise import config; print(config.read(__import__('pathlib').Path('/dev/stdin')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="seed: 7\n", capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'seed': 7}\n"


@pytest.mark.parametrize("flag", ["--data.views", "--objective", "--train"])
def test_what_is_no_yaml_where_a_flag_takes_a_mapping_is_answered_with_the_way_out(run: Command, flag: str) -> None:
    code, _, err = run("train", "--data.source", "digits", "--student.model", "digits/cnn_4_8", flag, "{crop: [none}")
    assert code == 2
    assert "Traceback" not in err
    assert "is no mapping: write it as in a run file" in err


def test_a_home_of_nobody_is_named(run: Command) -> None:
    code, _, err = run("train", "--data.path", "~nosuchuser/x", "--student.model", "digits/cnn_4_8")
    assert code == 2
    assert "~nosuchuser" in err


KEYS = ["data", "path", "options", "teacher", "student", "model", "checkpoint", "objective", "balance", "weight",
        "train", "epochs", "optimizer", "schedule", "views", "size", "task", "seed", "out", "base", "",
        "a.b"]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["nowhere", "file.py:f", "timm/no", "-", "~nosuchuser/x", "\0", "*", "2001-01-01", "{seed}", "a" * 300]
    ),
    st.text(max_size=6),
)
RUN_FILES = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=RUN_FILES, cut=st.integers(0, 400))
def test_any_run_file_is_refused_in_a_sentence(run: Command, tmp_path: Path, values: dict[str, Any], cut: int) -> None:
    text = yaml.safe_dump(values)
    for content in (text, text[:cut]):
        (tmp_path / "fuzz.yaml").write_text(content, encoding="utf-8", errors="surrogateescape")
        code, _, told = run("distill", "fuzz.yaml")
        assert code == 2, told
        assert told.startswith("Error: ")
        assert "Traceback" not in told


@pytest.mark.parametrize(
    "line", ["train --data digits --student.model LONG", "train --data LONG", "train --objective LONG", "check LONG"]
)
def test_what_was_given_is_not_echoed_without_end(run: Command, line: str) -> None:
    code, _, err = run(*line.replace("LONG", "x" * 3000).split())
    assert code == 2
    assert len(err) < 1500
    assert "x" * 40 in err
    assert re.search(r"\(3,0\d\d characters in all\)", err)


def test_a_ledger_of_what_was_measured_is_read_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    path.write_text("[" * 100_000 + '\n{"key": 3}\n[]\n{"key": "a", "failed": "no"}\n{"key": "b')
    assert list(Ledger(path).entries) == ["a"]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="is a pipe, expected a file"):
        Ledger(path)
