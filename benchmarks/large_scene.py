"""What a picture of 100 megapixels takes in `predict` and in the run.py beside an export, through a window of 512.

Each in a process of its own, one after the other: the peak of its memory (VmHWM; ru_maxrss would know that of the
process that started it, too), imports and the decoded picture included, and seconds from its start to the mask on disk.
`decode` is the picture alone, read by Pillow and copied nowhere. The student is a U-Net of 1,500 parameters at full
resolution, three classes, random weights; one thread.
"""

from __future__ import annotations

import os
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
    return {"peak_megabytes": float(done.stdout.splitlines()[-1]), "seconds": seconds}


def main() -> int:
    """Measure and report."""
    options = harness.arguments(__doc__ or "", threads=1)
    edge = QUICK if options.quick else EDGE
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mine = student(folder / "student")
        counterpoise.export(mine, to="onnx", out=folder / "export")
        for kind, path in pictures(folder, edge).items():
            masks = folder / "masks" / kind
            sides = {
                "decode": measured(DECODE, path),
                "predict": measured(PREDICT, path, mine, masks),
                "run.py": measured(RUNNER, path, "--out", masks / "runner.png", folder / "export" / "run.py"),
            }
            with Image.open(masks / "picture-mask.png") as one, Image.open(masks / "runner.png") as other:
                same = float((np.asarray(one) == np.asarray(other)).mean())
            cases += [
                {"case": f"{side} {kind}", "megapixels": edge * edge / 1e6, **found, "same_percent": 100 * same}
                for side, found in sides.items()
            ]
    targets = [
        {"name": f"peak_megabytes of {case['case']}", "value": case["peak_megabytes"], "at_most": MOST_MEGABYTES}
        for case in cases
    ]
    targets.append({"name": "same_percent", "value": min(case["same_percent"] for case in cases), "at_least": 99.5})
    return harness.report("large_scene", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
