"""How large the page of 1,000 classes and 50,000 evaluation images is, and how long Chromium takes to open it.

The run is one of digits; the answers to 50,000 pictures of noise are drawn, as a student's and a teacher's would be.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import counterpoise
import harness
from counterpoise.data.epochs import Batch
from counterpoise.data.sources.base import ImageSet
from counterpoise.models import catalog
from counterpoise.objectives.gauge import Gauge
from counterpoise.pages.report.findings.base import STUDENT, TEACHER
from counterpoise.pages.report.findings.classification import Classification
from counterpoise.pages.report.page import render

CLASSES, IMAGES, PART = 1000, 50_000, 1000
LARGEST_MB, LONGEST_SECONDS = 8.0, 2.0


class Noise(ImageSet):
    """Pictures of 224 x 224 pixels, drawn when they are read."""

    def name(self, index: int) -> str:
        return f"{index:05d}.jpg"

    def read(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8, generator=generator)

    def extent(self, index: int) -> tuple[int, int]:
        return 224, 224

    def identity(self, index: int) -> bytes:
        return str(index).encode()


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        page.write_text(render([run(Path(folder, "run"))], findings=findings()), encoding="utf-8")
        size = page.stat().st_size / 1e6
        seconds = opened(page, 3 if options.quick else 9)
    cases = [
        {"case": "size", "megabytes": size},
        {"case": "opening", "median_seconds": statistics.median(seconds), "slowest_seconds": max(seconds)},
    ]
    targets = [
        {"name": "megabytes of the page", "value": size, "at_most": LARGEST_MB},
        {"name": "seconds to open it", "value": statistics.median(seconds), "at_most": LONGEST_SECONDS},
    ]
    return harness.report("report", cases, targets, options.json, options.out)


def run(folder: Path) -> Path:
    """A run folder."""
    data = {"source": "digits", "options": {"train_size": 600}, "views": {"crop": "none", "flip": False}}
    train = {"epochs": 20, "log_every": 1, "device": "cpu"}
    counterpoise.train({"data": data, "student": {"model": "digits/cnn_4_8"}, "train": train, "out": folder})
    return folder


def findings() -> dict[str, Any]:
    """What a student and a teacher would have answered."""
    names = [f"class number {index} of a long list" for index in range(CLASSES)]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (IMAGES,), generator=generator)
    network = catalog.build("digits/cnn_4_8", num_classes=CLASSES)  # it is not asked
    models = {STUDENT: network, TEACHER: network}
    gathering, gauge = Classification(names, models, Noise(labels, names)), Gauge(CLASSES)
    for start in range(0, IMAGES, PART):
        target = labels[start : start + PART]
        logits = {}
        for name, height in ((STUDENT, 5.0), (TEACHER, 8.0)):
            logits[name] = torch.randn(PART, CLASSES, generator=generator) * 1.5
            logits[name][torch.arange(PART), target] += height
        gathering.update(Batch(torch.zeros(0), target, torch.arange(start, start + PART), PART), logits)
        gauge.update(logits[STUDENT], logits[TEACHER], target)
    bins = gauge.reliability()
    return {**gathering.result(), "gauges": {STUDENT: gauge.compute()}, "reliability": bins, "images": IMAGES}


def opened(page: Path, rounds: int) -> list[float]:
    """Seconds from asking for the page until all of it is drawn, in fresh contexts."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            tab.goto(page.resolve().as_uri())
            drawn = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
            seconds.append(tab.evaluate(drawn) / 1000)
            context.close()
        browser.close()
    return seconds[1:]  # the first one warms up


if __name__ == "__main__":
    sys.exit(main())
