"""Windows over scenes: the same logits whether they come at once or in pieces, in memory that does not grow."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import counterpoise
from counterpoise.data.rasters import Raster
from counterpoise.engine.student import load_student, save_student
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.network import SceneView, VisionModel
from counterpoise.tasks import get, sliding
from counterpoise.tasks.segmentation import segment
from counterpoise.tasks.sliding import pieces, slide, stride_of, weights

CLASSES = 5
MOST_BYTES = 10**9


class Blobs(nn.Module):
    """Logits of 5 classes at a quarter of the resolution; the last class is out where it is dark."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, CLASSES, 5, 4, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.conv(pixels)
        dark = nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 4, ceil_mode=True) < 0.3
        return torch.cat([logits[:, :-1], logits[:, -1:].masked_fill(dark, -torch.inf)], 1)


def network(view: SceneView = SceneView()) -> VisionModel:  # noqa: B008 - a tuple does not change
    model = VisionModel(Blobs(), name="own/blobs", num_classes=CLASSES, mean=(0, 0, 0), std=(1, 1, 1))
    model.scenes, model.task = view, "segmentation"
    return model.eval()


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def put_together(model: VisionModel, image: Tensor, view: SceneView) -> Tensor:
    """The pieces in their places; each pixel is in one of them."""
    whole = torch.full((CLASSES, *image.shape[1:]), torch.nan)
    with torch.inference_mode():
        for piece in pieces(model, Raster(image), view, CLASSES, torch.device("cpu")):
            assert whole[:, piece.rows, piece.columns].isnan().all()
            whole[:, piece.rows, piece.columns] = piece.logits
    assert not whole.isnan().any()
    return whole


VIEWS = {
    "whole": SceneView(),
    "reduced": SceneView(2.5),
    "window": SceneView(window=(24, 32)),
    "overlap": SceneView(window=(24, 32), overlap=0.5, blend="gaussian"),
    "apart": SceneView(window=(16, 16), overlap=0.0, blend="linear"),
    "window, reduced": SceneView(1.5, (24, 32)),
    "high": SceneView(window=(300, 20), overlap=0.7),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("size", [(97, 203), (64, 64)])
def test_pieces_of_a_large_picture_are_what_is_answered_at_once(
    view: SceneView, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = network(view), picture(*size)
    expected = put_together(model, image, view)
    for name, values in (("WHOLE", 0), ("HELD", 9000), ("PIECE", 4000)):
        monkeypatch.setattr(sliding, name, values)
    found = put_together(model, image, view)
    if view.window is not None and view.reduction == 1:
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (segment(model, image) == expected.argmax(0)).float().mean() > 0.9999


class Largest(TorchDispatchMode):
    """Notes the largest tensor of floats that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.is_floating_point():
            self.values = max(self.values, made.untyped_storage().nbytes() // 4)
        return made


@pytest.mark.parametrize("view", [SceneView(window=(32, 32)), SceneView(2.0, (32, 32)), SceneView(8.0)], ids=str)
def test_no_tensor_grows_with_the_picture(view: SceneView, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("WHOLE", 2**15), ("HELD", 2**14), ("PIECE", 2**13)):
        monkeypatch.setattr(sliding, name, values)
    model, most = network(view), []
    for edge in (150, 450):
        with Largest() as largest:
            segment(model, picture(edge, edge))
        most.append(largest.values)
        assert largest.values < CLASSES * edge * edge / 3
    if view.window is not None:
        assert most[1] <= 1.5 * most[0] <= 2**16


def test_windows_count_as_they_are_blended() -> None:
    assert weights((4, 6), "mean", torch.device("cpu")) is None
    linear = weights((4, 6), "linear", torch.device("cpu"))
    assert linear is not None
    assert linear[1].tolist() == pytest.approx([0.75 * each for each in (1 / 6, 0.5, 5 / 6, 5 / 6, 0.5, 1 / 6)])
    gaussian = weights((9, 64), "gaussian", torch.device("cpu"))
    assert gaussian is not None
    assert gaussian[4, 20].item() == pytest.approx(math.exp(-((20 - 31.5) ** 2) / (2 * 8**2)), rel=1e-5)
    assert gaussian.min().item() == pytest.approx(1e-3)
    image = picture(40, 60)[None]
    where = {blend: slide(network(), image, (20, 30), (10, 15), blend) for blend in ("mean", "linear", "gaussian")}
    assert not torch.equal(where["mean"], where["gaussian"])
    assert torch.equal(where["linear"][0, :, 0, 0], where["mean"][0, :, 0, 0])  # a corner is of one window alone


def test_overlap_says_how_far_the_window_moves() -> None:
    assert stride_of(SceneView(window=(30, 31))) == (20, 20)
    assert stride_of(SceneView(window=(30, 31), overlap=0.5)) == (15, 16)
    assert stride_of(SceneView(window=(2, 2), overlap=0.95)) == (1, 1)


def student(out: Path, view: SceneView) -> Path:
    model = catalog.build("digits/unet_4_8", num_classes=3, classes=("a", "b", "c"))
    model.task, model.scenes = "segmentation", view
    save_student(model, out, classes=("a", "b", "c"), metrics={}, provenance={})
    return out


def test_a_student_keeps_how_its_windows_lie_and_count(tmp_path: Path) -> None:
    blended = SceneView(2.0, (32, 48), 0.5, "gaussian")
    plain = SceneView(1.0, (32, 48))
    for name, view, version in (("blended", blended, 2), ("plain", plain, 1)):
        found = load_student(student(tmp_path / name, view))
        assert (found.scenes, found.description.format) == (view, version)
    assert '"overlap"' not in (tmp_path / "plain" / "student.json").read_text()


def test_predict_looks_through_the_window_that_is_given(tmp_path: Path) -> None:
    folder = student(tmp_path / "student", SceneView())
    photo = tmp_path / "photo.png"
    Image.fromarray(picture(50, 70).permute(1, 2, 0).numpy()).save(photo)
    (answer,) = counterpoise.predict([photo], student=folder, window=(24, 24), overlap=0.5, blend="gaussian")
    model = load_student(folder)
    get("segmentation").look(model, (24, 24), 0.5, "gaussian")
    assert model.scenes == SceneView(1.0, (24, 24), 0.5, "gaussian")
    assert answer == {"image": str(photo), **model.predict([photo])[0]}
    with pytest.raises(ConfigError, match="overlap and blend are of a window"):
        counterpoise.predict([photo], student=folder, overlap=0.5)
    with pytest.raises(ConfigError, match=r"overlap: input should be less than or equal to 0\.95"):
        counterpoise.predict([photo], student=folder, window=(24, 24), overlap=1.0)
    with pytest.raises(ConfigError, match="for scenes, and the student is for multilabel"):
        get("multilabel").look(model, (24, 24))


MEASURED = """
import sys
from pathlib import Path
import counterpoise
(answer,) = counterpoise.predict([sys.argv[1]], student=sys.argv[2], window=(512, 512), out=sys.argv[3])
assert (answer["height"], answer["width"]) == (10000, 10000)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what a process took at most")
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_picture_of_100_megapixels_is_answered_within_a_gigabyte(kind: str, tmp_path: Path) -> None:
    folder, photo = student(tmp_path / "student", SceneView()), tmp_path / f"photo.{kind}"
    tile = picture(1000, 1000).permute(1, 2, 0).numpy()
    Image.fromarray(np.tile(tile, (10, 10, 1))).save(photo, **({"compress_level": 1} if kind == "png" else {}))
    command = [sys.executable, "-c", MEASURED, str(photo), str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < MOST_BYTES
    with Image.open(tmp_path / "out" / "photo-mask.png") as mask:
        assert mask.size == (10000, 10000)
