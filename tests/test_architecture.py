"""docs/architecture.md is the plan that counts: its rooms are those of the code, and imports run downward only."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]


def test_the_rooms_of_the_page_are_those_of_the_code_in_the_order_of_its_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    package = ROOT / "src" / "counterpoise"
    assert sorted(named) == sorted(folder.parent.name for folder in package.glob("*/__init__.py"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (floors,) = (contract["layers"] for contract in settings["contracts"])
    rooms = [room for floor in floors for room in re.findall(r"\w+", floor)]
    assert rooms == [*named, "errors", "outputs", "decoding", "statistics", "bands", "reading"]


def test_imports_run_downward_only_between_rooms() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_files_name_one_another_in_a_circle() -> None:
    """Not for types alone, either."""
    graph = grimp.build_graph("counterpoise", exclude_type_checking_imports=False, cache_dir=None)
    circles = {
        frozenset((module, imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if graph.chain_exists(importer=imported, imported=module)
    }
    assert not circles
