"""Risk against coverage, of answers as they are and beside a promise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterpoise
from counterpoise import tasks
from counterpoise.data.epochs import Batch
from counterpoise.models.network import VisionModel
from counterpoise.models.promise import Promise
from counterpoise.pages.report import charts
from counterpoise.pages.report.findings import risk
from counterpoise.pages.report.findings.base import STUDENT
from counterpoise.pages.report.findings.classification import Classification
from counterpoise.pages.report.findings.risk import POINTS, curve

Visit = Callable[..., Any]


def chart(page: Path) -> dict[str, Any]:
    """What the page's chart of risk against coverage is drawn from."""
    (text,) = re.findall(r'id="data-risk">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("count", [1, 7, POINTS, 333])
def test_a_curve_is_what_counting_gives(count: int) -> None:
    generator = np.random.default_rng(count)
    sure = generator.permutation(np.linspace(0.1, 0.9, count, dtype=np.float32))
    right = generator.random(count) < sure
    order = sorted(range(count), key=lambda index: -sure[index])
    risks = [100 * sum(not right[index] for index in order[:answered]) / answered for answered in range(1, count + 1)]
    found = curve(sure, right)
    assert found["aurc"] == pytest.approx(sum(risks) / count)
    assert len(found["points"]) == min(count, POINTS)
    for coverage, wrong in found["points"]:
        assert wrong == pytest.approx(risks[round(coverage * count / 100) - 1], abs=0.001)
    assert found["points"][-1] == (100, pytest.approx(100 * (~right).mean(), abs=0.001))


def test_pictures_that_are_equally_sure_count_alike_in_any_order() -> None:
    sure = np.array([1, 1, 1, 1, 0.5, 0.5], dtype=np.float32)
    right = np.array([True, False, True, False, False, False])
    found = curve(sure, right)
    assert [risk for _, risk in found["points"]] == [50, 50, 50, 50, 60, 66.667]
    assert curve(sure[::-1], right[::-1]) == found


def test_a_network_that_answers_probabilities_is_as_sure_as_predict_tells() -> None:
    images = torch.randint(256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.Softmax(1))
    network = VisionModel(net, name="soft", num_classes=3, classes=tuple("abc"), task="classification").eval()
    gathering = Classification("abc", {STUDENT: network}, None)
    with torch.inference_mode():
        gathering.update(Batch(images, torch.zeros(5).long(), torch.arange(5), 5), {STUDENT: network(images)})
    told = tasks.get("classification").predict(network, [image.permute(1, 2, 0).numpy() for image in images])
    assert torch.cat(gathering.parts[f"{STUDENT} confidence"]).tolist() == pytest.approx(
        [answer["probability"] for answer in told]
    )


@pytest.fixture(scope="session")
def careful(digit_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose student keeps a promise, and its page."""
    import shutil

    run = Path(shutil.copytree(digit_runs / "balance-1", tmp_path_factory.mktemp("careful") / "run"))
    counterpoise.promise(run, risk=0.75)
    return run, counterpoise.report(run)


def test_a_page_tells_of_a_promise_what_evaluate_tells(careful: tuple[Path, Path]) -> None:
    run, page = careful
    told, found = counterpoise.evaluate(run), chart(page)
    promise = found["promise"]
    assert promise["answered"] == pytest.approx(told["answered"])
    assert promise["wrong"] == pytest.approx(told["wrong_of_answered"])
    assert (promise["risk"], promise["confidence"]) == (75, 95)
    assert promise["wrong"] < promise["bound"] <= 75
    assert [one["name"] for one in found["series"]] == ["Student", "Teacher"]
    student = found["series"][0]["points"]
    assert student[-1][1] == pytest.approx(100 - told["top1"], abs=0.001)
    before, after = (
        max(x for x, _ in student if x <= promise["answered"]),
        min(x for x, _ in student if x >= promise["answered"]),
    )
    around = [y for x, y in student if x in (before, after)]
    assert min(around) - 1 <= promise["wrong"] <= max(around) + 1
    text = page.read_text(encoding="utf-8")
    assert re.search(
        r"Dot: at its threshold [\d.]+% of these pictures, which chose it, are answered, [\d.]+% of them", text
    )
    assert "Before the temperature" in text


@pytest.mark.parametrize("groups", [None, 40])
def test_a_promise_over_groups_is_said_to_be_one(groups: int | None) -> None:
    promised = Promise(
        risk=0.1, confidence=0.95, coverage=0.9, temperature=1.0, threshold=0.5, answered=1.0, wrong=0.05, bound=0.09,
        least=0.1, set_size=1.0, groups=groups, pictures=400, data="data",
    )  # fmt: skip
    sure, right = np.linspace(0.5, 1, 400, dtype=np.float32), np.arange(400) % 20 > 0
    found = {**risk.curve(sure, right), "promise": risk.kept(sure, right, promised)}
    says = charts.risk([("Student", "student", found)], False).says
    assert ("counts groups of pictures" in says) == (groups is not None)


def test_without_a_promise_there_are_the_curves_alone(digit_page: Path, scene_page: Path) -> None:
    found = chart(digit_page)
    assert found["promise"] is None
    assert all(len(one["points"]) <= POINTS for one in found["series"])
    text = digit_page.read_text(encoding="utf-8")
    assert "Mean over all shares (AURC): Balance " in text
    assert "Dashed: the promise" not in text
    assert 'data-chart="risk"' not in scene_page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_the_promise_is_marked_where_it_stands(
    visit: Visit, careful: tuple[Path, Path], width: int, scheme: str
) -> None:
    seen = visit(careful[1], width=width, color_scheme=scheme)
    drawn = seen.page.locator("[data-chart=risk] svg")
    assert drawn.get_attribute("role") == "img"
    assert drawn.get_attribute("aria-label").startswith("Risk against coverage. The surest answers are given first.")
    frame, label = drawn.bounding_box(), drawn.get_by_text("promised: at most 75%").bounding_box()
    assert frame["x"] <= label["x"]
    assert label["x"] + label["width"] <= frame["x"] + frame["width"]
    dot = drawn.locator("circle").bounding_box()
    promise = chart(careful[1])["promise"]
    place = frame["x"] + 46 + (frame["width"] - 60) * promise["answered"] / 100
    assert dot["x"] + dot["width"] / 2 == pytest.approx(place, abs=1.5)
    assert dot["y"] > label["y"]
    table = seen.page.locator("figure:has([data-chart=risk]) details table")
    assert table.locator("thead th").all_text_contents() == ["answered %", "Student, wrong %", "Teacher, wrong %"]
    assert table.locator("tbody tr").count() == 10
    assert seen.errors == []
