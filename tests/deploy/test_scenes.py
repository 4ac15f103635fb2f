"""Exports of students of scenes that differ in size: what is said of them is the student's own score and theirs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import counterpoise
from counterpoise.data.images import to_tensor
from counterpoise.decoding import cut, letterbox
from counterpoise.deploy import base, sizes
from counterpoise.deploy.network import Deployed
from counterpoise.deploy.pictures import data_of, generated
from counterpoise.errors import ConfigError, ExportError
from counterpoise.models import padding
from counterpoise.models.network import SceneView, VisionModel
from counterpoise.models.padding import Padded
from counterpoise.tasks.segmentation import segment


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a student that is shown scenes whole."""
    return trained(tmp_path_factory, None)


@pytest.fixture(scope="session", params=[None, pytest.param((40, 40), marks=pytest.mark.slow)], ids=["whole", "window"])
def mixed_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and of one that looks through a window."""
    if request.param is None:
        whole: Path = request.getfixturevalue("whole_run")
        return whole
    return trained(tmp_path_factory, request.param)


def coarse(stride: int) -> VisionModel:
    """A student with random weights, whose logits are stride times coarser."""

    class Coarse(Padded):
        def __init__(self) -> None:
            super().__init__(stride)
            self.near, self.far = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, stride, stride)

        def answer(self, images: Tensor) -> Tensor:
            logits: Tensor = self.far(self.near(images).relu())
            return logits

    torch.manual_seed(0)
    return model(Coarse())


def model(net: nn.Module) -> VisionModel:
    """A network of two classes as a model."""
    return VisionModel(net, name="x", num_classes=2, task="segmentation", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))


def trained(tmp_path_factory: pytest.TempPathFactory, window: tuple[int, int] | None) -> Path:
    """A run on scenes of many sizes, a dark square on noise in each."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for half, count in (("train", 8), ("val", 5)):
        for kind in ("images", "masks"):
            (root / "data" / kind / half).mkdir(parents=True)
        for number in range(count):
            width, height = (int(side) for side in rng.integers(24, 64, 2))
            picture = rng.integers(120, 256, (height, width, 3)).astype(np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            picture[mask == 1] //= 4
            Image.fromarray(picture).save(root / "data" / "images" / half / f"s{number}.png")
            Image.fromarray(mask).save(root / "data" / "masks" / half / f"s{number}.png")
    (root / "data" / "classes.txt").write_text("ground\nsquare\n")
    data = {
        "path": root / "data",
        "source": "masks_folder",
        "workers": 0,
        "scenes": {"size": (24, 24), "window": window},
    }
    train = {"epochs": 6, "batch_size": 4, "device": "cpu", "precision": "fp32",
             "optimizer": {"name": "adamw", "learning_rate": 0.01}}  # fmt: skip
    run = {"task": "segmentation", "data": data, "student": {"model": "digits/unet_8_16"}, "train": train}
    counterpoise.train({**run, "out": root / "run"})
    return root / "run"


def run_masks(exported: Path, run: Path, out: Path) -> list[NDArray[np.uint8]]:
    """The masks that run.py writes of the validation scenes."""
    images = run.parent / "data" / "images" / "val"
    command = [sys.executable, exported / "run.py", images, "--out", out]
    subprocess.run(command, check=True, capture_output=True, cwd=out.parent)
    return [np.asarray(Image.open(out / f"s{number}-mask.png")) for number in range(5)]


def expected_masks(run: Path) -> list[NDArray[np.uint8]]:
    """Those that `predict` paints."""
    student, images = counterpoise.load_student(run), run.parent / "data" / "images" / "val"
    return [segment(student, to_tensor(Image.open(images / f"s{number}.png"))).numpy() for number in range(5)]


def score(run: Path, masks: Sequence[NDArray[np.uint8]]) -> float:
    """Mean intersection over union of masks of the validation scenes, in percent."""
    counts = np.zeros((2, 2))
    for number, mask in enumerate(masks):
        truth = np.asarray(Image.open(run.parent / "data" / "masks" / "val" / f"s{number}.png"))
        counts += np.bincount(2 * truth.ravel() + mask.ravel(), minlength=4).reshape(2, 2)
    return float(100 * (counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())).mean())


def share_alike(ones: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]]) -> float:
    """Percent of the pixels that are the same."""
    pairs = list(zip(ones, others, strict=True))
    return 100 * sum(int((one == other).sum()) for one, other in pairs) / sum(one.size for one, _ in pairs)


@pytest.mark.parametrize(
    ("to", "precision"),
    [
        ("onnx", "float32"),
        pytest.param("onnx", "int8", marks=pytest.mark.slow),
        pytest.param("onnx", "float16", marks=pytest.mark.slow),
        pytest.param("openvino", "float32", marks=pytest.mark.slow),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
    ],
)
def test_scenes_of_many_sizes_are_answered_at_their_own(
    whole_run: Path, tmp_path: Path, to: str, precision: str
) -> None:
    made = counterpoise.export(whole_run, to=to, precision=precision, out=tmp_path / "out", min_same=None)
    assert made["input"]["any_size"] is True
    found = made["agreement"]
    assert found["images"] == 5
    assert found["resized"] == 0
    assert found["student"] == pytest.approx(counterpoise.evaluate(whole_run)["miou"])
    masks = run_masks(tmp_path / "out", whole_run, tmp_path / "masks")
    same = share_alike(masks, expected_masks(whole_run))
    assert found["same"] == pytest.approx(same, abs=0.05)  # Pillow's resampling against torch's
    assert found["export"] == pytest.approx(score(whole_run, masks), abs=0.1)
    if precision == "float32":
        assert found["export"] == pytest.approx(found["student"], abs=1e-6)
        assert same > 99.95
        checked = counterpoise.verify(tmp_path / "out", student=whole_run)
        assert checked["agreement"] == found


@pytest.mark.parametrize("height", [20, 60])
def test_a_scene_of_another_shape_keeps_it_and_the_rest_is_cut_off(height: int) -> None:
    picture = Image.new("RGB", (30, height), "red")
    shown, covered = letterbox(picture, (40, 40), (1, 2, 3))
    assert covered == {20: (20, 30), 60: (40, 20)}[height]  # never larger than the network sees scenes
    assert letterbox(picture, (40, 40), (1, 2, 3), 2.0)[1] == (height / 2, 15)
    pixels = np.asarray(shown)
    assert (pixels[: covered[0], : covered[1]] == (255, 0, 0)).all()
    assert (pixels == (1, 2, 3)).all(2).sum() == 1600 - covered[0] * covered[1]
    logits = torch.randn(1, 2, 10, 10)
    wanted = logits
    for dim, edge in ((-2, covered[0]), (-1, covered[1])):
        wanted = padding._cut(wanted, dim, edge, 40)
    assert np.abs(cut(logits[0].numpy(), covered, (40, 40)) - wanted[0].numpy()).max() < 1e-6


@pytest.mark.parametrize("stride", [1, 8])
def test_a_graph_of_any_size_answers_as_the_network_that_pads(stride: int, tmp_path: Path) -> None:
    network = Deployed(coarse(stride))
    chosen = base.find("onnx")
    for batch in (None, 1):
        request, why = sizes.settled(network, chosen, base.Request("float32", (40, 28), batch), None, True)
        assert (request.any_size, why) == (True, "")
        chosen.convert(network, request, {}, tmp_path)
        runtime = chosen.open(tmp_path)
        for size in ((8, 8), (1, 1), (3, 50), (41, 9), (64, 33)):
            shown = generated(batch or 3, size)
            answered = runtime(shown.numpy())
            assert answered.shape == network(shown).shape
            assert np.abs(answered - network(shown).detach().numpy()).max() < 1e-5


def test_what_cannot_be_of_any_size_is_fixed_and_says_why(whole_run: Path) -> None:
    class Choosy(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (2 if images.shape[-1] > 40 else 1)

    network = Deployed(model(Choosy(3, 2, 1)))
    splits, _ = data_of(whole_run, None, None)
    assert splits is not None
    mixed = splits.val
    asked = base.Request("float32", (40, 28), 1)
    request, why = sizes.settled(network, base.find("onnx"), asked, mixed, None)
    assert request == asked
    assert why.startswith("fixed, though scenes differ: The network's Python cannot be turned into a graph")
    with pytest.raises(ExportError, match="cannot take pictures of any size: The network's Python"):
        sizes.settled(network, base.find("onnx"), asked, mixed, True)
    network.student.scenes = SceneView(1.0, (20, 20), 0.5, "linear")
    with pytest.raises(ConfigError, match="any_size cannot be: the student looks through a window"):
        sizes.settled(network, base.find("onnx"), asked, mixed, True)
    assert sizes.settled(network, base.find("onnx"), asked, mixed, False) == (asked, "")
    by_window = base.Request("float32", (20, 20), 1, window=base.Window((10, 10), "linear"))
    assert sizes.settled(network, base.find("onnx"), asked, mixed, None) == (by_window, "")


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_the_line_of_an_export_of_one_size_is_what_its_runner_does(
    mixed_run: Path, tmp_path: Path, precision: str
) -> None:
    least = 0 if precision == "int8" else None
    made = counterpoise.export(
        mixed_run, to="onnx", precision=precision, out=tmp_path / "out", min_same=least, any_size=False
    )
    found = made["agreement"]
    assert found["images"] == 5
    assert found["resized"] == 4  # all but the first, whose size the export takes
    assert found["converted"] > (80 if precision == "int8" else 99.9)
    assert found["student"] == pytest.approx(counterpoise.evaluate(mixed_run)["miou"])
    masks = run_masks(tmp_path / "out", mixed_run, tmp_path / "masks")
    assert found["positions"] == sum(mask.size for mask in masks)
    assert found["export"] == pytest.approx(score(mixed_run, masks), abs=0.3)  # Pillow's resampling against torch's
    assert found["same"] == pytest.approx(share_alike(masks, expected_masks(mixed_run)), abs=0.3)
    assert made["input"]["around"] == (128, 128, 128)
    assert found["same"] < found["converted"]
