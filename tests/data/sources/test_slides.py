"""Whole-slide images by parts: trained on, evaluated and predicted at a level, in memory that does not grow."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.slide_file import At, Slide
from counterpoise.engine.student import save_student
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError
from counterpoise.models import catalog
from counterpoise.models.network import SceneView
from counterpoise.tasks import segmentation

pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")
CLASSES = ("background", "nucleus", "stroma")
MOST_BYTES = 10**9


def pyramid(path: Path, levels: list[NDArray[np.uint8]], mpp: float = 0.25, **more: Any) -> Path:
    """A TIFF of tiles with smaller levels, as scanners' files are exported."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "rgb" if levels[0].ndim == 3 else "minisblack"
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            scale = 1e4 / (mpp * levels[0].shape[0] / level.shape[0])
            form = {"tile": (64, 64), "compression": "zlib", "photometric": kind, "metadata": None, **more}
            file.write(
                level, subfiletype=int(number > 0), resolution=(scale, scale), resolutionunit="CENTIMETER", **form
            )
    return path


def levels(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels, pixels[::4, ::4].copy()]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides for training and one to evaluate, their masks as pyramids, one of them as a PNG of level 0."""
    root, chance = tmp_path_factory.mktemp("slides"), np.random.default_rng(3)
    for part, number, size in (("train", 0, (260, 400)), ("train", 1, (320, 240)), ("val", 2, (300, 272))):
        small = chance.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), dtype=np.uint8)
        pixels = np.kron(small, np.ones((4, 4, 1), np.uint8))[: size[0], : size[1]]
        mask = np.kron(chance.integers(0, 4, (size[0] // 20 + 1, size[1] // 20 + 1), dtype=np.uint8), np.ones((20, 20)))
        values = mask[: size[0], : size[1]].astype(np.uint8)
        values[values == 3] = 255
        pyramid(root / "images" / part / f"{number}.tif", levels(pixels))
        if number == 1:
            (root / "masks" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values[::4, ::4]).save(root / "masks" / part / "1.png")
        else:
            pyramid(root / "masks" / part / f"{number}.tif", levels(values))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def section(data: Path, **options: Any) -> dict[str, Any]:
    return {"source": "slides", "path": str(data), "options": {"ignore": 255, **options}, "workers": 0}


def test_parts_of_a_slide_are_those_of_its_level(data: Path) -> None:
    path = data / "images" / "val" / "2.tif"
    for level, at in ((0, At(0)), (1, At(1)), (1, At(mpp=1.1))):
        slide, pixels = Slide(path, at), tifffile.imread(path, key=level)
        assert slide.size == pixels.shape[:2]
        assert slide.mpp == pytest.approx((0.25 * 4**level,) * 2, rel=0.02)
        shown = slide.part(slice(9, 61), slice(30, 68)).permute(1, 2, 0).numpy()
        assert (shown == pixels[9:61, 30:68]).all()
    images = sources.load(config.Data(**section(data, mpp=1.0)))
    assert "slides at level 1, of the first 100 x 65, 1 microns per pixel" in images.train.notes[0]
    assert images.val.spacing(0) == pytest.approx((1e-3, 1e-3), rel=0.02)
    truth = tifffile.imread(data / "masks" / "val" / "2.tif", key=1)
    assert (images.val.read_mask(0).numpy() == truth).all()
    assert images.val.mask_counts(0).tolist() == np.bincount(truth.ravel(), minlength=256).tolist()


def test_slides_in_no_part_are_said(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "slides"
    shutil.copytree(data, root)
    for place in ("", "more"):
        (root / "images" / place).mkdir(exist_ok=True)
        shutil.copy(data / "images" / "val" / "2.tif", root / "images" / place / "3.tif")
    beside = f"1 pictures lie beside the parts and are not used, such as {root}/images/3.tif"
    found = sources.load(config.Data(**section(root, level=1))).train.notes
    assert found[:2] == [f"not used: {root}/images/more", beside]


def test_slides_are_trained_on_evaluated_and_predicted_by_parts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = {"size": [24, 24], "crops": 4, "window": [32, 32], "foreground": 0.5}
    run = {
        "task": "segmentation",
        "out": tmp_path / "run",
        "data": {**section(data, level=1), "scenes": scenes},
        "student": {"model": "digits/unet_4_8"},
        "objective": {"cross_entropy": {}},
        "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
    }
    counterpoise.train(run)
    whole = counterpoise.evaluate(tmp_path / "run")
    monkeypatch.setattr(segmentation, "WHOLE", 3 * 1000)
    assert counterpoise.evaluate(tmp_path / "run") == whole
    path = data / "images" / "val" / "2.tif"
    (answer,) = counterpoise.predict([path], student=tmp_path / "run", out=tmp_path / "masks")
    written = tifffile.imread(answer["mask"], key=0)
    assert (answer["level"], written.shape) == (1, (75, 68))
    image = Image.fromarray(tifffile.imread(path, key=1))
    assert (
        written
        == segmentation.segment(
            counterpoise.load_student(tmp_path / "run"), torch.from_numpy(np.array(image)).permute(2, 0, 1)
        ).numpy()
    ).all()
    shares = {each["class"]: each["share"] for each in answer["classes"]}
    assert shares == {CLASSES[value]: (written == value).mean() for value in np.unique(written)}
    truth = tifffile.imread(data / "masks" / "val" / "2.tif", key=1)
    assert 100 * (written == truth)[truth != 255].mean() == pytest.approx(whole["pixel_accuracy"])
    with tifffile.TiffFile(answer["mask"]) as file:
        assert file.pages[0].is_tiled
        assert file.pages[0].tags["XResolution"].value[0] / file.pages[0].tags["XResolution"].value[1] == pytest.approx(
            1e4, rel=0.02
        )
    (other,) = counterpoise.predict([path], student=tmp_path / "run", level=0)
    assert (other["height"], other["width"]) == (300, 272)
    with pytest.raises(CounterpoiseError, match="is there already"):
        counterpoise.predict([path], student=tmp_path / "run", out=tmp_path / "masks")


def _png(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("L", size).save(path)
    return path


def test_what_is_wrong_with_slides_is_said(data: Path, tmp_path: Path) -> None:
    path = data / "images" / "val" / "2.tif"
    (tmp_path / "cut.svs").write_bytes(path.read_bytes()[:3000])
    for given, at, part in (
        (path, At(4), "it has 2 levels, from 0 on, and level is 4"),
        (path, At(mpp=0.5), "microns per pixel, none of them 0.5"),
        (_png(tmp_path / "a.png"), At(0), "it is no whole-slide image"),
        (tmp_path / "nowhere.svs", At(0), "the file does not exist"),
        (tmp_path / "cut.svs", At(0), "cannot be read"),
    ):
        with pytest.raises(CorruptImage, match=part):
            Slide(given, at).part()
    for options, part in (({}, "give level"), ({"level": 0, "mpp": 1.0}, "give level"), ({"level": -1}, "from 0 on")):
        with pytest.raises(ConfigError, match=part):
            sources.load(config.Data(**section(data, **options)))
    images = sources.load(config.Data(**section(data, level=0)))
    with pytest.raises(CorruptImage, match="and its slide at this level 240 x 320"):
        images.train.read_mask(1)
    small = sources.load(config.Data(**section(data, level=0), max_megapixels=0.05)).val
    with pytest.raises(CorruptImage, match=r"more pixels than max_megapixels 0\.05 allows; a smaller level"):
        small.read(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text("a\nb")
    (tmp_path / "images" / "a.svs").write_bytes(b"")
    with pytest.raises(DataError, match=r"have no mask in .*: masks are called as their slides"):
        sources.load(config.Data(**section(tmp_path, level=0)))
    for name in ("a.png", "a.tiff"):
        (tmp_path / "masks" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"masks/a.png and .*masks/a.tiff differ in nothing but their ending"):
        sources.load(config.Data(**section(tmp_path, level=0)))


MEASURED = """
import sys
from pathlib import Path
import counterpoise
(answer,) = counterpoise.predict([sys.argv[1]], student=sys.argv[2], out=sys.argv[3], level=int(sys.argv[4]))
lines = Path("/proc/self/status").read_text().splitlines()
print(answer["width"], next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what a process took at most")
def test_a_slide_of_40_000_pixels_an_edge_is_predicted_within_a_gigabyte(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    packed = zlib.compress(tile.tobytes(), 1)
    with tifffile.TiffWriter(tmp_path / "slide.tif", bigtiff=True) as file:
        for number, edge in enumerate((40_000, 10_000)):
            tiles = (packed for _ in range((-(-edge // 512)) ** 2))
            form = {"tile": (512, 512), "compression": "zlib", "photometric": "rgb", "metadata": None}
            file.write(tiles, shape=(edge, edge, 3), dtype=np.uint8, subfiletype=int(number > 0), **form)
    model = catalog.build("digits/unet_4_8", num_classes=3, classes=CLASSES)
    model.task, model.scenes = "segmentation", SceneView(window=(512, 512), overlap=0.1)
    save_student(model, tmp_path / "student", classes=CLASSES, metrics={}, provenance={})
    given = [tmp_path / name for name in ("slide.tif", "student", "out")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, given), "1"], capture_output=True, text=True, check=True
    )
    width, most = map(int, done.stdout.split()[-2:])
    assert width == 10_000
    assert most < MOST_BYTES
    with tifffile.TiffFile(tmp_path / "out" / "slide-mask.tif") as file:
        assert [page.shape for page in file.pages][:2] == [(10_000, 10_000), (5_000, 5_000)]
