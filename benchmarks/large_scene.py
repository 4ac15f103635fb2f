"""What a picture of 100 megapixels takes in `predict`, `evaluate`, the run.py beside an export and the page of
`counterpoise try`, through a window of 512.

Each in a process of its own, one after the other: the peak of its memory (VmHWM; ru_maxrss would know that of the
process that started it, too), imports and the decoded picture included, and seconds from its start to the mask on disk.
`decode` is the picture alone, read by Pillow and copied nowhere. The student is a U-Net of 1,500 parameters at full
resolution, three classes, random weights; one thread. `evaluate` is given the mask of `predict` for the truth. Of the
page, in Chromium where it is there, the memory is that of the process that has it, the browser's own share included;
its mask has 4 megapixels, and is compared with the same pixels of that of `predict`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import counterpoise
import harness
from counterpoise.engine.student import save_student
from counterpoise.models import catalog
from counterpoise.models.network import SceneView
from counterpoise.system.server import Server, from_folder

EDGE, QUICK, WINDOW, MOST_MEGABYTES = 10_000, 2_000, 512, 1_000
CLASSES = ("ground", "vessel", "disc")
PEAK = """
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if "VmHWM" in line) * 1024 / 1e6)
"""
DECODE = """
import sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
Image.open(sys.argv[1]).load()
"""
PREDICT = """
import sys
import counterpoise
counterpoise.predict([sys.argv[1]], student=sys.argv[2], out=sys.argv[3])
"""
EVALUATE = """
import sys
import counterpoise
report = counterpoise.evaluate(sys.argv[1], {"data": {"path": sys.argv[2]}})
print(report["pixel_accuracy"])
"""
PAINTED = """() => {
    const canvas = document.querySelector(".column canvas:last-child");
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    for (let at = 0; at < data.length; at += 4) text += String.fromCharCode(data[at], data[at + 1], data[at + 2]);
    return [height, width, btoa(text)];
}"""
RUNNER = """
import runpy, sys
script = sys.argv.pop()
sys.argv[:1] = [script]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code
"""


def student(out: Path) -> Path:
    """A student folder with a window."""
    model = catalog.build("digits/unet_4_8", num_classes=len(CLASSES), classes=CLASSES)
    model.task, model.scenes = "segmentation", SceneView(window=(WINDOW, WINDOW))
    save_student(model, out, classes=CLASSES, metrics={}, provenance={})
    return out


def pictures(folder: Path, edge: int) -> dict[str, Path]:
    """Soft noise, as PNG and as JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    tile = np.asarray(Image.fromarray(noise).resize((1000, 1000), Image.Resampling.BILINEAR))
    whole = Image.fromarray(np.tile(tile, (edge // 1000, edge // 1000, 1)))
    paths = {kind: folder / f"picture.{kind}" for kind in ("png", "jpg")}
    whole.save(paths["png"], compress_level=1)
    whole.save(paths["jpg"], quality=90)
    return paths


def measured(code: str, *arguments: Path | str) -> dict[str, float]:
    """Peak of memory and seconds of a process."""
    started = time.perf_counter()
    command = [sys.executable, "-c", f"{code}\n{PEAK}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    *said, peak = done.stdout.split()
    scores = {"same_percent": float(said[-1])} if code is EVALUATE else {}
    return {"peak_megabytes": float(peak), "seconds": seconds, **scores}


def scenes(folder: Path, picture: Path, mask: Path) -> Path:
    """A data set whose validation scene is the picture with this mask, and its training scene a corner of it."""
    for part in ("train", "val"):
        for kind, path in (("images", picture), ("masks", mask)):
            (folder / kind / part).mkdir(parents=True)
            if part == "val":
                os.link(path, folder / kind / part / f"picture{path.suffix}")
            else:
                with Image.open(path) as whole:
                    whole.crop((0, 0, 500, 500)).save(folder / kind / part / "picture.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


def largest_process() -> float:
    """The peak so far, in megabytes, of that of the processes of Chromium below this one that holds most."""
    parents, peaks = {}, {}
    for place in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in place.read_text().splitlines() if ":" in line)
        except OSError:  # ended meanwhile
            continue
        number = int(place.parent.name)
        parents[number] = int(lines["PPid"])
        if "chrom" in lines["Name"] and "VmHWM" in lines:
            peaks[number] = int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    mine = {os.getpid()}
    for _ in range(8):
        mine |= {number for number, parent in parents.items() if parent in mine}
    return max((peak for number, peak in peaks.items() if number in mine), default=0.0)


def on_page(place: Path, picture: Path, mask: Path) -> dict[str, float]:
    """Peak of memory and seconds from the file to the painted mask, on the page in a Chromium of its own."""
    from playwright.sync_api import sync_playwright

    colors = json.loads((place / "site.json").read_text())["colors"]
    with sync_playwright() as playwright, Server(from_folder(place)) as server:
        server.start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        started, peak, done = time.perf_counter(), 0.0, False
        page.set_input_files("#file", picture)
        while not done:
            peak = max(peak, largest_process())  # Chromium begins its peaks anew now and then
            done, message = page.evaluate(
                "[Boolean(document.body.dataset.answered), document.getElementById('message').textContent]"
            )
            assert not message, message
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        height, width, text = page.evaluate(PAINTED)
        browser.close()
        server.shutdown()
    painted = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 3)
    with Image.open(mask) as whole:
        wanted = np.array(colors, np.uint8)[np.asarray(whole)]
    step = wanted.shape[0] // height
    same = (painted == wanted[step // 2 :: step, step // 2 :: step]).all(2).mean()
    return {"peak_megabytes": peak, "seconds": seconds, "same_percent": 100 * float(same)}


def main() -> int:
    """Measure and report."""
    options = harness.arguments(__doc__ or "", threads=1)
    edge = QUICK if options.quick else EDGE
    browser = shutil.which("chromium") is not None
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mine = student(folder / "student")
        counterpoise.export(mine, to="onnx", out=folder / "export")
        if browser:
            counterpoise.try_(mine, out=str(folder / "site"))
        for kind, path in pictures(folder, edge).items():
            masks = folder / "masks" / kind
            sides = {
                "decode": measured(DECODE, path),
                "predict": measured(PREDICT, path, mine, masks),
                "run.py": measured(RUNNER, path, "--out", masks / "runner.png", folder / "export" / "run.py"),
            }
            mask = masks / "picture-mask.png"
            sides["evaluate"] = measured(EVALUATE, mine, scenes(folder / "scenes" / kind, path, mask))
            if browser:
                sides["page"] = on_page(folder / "site", path, mask)
            with Image.open(mask) as one, Image.open(masks / "runner.png") as other:
                same = float((np.asarray(one) == np.asarray(other)).mean())
            cases += [
                {"case": f"{side} {kind}", "megapixels": edge * edge / 1e6, "same_percent": 100 * same, **found}
                for side, found in sides.items()
            ]
    targets = [
        {"name": f"peak_megabytes of {case['case']}", "value": case["peak_megabytes"], "at_most": MOST_MEGABYTES}
        for case in cases
        if not case["case"].startswith("page")  # of which the browser itself is a third
    ]
    targets.append({"name": "same_percent", "value": min(case["same_percent"] for case in cases), "at_least": 99.5})
    return harness.report("large_scene", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
