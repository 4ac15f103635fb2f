"""The receipt of a run on its page."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import counterpoise
from counterpoise.pages.report.page import render

Copy = Callable[[str], Path]


@pytest.fixture
def run(copied: Copy) -> Path:
    """A run with a receipt."""
    folder = copied("balance-1")
    counterpoise.receipt(folder)
    return folder


def words(run: Path) -> str:
    """The page of a run as it reads."""
    return html.unescape(render([run]))


def test_a_page_has_the_paragraph_of_a_receipt_and_its_hash(run: Path) -> None:
    content = (run / "receipt.json").read_bytes()
    page = words(run)
    assert json.loads(content)["paragraph"] in page
    assert hashlib.sha256(content).hexdigest() in page
    (run / "receipt.json").unlink()
    page = words(run)
    assert "Its receipt" not in page
    assert "receipt" not in page.partition("missing from this page")[2].partition("</details>")[0]


def test_a_receipt_of_other_files_is_left_out_and_they_are_named(run: Path) -> None:
    with (run / "student" / "student.json").open("a") as file:
        file.write("\n")
    page = words(run)
    assert "receipt.json is left out: it states another student/student.json than there is." in page
    assert "Its receipt" not in page


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no receipt, or is damaged"),
        ("[]", "is no receipt, or is damaged"),
        ('{"receipt": 1, "files": 3}', "is no receipt, or is damaged"),
        ('{"receipt": 3}', "is a receipt of version 3, and this program knows 2"),
    ],
)
def test_what_is_no_receipt_is_said(run: Path, content: str, told: str) -> None:
    (run / "receipt.json").write_text(content)
    page = words(run)
    assert told in page
    assert "Its receipt" not in page


def test_a_receipt_reads_nothing_outside_its_run_and_is_no_code(run: Path, tmp_path: Path) -> None:
    stated = json.loads((run / "receipt.json").read_text())
    evil = {**stated, "paragraph": "<script>document.title = 'taken'</script>"}
    (run / "receipt.json").write_text(json.dumps(evil))
    page = render([run])
    assert "<script>document.title" not in page
    assert "&lt;script&gt;document.title" in page
    (run / "receipt.json").write_text(json.dumps({**stated, "files": {"../secret": "0"}}))
    assert "names '../secret', which does not lie in its folder" in words(run)
    (run / "receipt.json").rename(tmp_path / "elsewhere.json")
    (run / "receipt.json").symlink_to(tmp_path / "elsewhere.json")
    assert "is no receipt, or is damaged" in words(run)
