"""Exports of students that look through a window answer pictures of any size as the student does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import counterpoise
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.deploy import runner, windows
from counterpoise.engine.student import load_student, save_student
from counterpoise.models import catalog
from counterpoise.models.network import SceneView, VisionModel
from counterpoise.tasks import sliding

CLASSES = ("ground", "square", "line")


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] * 255).to(torch.uint8)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = catalog.build("digits/unet_4_8", num_classes=3, classes=CLASSES)
    model.task, model.scenes = "segmentation", SceneView(1.0, (24, 32), 0.5, "gaussian")
    out = tmp_path_factory.mktemp("windows") / "student"
    save_student(model, out, classes=CLASSES, metrics={}, provenance={})
    return out


def scenes() -> Splits:
    masks = torch.randint(0, 3, (4, 40, 70), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    images = torch.stack([picture(40, 70, seed) for seed in range(4)])
    return Splits(*(ArraySet.of_scenes(images, masks, CLASSES) for _ in range(2)))


@pytest.mark.parametrize(
    ("to", "precision"),
    [
        ("onnx", "float32"),
        pytest.param("onnx", "int8", marks=pytest.mark.slow),
        pytest.param("openvino", "float32", marks=pytest.mark.slow),
        pytest.param("executorch", "float32", marks=pytest.mark.slow),
    ],
)
def test_a_window_slides_over_pictures_of_any_size(student: Path, tmp_path: Path, to: str, precision: str) -> None:
    least = {"min_same": 0} if precision == "int8" else {}
    made = counterpoise.export(student, to=to, precision=precision, data_set=scenes(), out=tmp_path / "out", **least)
    assert made["version"] == 2
    assert (made["input"]["size"], made["input"]["any_size"]) == ((24, 32), False)
    assert made["input"]["window"] == {"stride": (12, 16), "blend": "gaussian"}
    found = made["agreement"]
    assert (found["resized"], found["images"]) == (0, 4)
    model, folder = load_student(student), tmp_path / "pictures"
    folder.mkdir()
    expected = {}
    for number, (height, width) in enumerate([(24, 32), (97, 150), (40, 33), (12, 90), (10, 15)]):
        Image.fromarray(picture(height, width, number).permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        answer = counterpoise.predict([folder / f"{number}.png"], student=student, out=tmp_path / "own")[0]
        expected[number] = np.asarray(Image.open(answer["mask"]))
    command = [sys.executable, tmp_path / "out" / "run.py", folder, "--out", tmp_path / "masks"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    same = [
        float((np.asarray(Image.open(tmp_path / "masks" / f"{number}-mask.png")) == mask).mean())
        for number, mask in expected.items()
    ]
    assert min(same) > (0.995 if precision == "float32" else 0.5)
    assert said.count("ground") + said.count("square") + said.count("line") >= 5
    assert model.scenes.window == (24, 32)
    if (to, precision) == ("onnx", "float32"):
        assert found["same"] > 99.9
        assert found["export"] == pytest.approx(found["student"], abs=0.1)
        assert counterpoise.verify(tmp_path / "out", student=student, data_set=scenes())["agreement"] == found


@pytest.mark.parametrize("blend", ["mean", "linear", "gaussian"])
def test_the_runner_slides_as_predict_does(blend: str) -> None:
    """In strips, too."""
    torch.manual_seed(1)
    net = nn.Conv2d(3, 4, 5, 2, 2)
    model = VisionModel(net, name="x", num_classes=4, task="segmentation").eval()
    view = SceneView(1.0, (18, 20), 0.4, blend)
    image = picture(61, 107)
    about = {"size": (18, 20), "batch": 2, "around": (128,) * 3, "window": {"stride": (11, 12), "blend": blend}}
    with torch.inference_mode():
        expected = sliding.slide(model, image[None], (18, 20), sliding.stride_of(view), blend)[0].numpy()
        pieces = list(
            windows.slid(
                image.permute(1, 2, 0).numpy(), about, lambda pixels: model(torch.from_numpy(pixels)).numpy(), 2000
            )
        )
    found = np.full_like(expected, np.nan)
    for top, left, logits in pieces:
        part = found[:, top : top + logits.shape[1], left : left + logits.shape[2]]
        assert np.isnan(part).all()
        part[:] = logits
    assert len({left for _, left, _ in pieces}) == 4
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_masks_are_made_of_many_logits_some_rows_at_a_time(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 17, 23)).astype(np.float32)
    (_, end, whole), *rest = runner.enlarged(logits, (90, 71))
    assert (end, rest) == (71, [])
    parts = list(runner.enlarged(logits, (90, 71), 4000))
    assert len(parts) > 5
    np.testing.assert_allclose(np.concatenate([layers for _, _, layers in parts], 1), whole, atol=1e-4)
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    lines = runner.write_classes(mask, {"classes": CLASSES}, tmp_path / "mask.png")
    assert lines == ["  0.2500  ground", "  0.7500  square"]


@pytest.mark.slow
def test_a_size_of_ones_own_keeps_the_window_within_the_graph(student: Path, tmp_path: Path) -> None:
    made = counterpoise.export(student, to="onnx", size=(40, 70), data_set=scenes(), out=tmp_path / "out")
    assert made["version"] == 1
    assert (made["input"]["size"], made["input"].get("window")) == ((40, 70), None)
    assert "window" not in json.loads((tmp_path / "out" / "export.json").read_text())["input"]
    assert made["agreement"]["same"] > 99.9


@pytest.mark.slow
def test_a_window_is_exported_without_data(student: Path, tmp_path: Path) -> None:
    made = counterpoise.export(student, to="onnx", batch=1, out=tmp_path / "out")
    assert (made["version"], made["input"]["size"], made["agreement"]) == (2, (24, 32), None)
