"""Notebooks: read without running them, with nothing of the machine that ran them, and run from top to bottom."""

from __future__ import annotations

import re
import runpy
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST_PICTURE = 60_000
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.])(/(?:home|root|tmp|Users|work|usr|opt|var)/|[A-Z]:\\)|\.venv|site-packages")
TIME = re.compile(r"\d ?(ms|s|seconds|minutes)\b")

each = pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def tool() -> SimpleNamespace:
    pytest.importorskip("nbclient")
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "notebooks.py")))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """Streams by name, and the kinds of what is shown."""
    return [(one.output_type, *sorted(one.get("data", {})), one.get("name", "")) for one in cell.outputs]


def text(cell: Any) -> str:
    return "".join(one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in cell.outputs)


def test_there_are_five_and_a_page_that_lists_them() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert len(BOOKS) == 5
    assert sorted(re.findall(r"\(\.\./notebooks/(\S+)\)", page)) == [path.name for path in BOOKS]


@each
def test_it_begins_with_what_it_is_for_and_an_installation_where_that_is_needed(
    path: Path, tool: SimpleNamespace
) -> None:
    book = read(path)
    nbformat.validate(book)
    title, badge, purpose = book.cells[0].source.split("\n\n")[:3]
    assert title.startswith("# ")
    assert badge == tool.badge(path.name, tool.urls())
    assert purpose.startswith("After this notebook you")
    installation = code(book)[0].source
    assert 'importlib.util.find_spec("counterpoise") is None' in installation
    asked = re.search(r'%pip install --quiet (?:counterpoise|"counterpoise\[([a-z,]+)\]")$', installation)
    assert asked is not None
    assert set((asked[1] or "plots").split(",")) <= {"onnx", "plots"}


def test_the_badge_opens_the_file_where_the_repository_is_known(tool: SimpleNamespace) -> None:
    known = tool.badge("a.ipynb", {"Repository": "https://github.com/someone/something/"})
    assert known.endswith("(https://colab.research.google.com/github/someone/something/blob/main/notebooks/a.ipynb)")
    assert "Upload notebook" in tool.badge("a.ipynb", {"Paper": "https://arxiv.org/abs/2501.07804"})


@each
def test_it_was_run_in_order_and_nothing_failed_or_warned(path: Path) -> None:
    cells = code(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    assert sum(bool(cell.outputs) for cell in cells) >= 5


@each
def test_it_holds_nothing_of_the_machine(path: Path) -> None:
    book = read(path)
    assert book.metadata == {"kernelspec": book.metadata.kernelspec, "language_info": {"name": "python"}}
    assert book.metadata.kernelspec.name == "python3"
    for cell in book.cells:
        assert set(cell.metadata) <= {"tags"}
        assert not PATH_OF_A_MACHINE.search(cell.source), cell.source
    for cell in code(book):
        assert not PATH_OF_A_MACHINE.search(text(cell)), text(cell)
        assert not TIME.search(text(cell)), text(cell)
        for output in cell.outputs:
            for kind, content in output.get("data", {}).items():
                assert kind in ("text/plain", "image/png")
                assert kind == "text/plain" or len(b64decode(content)) < LARGEST_PICTURE, cell.source


@each
def test_its_links_lead_somewhere(path: Path) -> None:
    words = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)", words)
    assert targets
    for target, anchor in targets:
        there = path.parent / target
        assert there.exists(), target
        headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]


@pytest.mark.slow
@each
def test_it_runs_from_top_to_bottom_and_answers_as_it_stands(path: Path, tool: SimpleNamespace, tmp_path: Path) -> None:
    """What depends on no training (cells tagged `exact`) in the same words, all else in the same kinds of answers."""
    book, again = read(path), tool.run(path, tmp_path)
    for kept, made in zip(code(book), code(again), strict=True):
        assert kinds(made) == kinds(kept), (kept.source, text(made))
        if "exact" in kept.metadata.get("tags", []):
            assert text(made) == text(kept), kept.source
    assert any("exact" in cell.metadata.get("tags", []) for cell in code(book))
