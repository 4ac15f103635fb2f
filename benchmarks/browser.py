"""How long students take in a browser: in Chromium on this machine, float and 8 bits, and what they weigh.

Weights are random, which changes no time. The page of `counterpoise try` measures: WebAssembly, on the CPU.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Page, sync_playwright

import harness
from counterpoise import tasks
from counterpoise.deploy.base import Calibration
from counterpoise.deploy.export import export
from counterpoise.deploy.site import samples, site
from counterpoise.engine.student import save_student
from counterpoise.models import catalog, folder
from counterpoise.system.server import Server, from_folder

NETWORKS = {"cifar/resnet8x4": 100, "timm/mobilenetv3_small_100": 1000}


def make(name: str, classes: int, place: Path) -> tuple[Path, dict[str, int]]:
    """The site of a network with random weights, and the bytes of its exports."""
    torch.manual_seed(0)
    model = catalog.build(name, num_classes=classes).eval()
    for module in model.modules():  # statistics of a network that has seen pictures
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    size = model.input_size or 224
    pixels = torch.randint(0, 256, (32, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        model.train()(pixels)
    model.eval()
    save_student(model, place / "student", classes=[f"class {i}" for i in range(classes)], metrics={}, provenance={})
    files = {}
    for precision in ("float32", "int8"):
        out = place / precision
        calibration = Calibration(pixels) if precision == "int8" else None
        export(place / "student", to="onnx", precision=precision, batch=1, out=out, calibration=calibration)
        files[precision] = out / "model.onnx"
    description, _ = folder.read(place / "student")
    task = tasks.get(description.task)
    site.write(place / "site", description, task, name, (size, size), files, samples.drawn(1), "")
    return place / "site", {precision: file.stat().st_size for precision, file in files.items()}


def times(page: Page) -> list[float]:
    """Median milliseconds of each export, as the page measures them for two seconds."""
    page.click("#measure")
    page.wait_for_selector("#measure:enabled", timeout=120_000)
    return [float(value) for value in page.evaluate("document.body.dataset.times.split(' ')")]


def main() -> int:
    """Run it."""
    arguments = harness.arguments(__doc__ or "")
    rounds = 3 if arguments.quick else 9
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("needs Chromium on PATH (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        pages, sizes, servers = {}, {}, []
        for name, classes in NETWORKS.items():
            place, sizes[name] = make(name, classes, Path(temporary) / name.replace("/", "-"))
            server = Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY}))
            server.start()
            servers.append(server)
            page = pages[name] = browser.new_page()
            page.goto(server.address)
            page.wait_for_selector("body[data-ready]", timeout=120_000)
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for name, page in pages.items():
                for precision, value in zip(sizes[name], times(page), strict=True):
                    found.setdefault((name, precision), []).append(value)
        for (name, precision), values in found.items():
            cases.append(
                {
                    "network": name,
                    "precision": precision,
                    "milliseconds": statistics.median(values),
                    "fastest_milliseconds": min(values),
                    "bytes": sizes[name][precision],
                    "runs_on": str(pages[name].locator("#processor-note").inner_text()),
                    "browser": f"Chromium {browser.version}",
                    "rounds": rounds,
                }
            )
        browser.close()
        for server in servers:
            server.shutdown()
            server.server_close()
    return harness.report("browser", cases, [], arguments.json, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
