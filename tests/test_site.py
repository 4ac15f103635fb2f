"""The documentation as a site: its reference has all there is, and its pages can be read by everybody."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise.config import Run, keys
from counterpoise.objectives.base import entries

ROOT = Path(__file__).resolve().parents[1]


class Loader(yaml.SafeLoader):
    """Of mkdocs.yml, whose tags name Python's own things."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="session")
def reference() -> dict[str, str]:
    """The generated pages, by name."""
    made: dict[str, str] = runpy.run_path(str(ROOT / "tools" / "site" / "reference.py"))["pages"]()
    return made


def pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages(value)


def test_the_reference_has_each_key_command_objective_and_public_name(reference: dict[str, str]) -> None:
    dotted = keys.dotted(Run().model_dump(mode="json"))
    told = set(re.findall(r"^\| `([\w.]+)`", reference["run-file"], re.MULTILINE))
    assert all(any(key == one or key.startswith(f"{one}.") for one in told) for key in dotted)
    assert {"teacher.checkpoint", "train.optimizer.learning_rate", "data.views.randaugment.magnitude"} <= told
    assert set(entries()) == set(re.findall(r"^## `(\w+)`$", reference["objectives"], re.MULTILINE))
    assert "`--train.epochs" not in re.sub(r"such as `--train.epochs 30`", "", reference["commands"])
    for command in ("distill", "export", "promise", "store merge"):
        assert f" counterpoise {command}\n" in reference["commands"]
    face = ast.parse((ROOT / "src" / "counterpoise" / "__init__.pyi").read_text(encoding="utf-8"))
    names = {alias.name for node in face.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(re.findall(r"^::: [\w.]+?(\w+)$", reference["python"], re.MULTILINE))


def test_every_page_is_in_the_navigation_once(reference: dict[str, str]) -> None:
    given = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob("*.md")]
    assert sorted(pages(given["nav"])) == sorted([*there, *(f"reference/{name}.md" for name in reference)])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    out = tmp_path_factory.mktemp("site") / "docs"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_pages_are_read_from_disk_by_everybody_and_searched(site: Path, chromium: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    shown = [*sorted(site.glob("*.html")), *sorted((site / "reference").glob("*.html"))]
    assert len(shown) > 35
    for scheme in ("light", "dark"):
        page = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme).new_page()
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        for path in shown:
            if path.name == "404.html":  # of servers: from disk it lacks its scripts
                continue
            page.goto(path.as_uri())
            page.wait_for_selector("article h1")
            page.wait_for_timeout(150)  # the theme's script names its dialogs
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            found = Axe().run(page).response["violations"]
            bad = {one["id"]: one["nodes"][0]["html"] for one in found if one["impact"] in ("serious", "critical")}
            assert not bad, (scheme, path, bad)
        assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto((site / "index.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("reverse temperature")
    page.wait_for_selector(".md-search-result__link")
    assert "Objectives" in page.inner_text(".md-search-result__list")


@pytest.mark.slow
def test_formulas_are_formulas(site: Path) -> None:
    text = (site / "reference" / "objectives.html").read_text(encoding="utf-8")
    assert "math::" not in text
    assert text.count("<math") >= 20
