"""The whole way from names of classes and photos without labels to a page in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from counterpoise.deploy.site import site
from counterpoise.system.server import Server, from_folder

Run = Callable[..., tuple[int, str, str]]
NAMES = ("cat", "small dog", "polar bear")
AGREES = "scores say how often the student answers as its teacher does, not how often it is right"


@pytest.fixture
def words(tmp_path: Path, word_model: Callable[[str], Path]) -> list[str]:
    """Flags of a run on photos of one color each, whose teacher knows nothing but names; files beside it."""
    (tmp_path / "classes.yaml").write_text(json.dumps(NAMES))
    (tmp_path / "photos").mkdir()
    colors = np.random.default_rng(0).integers(0, 256, (24, 3))
    for number, color in enumerate(colors):
        Image.new("RGB", (20 + number % 3, 18), tuple(color.tolist())).save(tmp_path / "photos" / f"{number:02d}.png")
    flags = {
        "data.path": "photos",
        "data.size": "16",
        "data.workers": "0",
        "teacher.model": f"hf/{word_model('siglip')}",
        "teacher.prompts": "classes.yaml",
        "student.model": "digits/cnn_4_8",
        "student.input_size": "16",
        "objective.balance.weight": "1",
        "train.epochs": "2",
        "train.batch_size": "8",
        "train.device": "cpu",
        "train.precision": "fp32",
    }
    return [word for key, value in flags.items() for word in (f"--{key}", value)]


def done(run: Run, *arguments: str) -> str:
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "%|" not in err  # bars of other programs
    return out


def way(run: Run, words: list[str], folder: Path) -> None:
    """Recorded, distilled from the store, evaluated, watched and reported."""
    done(run, "record", *words, "--views", "epochs", "--out", "store", "--quiet")
    assert "agreement_top1" in done(run, "distill", *words, "--teacher.store", "store", "--out", "run")
    assert "agreement with the teacher, which is no accuracy" in (folder / "run/data.json").read_text()
    summary = json.loads((folder / "run/summary.json").read_text())
    described = json.loads((folder / "run/student/student.json").read_text())
    assert described["classes"] == list(NAMES)
    for scores in (summary["last"], summary["best"], described["metrics"]["last"]):
        assert set(scores) == {"agreement_top1", "agreement_loss", "epoch"}
    report = json.loads(done(run, "evaluate", "run", "--json"))
    assert report["agreement_top1"] == pytest.approx(summary["last"]["agreement_top1"])
    assert "top1" not in report
    assert AGREES in report["notes"][0]
    assert AGREES in " ".join(done(run, "watch", "run", "--terminal").split())
    assert AGREES in (folder / "run/student/README.md").read_text()
    done(run, "report", "run", "--out", "report.html", "--images", "2")
    page = (folder / "report.html").read_text()
    assert "agreement with the teacher (top-1)" in page
    assert "accuracy" not in page[page.index("<body") : page.index("<script>")]


def test_names_and_photos_without_labels_become_a_student_whose_pages_speak_of_agreement(
    run: Run, words: list[str], tmp_path: Path
) -> None:
    way(run, words, tmp_path)
    (tmp_path / "classes.yaml").write_text(json.dumps([*NAMES[:2], "bear"]))
    code, _, err = run("distill", *words, "--teacher.store", "store", "--out", "other")
    assert code == 2
    assert "prompts of the teacher: 15 sentences for 3 classes" in err


@pytest.mark.slow
def test_names_and_photos_without_labels_become_a_page_that_answers(
    run: Run, words: list[str], tmp_path: Path, visit: Callable[..., Any]
) -> None:
    way(run, words, tmp_path)
    done(run, "try", "run", "--out", "site", "--evaluation_pictures", "2")
    with Server(from_folder(tmp_path / "site", {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        seen = visit(server.address)
        seen.page.wait_for_selector("body[data-ready]", timeout=60_000)
        assert "% agreement with its teacher (top-1) on its evaluation set" in seen.page.inner_text("body")
        seen.page.locator("#samples button").first.click()
        seen.page.wait_for_selector("body[data-answered]", timeout=30_000)
        answers = seen.page.locator(".ranks li:first-child .name").all_inner_texts()
        assert answers
        assert set(answers) <= set(NAMES)
        assert seen.errors == []
        server.shutdown()
