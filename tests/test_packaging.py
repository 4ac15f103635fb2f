"""What is said of the package in several places is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def test_the_lowest_that_is_tested_is_the_lowest_that_is_asked_for() -> None:
    asked = dict(re.fullmatch(r"([\w.-]+)>=([\d.]+)", line).groups() for line in PROJECT["dependencies"])  # type: ignore[union-attr]
    lines = (ROOT / "constraints" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: _numbers(version) for name, version in tested.items()} == {
        name: _numbers(version) for name, version in asked.items()
    }


def test_version_of_the_package_is_cited_and_has_its_changes() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    versions = re.findall(r"^## \[(\d[\d.]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert citation["version"] == versions[0] == PROJECT["version"]


def test_workflows_try_every_python_that_the_package_names() -> None:
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert tests["jobs"]["suite"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_table_of_extras_has_all_that_a_user_may_ask_for() -> None:
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    table = page[page.index("| to do this |") :].split("\n\n")[0].splitlines()
    rows = {name for line in table for name in re.findall(r"`(\w+)`", line.rpartition(" | ")[2])}
    asked = PROJECT["optional-dependencies"]
    assert rows == asked.keys() - {"dev"}
    (everything,) = asked["all"]
    missing = rows - {"all"} - set(re.findall(r"[\w]+", everything.partition("[")[2]))
    assert set(re.findall(r"`(\w+)`", table[-1].rpartition(" | ")[0])) == missing


def test_pages_and_messages_install_extras_that_exist() -> None:
    places = [
        ROOT / "README.md",
        ROOT / "Dockerfile",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    places += [ROOT / "pyproject.toml", *(ROOT / "src").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]
    named = {
        (extra.strip(), place.name)
        for place in places
        for extras in re.findall(r"counterpoise\[([a-z_0-9, ]+)\]", place.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert len(named) > 20
    assert not [(extra, place) for extra, place in named if extra not in PROJECT["optional-dependencies"]]
