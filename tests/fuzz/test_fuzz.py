"""Whatever a file holds, it is read or refused in a sentence, in bounded time and memory, and nothing in it is run."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apart import DIED, Apart
from campaign import Format, campaign, mutant, prepared
from formats import FORMATS

from counterpoise.errors import CounterpoiseError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
MANY = int(os.environ.get("COUNTERPOISE_MUTANTS", "10000"))
"""Mutants of each format in the slow test; those of the suite are the first of them."""
DEADLY = 189
"""The mutant of a program at which ExecuTorch 1.5 ends its process."""
BY_NAME = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name.replace(" ", "-"))


@pytest.fixture(scope="session")
def apart() -> Iterator[Apart]:
    made = Apart()
    yield made
    made.close()


@BY_NAME
def test_changed_files_are_read_or_refused(form: Format, tmp_path: Path, apart: Apart) -> None:
    assert not _wrong(form, tmp_path, range(form.quick), apart)


@pytest.mark.slow
@BY_NAME
def test_ten_thousand_changed_files_are_read_or_refused(form: Format, tmp_path: Path, apart: Apart) -> None:
    assert not _wrong(form, tmp_path, range(form.quick, MANY), apart)


def _wrong(form: Format, folder: Path, numbers: range, apart: Apart) -> str:
    """What is wrong, in words; skips where what reads it is not installed."""
    if form.missing:
        pytest.skip(f"needs {form.missing}, which is not installed")
    report = (apart.campaign if form.apart else campaign)(form, folder / "good", numbers)
    wrong = [what for _, what in report.wrong if not (form.dies and what.startswith(DIED))]
    return str(report) if wrong else ""


def _format(read: object, **options: object) -> Format:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "file").write_text("as it should be")

    return Format("made up", make, "file", lambda content, random: random.randbytes(9), read, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise ValueError('it')", "ValueError at"),
        ("raise CounterpoiseError('NoneType is not what it should be')", "Python's words"),
        ("open('/etc/hostname').close()", "opened /etc/hostname"),
        ("open('../outside.txt').close()", "opened .*outside.txt"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import canary", "imported canary|code of the folder"),
        ("import sys; bytearray(2**31)", "MemoryError"),
        ("raise SystemExit(2)", "SystemExit"),
    ],
)
def test_the_watch_sees_what_should_not_be(what: str, said: str, tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if (folder / "file").read_bytes() != b"as it should be":
            exec(what, {"CounterpoiseError": CounterpoiseError})

    report = campaign(_format(read), tmp_path / "good", range(1))
    assert len(report.wrong) == 1
    with pytest.raises(AssertionError, match=said):
        assert not report.wrong, str(report)


def test_what_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import campaign as module

    monkeypatch.setattr(module, "SECONDS", 0.05)

    def read(folder: Path) -> None:
        while (folder / "file").read_bytes() != b"as it should be":
            with contextlib.suppress(Exception):  # which must not take the alarm for an error of the file
                sum(range(1000))

    assert "not done after" in campaign(_format(read), tmp_path / "good", range(1)).wrong[0][1]


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_the_rest_is_tried(tmp_path: Path, apart: Apart) -> None:
    from of_exports import EXPORTS

    form = next(form for form in EXPORTS if form.dies)
    if form.missing:
        pytest.skip(f"needs {form.missing}, which is not installed")
    report = apart.campaign(form, tmp_path / "good", [0, DEADLY, 1])
    assert (report.mutants, report.read + report.refused) == (3, 2)
    assert report.wrong == [(DEADLY, "the process died of signal 6")]


def test_mutants_are_the_same_for_ever_and_mostly_other_files(tmp_path: Path) -> None:
    for number, form in enumerate(FORMATS):
        if form.name in ("run file", "PNG", "store index"):
            good, _ = prepared(form, tmp_path / str(number) / "good")
            made = [mutant(form, good, each) for each in range(20)]
            assert made == [mutant(form, good, each) for each in range(20)]
            assert len({*made} - {good}) >= 15


def test_the_page_tells_the_counts_that_are_kept() -> None:
    root = Path(__file__).parents[2]
    with (root / "benchmarks" / "results" / "fuzz.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["format"] for row in rows] == [form.name for form in FORMATS]
    mutants, read, refused, failures = (
        sum(int(row[column]) for row in rows) for column in ("mutants", "read", "refused", "failures")
    )
    said = (
        f"of {mutants:,} changed files of {len(rows)} kinds {read:,} were read, {refused:,} refused, and {failures} did"
    )
    assert said in (root / "docs" / "reliability.md").read_text(encoding="utf-8")
