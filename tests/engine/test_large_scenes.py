"""Scenes too large for all of their logits: evaluated in pieces, by the same numbers, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.engine.evaluator import quick_score
from counterpoise.engine.processes import Processes
from counterpoise.engine.student import save_student
from counterpoise.models import catalog
from counterpoise.models.network import SceneView
from counterpoise.tasks import segmentation, sliding

MOST_BYTES = 10**9
SIZES = [(61, 90), (90, 61), (40, 33)]


def student(out: Path, task: str, classes: tuple[str, ...], view: SceneView) -> Path:
    model = catalog.build("digits/unet_4_8", num_classes=len(classes), classes=classes)
    model.task, model.scenes = task, view
    save_student(model, out, classes=classes, metrics={}, provenance={})
    return out


def scenes(root: Path, names: tuple[str, ...], sizes: list[tuple[int, int]], tile: int = 30) -> Path:
    """Noise with masks of blocks, some of them void, divided."""
    chance = np.random.default_rng(4)
    for part in ("train", "val"):
        for number, size in enumerate(sizes):
            image = chance.integers(0, 256, (*size, 3), dtype=np.uint8)
            mask = chance.integers(0, len(names) + 1, (size[0] // 7 + 1, size[1] // 7 + 1), dtype=np.uint8)
            mask[mask == len(names)] = 255
            for kind, pixels in (("images", image), ("masks", np.kron(mask, np.ones((7, 7), np.uint8)))):
                (root / kind / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[: size[0], : size[1]]).save(root / kind / part / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(names))
    return root


CASES: dict[str, tuple[str, SceneView, list[str]]] = {
    "classes": ("segmentation", SceneView(window=(24, 32)), ["hd95", "auroc", "object_f1"]),
    "reduced": ("segmentation", SceneView(1.5, (24, 32), 0.5, "linear"), ["auprc"]),
    "questions": ("multilabel_segmentation", SceneView(window=(24, 32)), ["assd", "auroc"]),
}


def while_training(folder: Path, data: dict[str, Any]) -> dict[str, float]:
    """The quick score, with one over cases."""
    model, section = counterpoise.load_student(folder), config.Data(**data)
    images = sources.load(section).val
    loader = tasks.get(model.task).eval_loader(images, model, section, batch_size=2)
    here = Processes(0, 1, torch.device("cpu"))
    return quick_score(model, loader, tasks.get(model.task), here, further=["case_dice"])


@pytest.mark.parametrize(("task", "view", "scores"), CASES.values(), ids=CASES)
def test_pieces_give_the_numbers_of_whole_scenes(
    task: str, view: SceneView, scores: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("background", "thing")
    folder = student(tmp_path / "student", task, names, view)
    data: dict[str, Any] = {"path": scenes(tmp_path / "scenes", names, SIZES), "options": {"ignore": 255}, "workers": 0}
    if task == "multilabel_segmentation":
        data["questions"] = {name: [name] for name in names}
    expected, scored = counterpoise.evaluate(folder, {"data": data}, scores=scores), while_training(folder, data)
    for name, values in (("HELD", 3000), ("PIECE", 1000)):
        monkeypatch.setattr(sliding, name, values)
    monkeypatch.setattr(segmentation, "WHOLE", 2 * 2000)  # two scenes of three are larger
    pieces: list[int] = []
    cut = sliding.slide_pieces
    monkeypatch.setattr(segmentation, "slide_pieces", lambda *given: (pieces.append(0), cut(*given))[1])
    found = counterpoise.evaluate(folder, {"data": data}, scores=scores)
    assert len(pieces) == 2
    if view.reduction == 1:
        assert found == expected
        assert while_training(folder, data) == scored
    else:  # as logits are enlarged row by row
        assert found["miou"] == pytest.approx(expected["miou"], abs=0.05)
        assert found["by_case"]["scores"][-1]["mean"] == pytest.approx(
            expected["by_case"]["scores"][-1]["mean"], abs=0.05
        )


MEASURED = """
import sys
from pathlib import Path
import counterpoise
report = counterpoise.evaluate(sys.argv[1], {"data": {"path": sys.argv[2]}})
assert sum(map(sum, report["confusion_matrix"])) == 10**8
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what a process took at most")
def test_a_scene_of_100_megapixels_is_evaluated_within_a_gigabyte(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    folder = student(tmp_path / "student", "segmentation", names, SceneView(window=(512, 512)))
    chance = np.random.default_rng(1)
    for kind, most, shape in (("images", 256, (1000, 1000, 3)), ("masks", 3, (1000, 1000))):
        tile = chance.integers(0, most, shape, dtype=np.uint8)
        (tmp_path / "scenes" / kind / "val").mkdir(parents=True)
        (tmp_path / "scenes" / kind / "train").mkdir(parents=True)
        Image.fromarray(tile).save(tmp_path / "scenes" / kind / "train" / "0.png")
        whole = np.tile(tile, (10, 10) if kind == "masks" else (10, 10, 1))
        Image.fromarray(whole).save(tmp_path / "scenes" / kind / "val" / "0.png", compress_level=1)
    (tmp_path / "scenes" / "classes.txt").write_text("\n".join(names))
    command = [sys.executable, "-c", MEASURED, str(folder), str(tmp_path / "scenes")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < MOST_BYTES
