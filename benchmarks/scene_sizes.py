"""Masks of exports on 50 scenes of 20 sizes beside those of `predict`, through the run.py that an export carries.

A small U-Net is trained on drawn vessels (see `counterpoise demo vessels`); the scenes are windows of other drawings.
ONNX and OpenVINO take any size. ExecuTorch and LiteRT take one, and fit other scenes in: they are shown scenes of that
size first, then those of 20 sizes, which are resized for them and not for `predict`.

With --browser the page of `counterpoise try` is given the same files in Chromium, which paints them: a page whose file
takes any size, and one that slides a window.

    python benchmarks/scene_sizes.py --to onnx openvino executorch litert --browser --out FILE.csv
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import counterpoise
from counterpoise import tasks
from counterpoise.demos import drawn_vessels, vessels
from counterpoise.demos.drawn_vessels import EDGE, VOID
from counterpoise.deploy import base, environments
from counterpoise.deploy.site import site
from counterpoise.engine.student import save_student
from counterpoise.system.server import Server, from_folder
from harness import report

SCENES, SIZES = 50, 20
SAME, LOSS = 99.5, 0.1
FIXED = {"one": (96, 128), "val": (EDGE, EDGE), "small": (96, 128)}
WINDOW = (96, 64)
FLAGS = ["--no-sandbox", "--disable-gpu"]
PAINTED = """() => {
    const canvas = document.querySelector(".column canvas:last-child");
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    for (let at = 3; at < data.length; at += 4) text += String.fromCharCode(data[at] ? 1 : 0);
    return [height, width, btoa(text)];
}"""
"""The mask that is painted: the background is not."""
Masks = dict[str, NDArray[np.uint8]]


def draw(folder: Path) -> None:
    """Windows of drawn pictures: `val` of 20 sizes, `one` of a single size."""
    rng = np.random.default_rng(26)
    sizes = [(int(height), int(width)) for height, width in rng.integers(60, EDGE + 1, (SIZES, 2))]
    drawn_vessels.draw(folder / "drawn", seed=1)
    drawn_vessels.draw(folder / "more", seed=2)
    drawn_vessels.draw(folder / "still", seed=3)
    names = [path for part in ("drawn", "more", "still") for path in sorted((folder / part / "images").iterdir())]
    for number, path in enumerate(names[:SCENES]):
        place = rng.random(2)
        for half, (height, width) in (("val", sizes[number % SIZES]), ("one", (96, 128))):
            top, left = (int(share * (EDGE - side)) for share, side in zip(place, (height, width), strict=True))
            for kind in ("images", "masks"):
                whole = Image.open(path.parents[1] / kind / path.name)
                target = folder / half / kind / f"{number:02d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                whole.crop((left, top, left + width, top + height)).save(target)
        for half in ("val", "one"):
            (folder / half / "classes.txt").write_text(f"background 0\nvessel 1\nvoid {VOID}\n")


def masks_in(folder: Path) -> Masks:
    """The masks that a command wrote, by number of the scene."""
    return {path.name[:2]: np.asarray(Image.open(path)) for path in sorted(folder.glob("*-mask.png"))}


def miou(masks: Masks, truth: Path) -> float:
    """Of all pixels that are not void, in percent."""
    counts = np.zeros((2, 2))
    for name, mask in masks.items():
        true = np.asarray(Image.open(truth / f"{name}.png"))
        seen = true != VOID
        counts += np.bincount(2 * true[seen].astype(int) + mask[seen], minlength=4).reshape(2, 2)
    hit = counts.diagonal()
    return float(100 * (hit / (counts.sum(0) + counts.sum(1) - hit)).mean())


def run_by(to: str) -> str:
    """The Python that has the runtime."""
    return str(base.FORMATS.get(to).python)


def compared(run: Path, to: str, half: str, folder: Path) -> dict[str, Any]:
    """Masks of an export's run.py beside those of `predict`, on scenes of one folder."""
    exported, scenes = folder / f"{to}-{half}", folder / half
    fixed = {"any_size": True} if to in ("onnx", "openvino") else {"size": FIXED[half]}
    counterpoise.export(run, to=to, out=exported, min_same=None, batch=1, **fixed)
    out = folder / f"{to}-{half}-masks"
    command: list[str | Path] = [run_by(to), exported / "run.py", scenes / "images", "--out", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environments.outside())
    own = folder / f"{half}-masks"
    if not own.exists():
        counterpoise.predict([scenes / "images"], student=run, out=own, first=SCENES)
    takes = " x ".join(map(str, FIXED[half])) if "size" in fixed else "any size"
    return beside(masks_in(out), masks_in(own), scenes) | {"to": to, "takes": takes}


def beside(found: Masks, expected: Masks, scenes: Path) -> dict[str, Any]:
    """How alike they are, pixel by pixel and in what they score."""
    assert len(found) == len(expected) == SCENES
    pixels = sum(mask.size for mask in expected.values())
    same = sum(int((found[name] == mask).sum()) for name, mask in expected.items())
    scores = miou(expected, scenes / "masks"), miou(found, scenes / "masks")
    sizes = len({mask.shape for mask in expected.values()})
    return {
        "to": "",
        "takes": "",
        "sizes": sizes,
        "same_pixels": 100 * same / pixels,
        "miou_predict": scores[0],
        "miou_export": scores[1],
    }


def on_page(chromium: Browser, run: Path, folder: Path, window: tuple[int, int] | None) -> dict[str, Any]:
    """Masks of the page of `counterpoise try`, which is given 50 files, beside those of `predict`."""
    name = "page" if window is None else "page-window"
    student = run
    if window is not None:
        model = counterpoise.load_student(run)
        tasks.get(model.task).look(model, window)
        student = folder / f"{name}-student"
        save_student(model, student, classes=model.classes or (), metrics={}, provenance={})
    same = {} if window is not None else {"data": str(folder / "val")}
    counterpoise.try_(student, out=str(folder / name), **same)
    own, found = folder / f"{name}-own", {}
    counterpoise.predict([folder / "val" / "images"], student=student, out=own, first=SCENES)
    with Server(from_folder(folder / name, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        page = chromium.new_page()
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        for number, file in enumerate(sorted((folder / "val" / "images").iterdir()), 1):
            page.set_input_files("#file", file)
            page.wait_for_selector(f'body[data-answered="{number}"]', timeout=60_000)
            height, width, text = page.evaluate(PAINTED)
            found[file.stem] = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)
        page.close()
        server.shutdown()
    takes = "any size" if window is None else "a window of " + " x ".join(map(str, window))
    return beside(found, masks_in(own), folder / "val") | {"to": f"Chromium {chromium.version}", "takes": takes}


def main() -> int:
    """Train, export, compare; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", nargs="*", default=["onnx", "openvino", "executorch"])
    parser.add_argument("--browser", action="store_true", help="also the page of counterpoise try, in Chromium")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the cases to this CSV")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder)
        drawn_vessels.draw(folder / "train")
        data = {"data": {"path": str(folder / "train"), "val_fraction": 0.2}}
        values = counterpoise.config.merge(vessels.DEMO.student, data)
        run = folder / "run"
        counterpoise.train({**values, "objective": vessels.OBJECTIVES["alone"], "seed": 1, "out": str(run)})
        halves = {to: ("val",) if to in ("onnx", "openvino") else ("one", "val") for to in given.to}
        cases = [compared(run, to, half, folder) for to in given.to for half in halves[to]]
        if given.browser:
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                cases += [on_page(chromium, run, folder, window) for window in (None, WINDOW)]
                chromium.close()
    targets = [
        target
        for case in cases
        for name in [f"{case['to']}, takes {case['takes']}, {case['sizes']} sizes"]
        for target in (
            {"name": f"{name}: same pixels, %", "value": case["same_pixels"], "at_least": SAME},
            {
                "name": f"{name}: points of mIoU",
                "value": abs(case["miou_predict"] - case["miou_export"]),
                "at_most": LOSS,
            },
        )
    ]
    return report("scene_sizes", cases, targets, given.json, given.out)


if __name__ == "__main__":
    sys.exit(main())
