"""Pages in a real browser."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise.data.epochs import Batch
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.models import catalog

Visit = Callable[..., Any]
Shown = Callable[[Path], Any]
PAGES = ["digit_page", "scene_page"]


@pytest.fixture
def page_file(request: pytest.FixtureRequest) -> Path:
    """The page that a test asks for by the name of its fixture."""
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("page_file", PAGES, indirect=True)
def test_a_page_is_whole_at_any_width(shown: Shown, page_file: Path) -> None:
    seen = shown(page_file)
    page = seen.page
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media="screen", color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
        marks = page.eval_on_selector_all(
            "[data-chart]",
            "all => all.map(one => one.querySelectorAll('svg :is(circle, path, rect, line)').length)",
        )
        assert len(marks) >= 11
        assert min(marks) > 3
    assert page.eval_on_selector_all("img", "all => all.filter(one => one.complete && !one.naturalWidth).length") == 0
    assert seen.errors == []


def test_charts_follow_the_width_of_the_window(shown: Shown, digit_page: Path) -> None:
    seen = shown(digit_page)
    width = "document.querySelector('[data-chart=standing] svg').getBoundingClientRect().width"
    seen.page.emulate_media(media="screen")
    seen.page.set_viewport_size({"width": 1280, "height": 900})
    seen.page.wait_for_function(f"{width} > 900")
    seen.page.set_viewport_size({"width": 500, "height": 800})
    seen.page.wait_for_function(f"{width} < 470")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 500
    assert seen.errors == []


def test_tabs_are_worked_by_keys(shown: Shown, digit_page: Path) -> None:
    page = shown(digit_page).page
    page.emulate_media(media="screen")
    tabs = page.locator("[data-tabs]").first
    count = tabs.locator("[role=tab]").count()
    shown = "all => all.map(one => !one.hidden)"
    tabs.locator("[role=tab]").first.focus()
    for place in [*range(1, count), 0]:
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
        panels = tabs.locator("[role=tabpanel]").evaluate_all(shown)
        assert panels == [index == place for index in range(count)]
    page.keyboard.press("End")
    assert tabs.locator("[role=tabpanel]").evaluate_all(shown)[-1]
    page.emulate_media(media="print")
    assert all(panel.is_visible() for panel in tabs.locator("[role=tabpanel]").all())


def test_the_slider_is_worked_by_keys(shown: Shown, scene_page: Path) -> None:
    seen = shown(scene_page)
    scene = seen.page.locator("[data-scene]").first
    slider = scene.locator("input[type=range]")
    clip = "one => one.style.clipPath"
    right = scene.locator(".stage img").nth(2)
    assert right.evaluate(clip) == "inset(0px 0px 0px 50%)"
    slider.focus()
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    assert right.evaluate(clip) == "inset(0px 0px 0px 53%)"
    seen.page.keyboard.press("Home")
    assert right.evaluate(clip) == "inset(0px 0px 0px 0%)"
    source = scene.locator("[data-layer=difference]").get_attribute("src")
    scene.locator("select").nth(1).select_option("difference")
    assert right.get_attribute("src") == source
    assert seen.errors == []


def test_tables_are_sorted_by_a_button(shown: Shown, digit_page: Path) -> None:
    page = shown(digit_page).page
    page.emulate_media(media="screen")
    table = page.locator("[data-sortable]").first
    button = table.locator("thead button").nth(1)
    column = "rows => rows.map(row => Number(row.cells[1].textContent.replace(',', '')))"
    for turn in range(2):
        button.focus()
        page.keyboard.press("Enter")
        numbers = table.locator("tbody tr").evaluate_all(column)
        assert numbers == sorted(numbers, reverse=bool(turn))
        assert len(numbers) == 10


def test_colors_follow_the_system_and_the_button(visit: Visit, digit_page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    mark = "getComputedStyle(document.querySelector('[data-chart=standing] circle')).fill"
    page = visit(digit_page, color_scheme="dark").page
    assert page.evaluate(ground) == "rgb(16, 18, 22)"
    by_system = page.evaluate(mark)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="light")
    assert page.evaluate(ground) == "rgb(250, 250, 248)"
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(ground) == "rgb(16, 18, 22)"
    assert page.evaluate(mark) == by_system


@pytest.mark.parametrize(
    ("page_file", "scheme"), [("digit_page", "light"), ("scene_page", "dark")], indirect=["page_file"]
)
def test_nothing_serious_bars_anyone(visit: Visit, page_file: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Without scripts of its own a page under this policy could not be examined.
    page = visit(page_file, color_scheme=scheme, bypass_csp=True).page
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    found = Axe().run(page).response
    bad = [
        (one["id"], one["help"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert bad == []
    assert len(found["passes"]) > 20


def test_without_scripts_everything_but_charts_is_there(visit: Visit, digit_page: Path) -> None:
    page = visit(digit_page, java_script_enabled=False).page
    assert all(panel.is_visible() for panel in page.locator("[role=tabpanel]").all())
    assert page.locator("[data-chart]").count() == page.locator("figure.chart details table").count()


EVIL = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
NAMES = [EVIL, "\"'><svg onload=alert(1)>", "\u202eesrever \u2067\u2066", "🦊 {{ 7 * 7 }} &lt;b&gt;", "long" * 2500, ""]


def test_hostile_classes_and_files_do_nothing(visit: Visit, digit_runs: Path, tmp_path: Path) -> None:
    from counterpoise.pages.report.findings.classification import Classification
    from counterpoise.pages.report.page import render

    count = 8 * len(NAMES)
    labels = torch.arange(count) % len(NAMES)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    images = ArraySet(pixels, labels, NAMES, [NAMES[index % len(NAMES)] for index in range(count)])
    network = catalog.build("digits/cnn_4_8", num_classes=len(NAMES))
    models = {"student": network, "teacher": network}
    gathering = Classification(NAMES, models, images)
    order = torch.arange(count)
    logits = {
        name: torch.eye(len(NAMES))[(labels + order // step % 2) % len(NAMES)]
        for name, step in (("student", 7), ("teacher", 11))
    }
    gathering.update(Batch(pixels, labels, torch.arange(count), count), logits)
    page = render([digit_runs / "balance-1"], findings=gathering.result())
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert len(page) < 600_000
    seen = visit(tmp_path / "page.html", width=390)
    assert "taken" not in seen.page.title()
    assert seen.errors == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.page.locator("[data-chart=classes] svg circle").count() > len(NAMES)
    assert seen.page.get_by_text("🦊 {{ 7 * 7 }} &lt;b&gt;").count() > 0
    assert seen.page.locator(".confusions li").count() == len(NAMES)


def test_hostile_names_do_nothing(visit: Visit, digit_runs: Path, tmp_path: Path) -> None:
    from counterpoise.pages.report.page import render, subject
    from counterpoise.pages.report.reading import find

    *_, run, _ = subject(find(digit_runs))
    evil = EVIL
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("run.yaml", "metrics.jsonl", "summary.json"):
        (copy / name).write_bytes((run.folder / name).read_bytes())
    line = {"kind": "step", "terms": {evil: 1.0}, "moving": {evil: 1.0}}
    with (copy / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({**line, "step": 100 + step}) + "\n" for step in range(3))
    (tmp_path / "page.html").write_text(render([copy], command=evil), encoding="utf-8")
    seen = visit(tmp_path / "page.html")
    assert "taken" not in seen.page.title()
    assert seen.errors == []
    assert seen.page.locator("[data-chart=moving] svg").count() == 1


def test_names_of_points_that_lie_close_do_not_overlap(visit: Visit, digit_page: Path, tmp_path: Path) -> None:
    text = digit_page.read_text(encoding="utf-8")
    points = [{"name": f"student {i}", "x": 10 + i / 50, "y": 80 + i / 40, "color": "ink"} for i in range(20)]
    far = {"name": "far away", "x": 30, "y": 60, "color": "ink"}
    data = json.dumps({"points": [far, *points], "across": "ms", "up": "%"})
    closer, count = re.subn(r'(id="data-latency">).*?(</script>)', rf"\g<1>{data}\g<2>", text)
    assert count == 1
    (tmp_path / "page.html").write_text(closer, encoding="utf-8")
    boxes = "all => all.map(one => one.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    seen = visit(tmp_path / "page.html")
    found = seen.page.eval_on_selector_all("[data-chart=latency] .names text", boxes)
    assert 2 <= len(found) < 21  # the far one, and as many of the others as there is room for
    assert not any(overlap(one, other) for one, other in itertools.combinations(found, 2))
    assert seen.errors == []


def overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
