"""Scenes of other than three channels, and of more than 8 bits, from files to what is shipped."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise.data.segmentation_views import ScenePlan, draw, render
from counterpoise.decoding import letterbox
from counterpoise.deploy import base, runner
from counterpoise.errors import ModelError
from counterpoise.models import catalog

WINDOW = {"intensity": {"window": [-160, 240]}}


def folder(root: Path, channels: int, sizes: tuple[tuple[int, int], ...] = ((24, 24),)) -> Path:
    """Organs of 200 units in the last band, on noise around 0: {images,masks}/{train,val}."""
    rng = np.random.default_rng(channels)
    for half, count in (("train", 6), ("val", 4)):
        for kind in ("images", "masks"):
            (root / kind / half).mkdir(parents=True)
        for number in range(count):
            height, width = sizes[number % len(sizes)]
            values = rng.integers(-30, 30, (height, width, channels)).astype(np.int16)
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            values[mask == 1, -1] += 200
            np.save(root / "images" / half / f"s{number}.npy", values[..., 0] if channels == 1 else values)
            Image.fromarray(mask).save(root / "masks" / half / f"s{number}.png")
    (root / "classes.txt").write_text("background\norgan\n")
    return root


def run(data: Path, out: Path, channels: int, **further: Any) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "data": {"path": str(data), "channels": channels, "workers": 0, "scenes": {"size": [24, 24]}, **WINDOW},
        "student": {"model": "digits/unet_4_8"},
        "train": {"epochs": 12, "batch_size": 2, "device": "cpu"},
        "out": str(out),
        **further,
    }


@pytest.mark.parametrize("channels", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_scenes_of_these_channels_are_learned_answered_drawn_and_shipped(tmp_path: Path, channels: int) -> None:
    data = folder(tmp_path / "data", channels, ((24, 24), (22, 31)))
    counterpoise.train(run(data, tmp_path / ("teacher" if channels == 1 else "run"), channels))
    if channels == 1:  # by what its teacher has recorded
        learned = run(data, tmp_path / "run", channels, teacher={"checkpoint": str(tmp_path / "teacher")})
        counterpoise.record({**learned, "out": None}, out=tmp_path / "store")
        counterpoise.distill({**learned, "teacher": {"store": str(tmp_path / "store")}})
    scores = counterpoise.evaluate(tmp_path / "run")
    assert counterpoise.evaluate(tmp_path / "run" / "student", data=data)["miou"] == scores["miou"]

    picture = data / "images" / "val" / "s1.npy"
    of_file, of_data = tmp_path / "drawn", tmp_path / "of_data"
    counterpoise.predict([picture], student=tmp_path / "run", out=of_file)
    counterpoise.predict([], student=tmp_path / "run", data=data, first=2, out=of_data)
    mask = np.asarray(Image.open(of_file / "s1-mask.png"))
    assert mask.shape == (22, 31)
    assert np.array_equal(mask, np.asarray(Image.open(of_data / "s1-mask.png")))
    assert (of_file / "s1-overlay.png").exists()
    for number, size in enumerate(((None, True), ((20, 28), False))[: 2 if channels == 1 else 1]):
        export = tmp_path / f"export{number}"
        done = counterpoise.export(tmp_path / "run", to="onnx", size=size[0], any_size=size[1], out=export)
        assert done["agreement"]["same"] >= (99 if size[0] else 100)  # of one size, scenes are brought to it
        load, out = base.find("onnx").load, tmp_path / f"mask{number}.png"
        arguments = [str(picture), "--out", str(out)]
        with contextlib.redirect_stdout(io.StringIO()):
            assert runner.main(export, "export.json", "model.onnx", runner.write_mask, load, arguments) == 0
        assert np.asarray(Image.open(out)).shape == mask.shape
        assert size[0] or np.array_equal(np.asarray(Image.open(out)), mask)


def test_a_view_of_four_channels_is_that_of_each_of_them() -> None:
    plan = ScenePlan(3, 1, 20, 30, (0.5, 2.0), True, 0.0)
    image = torch.randint(0, 256, (4, 41, 33), dtype=torch.uint8)
    mask = torch.randint(0, 3, (41, 33), dtype=torch.uint8)
    for drawn in draw(plan, 0, torch.arange(4)):
        whole, _ = render(plan, image, mask, drawn)
        each = [render(plan, image[index : index + 1], mask, drawn)[0] for index in range(4)]
        assert torch.equal(whole, torch.cat(each))
    picture = image.permute(1, 2, 0).numpy()
    boxed, covered = letterbox(picture, (20, 30), (10, 20, 30, 40))
    colors, same = letterbox(Image.fromarray(picture[..., 1:]), (20, 30), (20, 30, 40))
    assert covered == same
    assert np.array_equal(boxed[..., 1:], np.asarray(colors))


@pytest.mark.parametrize(
    "name",
    [
        "smp/fpn:mobilenet_v2",
        "torchvision/lraspp_mobilenet_v3_large",
        pytest.param("hf/segformer-b0", marks=pytest.mark.slow),
    ],
)
def test_dense_networks_start_from_weights_for_three_channels(name: str, tmp_path: Path) -> None:
    one = catalog.build(name, num_classes=2, channels=1)
    assert one(torch.zeros(1, 1, 64, 64, dtype=torch.uint8)).shape[:2] == (1, 2)
    torch.save(catalog.build(name, num_classes=2).net.state_dict(), tmp_path / "rgb.pt")
    started = catalog.build(name, num_classes=2, channels=4, checkpoint=tmp_path / "rgb.pt", adapt=True).eval()
    assert "are repeated in turn, times 3 / channels" in started.notes[-1]
    assert (started.channels, len(started.normalization["mean"])) == (4, 4)
    with pytest.raises(ModelError, match="is for pictures of 3 channels, and these have 4"):
        catalog.build(name, num_classes=2, channels=4, checkpoint=tmp_path / "rgb.pt")
