"""What a look at pictures tells, on real files; and what a run then does."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

import counterpoise
from counterpoise import config, decoding
from counterpoise.data import sources
from counterpoise.data.loader import TrainLoader
from counterpoise.data.noticing import cut_off, look_at, of_evaluation
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.decoding import Reading

Run = Callable[..., tuple[int, str, str]]


def folder(root: Path, save: Callable[[int, int, Path], None]) -> Path:
    """root/{train,val}/{a,b}/: 4 and 2 pictures a class, written by `save(class, number, path without ending)`."""
    for half, count in (("train", 4), ("val", 2)):
        for label, name in enumerate("ab"):
            (root / half / name).mkdir(parents=True)
            for number in range(count):
                save(label, number, root / half / name / str(number))
    return root


def bands(root: Path, ending: str, fourth: Callable[[np.random.Generator], np.ndarray]) -> Path:
    rng = np.random.default_rng(0)

    def save(label: int, number: int, path: Path) -> None:
        color = np.full((8, 8, 3), (60, 120, 60) if label else (120, 60, 60), np.uint8)
        Image.fromarray(np.dstack([color, fourth(rng)])).save(path.with_suffix(ending))

    return folder(root, save)


def infrared(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (8, 8), dtype=np.uint8)


def cut_out(rng: np.random.Generator) -> np.ndarray:
    band = np.full((8, 8), 255, np.uint8)
    band[:3], band[3] = 0, rng.integers(1, 255, 8)
    return band


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_a_fourth_band_of_data_is_left_out_and_said(tmp_path: Path, ending: str) -> None:
    root = bands(tmp_path / "fields", ending, infrared)
    train, val = sources.load(config.Data(path=root))
    assert np.unique(val.read(3).flatten(1).T, axis=0).tolist() == [[60, 120, 60]]
    assert train.reading.alpha == "ignore"
    (note,) = train.notes
    assert "8 of 8 pictures looked at is left out, as data" in note
    white = sources.load(config.Data(path=root, alpha="white"))
    assert white.val.read(3).float().mean() > 100
    assert "--data.alpha ignore leaves it out" in white.train.notes[0]


@pytest.mark.parametrize("value", [0, 40])
def test_a_band_that_is_nowhere_opaque_is_data(tmp_path: Path, value: int) -> None:
    root = bands(tmp_path / "fields", ".tif", lambda rng: np.full((8, 8), value, np.uint8))
    assert np.unique(sources.load(config.Data(path=root)).train.read(7).flatten(1).T, axis=0).tolist() == [
        [60, 120, 60]
    ]


def test_a_cut_out_lies_over_white_and_that_is_said(tmp_path: Path) -> None:
    train, val = sources.load(config.Data(path=bands(tmp_path / "cut", ".png", cut_out)))
    assert val.read(0)[:, 0].unique().tolist() == [255]
    assert "composited over white" in train.notes[0]


def test_opaque_pictures_say_nothing(tmp_path: Path) -> None:
    root = bands(tmp_path / "plain", ".png", lambda rng: np.full((8, 8), 255, np.uint8))
    assert sources.load(config.Data(path=root)).train.notes == []


def test_12_bits_in_16_are_said_with_the_level_that_fits(tmp_path: Path) -> None:
    def save(label: int, number: int, path: Path) -> None:
        Image.fromarray(np.full((8, 8), 900 + 2500 * label + number, np.uint16)).save(path.with_suffix(".png"))

    root = folder(tmp_path / "scans", save)
    (note,) = sources.load(config.Data(path=root)).train.notes
    assert "values up to 3,403 of 65,535, so they keep 14 of 256 gray levels: --data.white_level 4095" in note
    told = sources.load(config.Data(path=root, white_level=4095)).train
    assert told.notes == []
    assert told.read(4).unique().tolist() == [round(3400 * 255 / 4095)]
    assert (
        "above data.white_level 1023 is white" in sources.load(config.Data(path=root, white_level=1023)).train.notes[0]
    )
    for path in root.rglob("*.png"):  # of which no level would fit
        tifffile.imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)), photometric="miniswhite")
        path.unlink()
    assert sources.load(config.Data(path=root)).train.notes == []


def png(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits with three bands, which Pillow does not write; values [H, W, 3]."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + ends)
    return path


def test_colors_of_16_bits_lose_the_lower_8_and_that_is_said(tmp_path: Path) -> None:
    values = np.arange(0, 4096, 32).repeat(3).reshape(16, 8, 3)
    file = png(tmp_path / "12.png", values)
    assert (np.asarray(decoding.read(file.read_bytes())) == values // 256).all()
    (note,) = look_at([file], Reading()).notes(Reading())
    assert "1 of 1 pictures looked at have several bands of 16 bits, of which the upper 8 are kept, 16 of 256" in note
    assert "bring their colors to 8 bits" in note
    (note,) = look_at([png(tmp_path / "16.png", 16 * values)], Reading()).notes(Reading())
    assert note.endswith("of which the upper 8 are kept.")


def test_further_pages_are_said(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 20, 30)]
    for ending in ("tif", "gif", "webp"):
        file = tmp_path / f"many.{ending}"
        pages[0].save(file, save_all=True, append_images=pages[1:])
        (note,) = look_at([file], Reading()).notes(Reading())
        assert "1 of 1 pictures looked at have further pages or frames (up to 3): only the first is read" in note
    for kind in ("images", "masks"):
        (tmp_path / "scenes" / kind).mkdir(parents=True)
    (tmp_path / "scenes" / "classes.txt").write_text("ground\nthing\n")
    for number in range(4):
        pages[0].save(tmp_path / "scenes" / "images" / f"{number}.tif", save_all=True, append_images=pages[1:])
        masks = [Image.new("L", (4, 4), level) for level in (number % 2, 0)]
        masks[0].save(tmp_path / "scenes" / "masks" / f"{number}.tif", save_all=True, append_images=masks[1:])
    notes = sources.load(config.Data(path=tmp_path / "scenes", val_fraction=0.25)).train.notes
    assert any("masks looked at have further pages or frames (up to 2): only the first is read" in n for n in notes)
    assert "Where a page is a slice of a volume, --data.source stacks shows all of them." in notes
    assert "Where pages are the levels of a slide, --data.source slides shows the one that is named." in notes
    Image.new("RGB", (4, 4)).save(tmp_path / "one.tif")
    assert look_at([tmp_path / "one.tif", tmp_path / "absent.tif", pages[0]], Reading()).notes(Reading()) == []


def test_the_student_reads_pictures_as_it_was_trained(tmp_path: Path, run: Run) -> None:
    root = bands(tmp_path / "fields", ".tif", infrared)
    options = ("--student.model", "cifar/resnet8", "--data.size", "8", "--data.workers", "0", "--train.epochs", "1")
    options += ("--train.device", "cpu", "--train.optimizer.learning_rate", "0.01")
    code, _, err = run("train", "--data", root, "--out", "mine", *options)
    assert code == 0
    assert err.count("left out, as data") == 1
    described = json.loads((tmp_path / "mine/student/student.json").read_text())
    assert (described["input"]["alpha"], described["input"]["white_level"]) == ("ignore", None)

    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8), (60, 120, 60)).save(plain)
    code, out, err = run("predict", root / "val/b/0.tif", plain, "--student", "mine", "--json")
    one, other = json.loads(out)
    assert one["top"] == other["top"]
    assert "is left out, as data" in err

    code, out, _ = run("evaluate", "mine", "--json")
    own = json.loads(out)
    code, out, _ = run("evaluate", "mine", "--data", root, "--json")
    assert json.loads(out) == own

    described["input"].pop("alpha")  # as older versions wrote it
    (tmp_path / "mine/student/student.json").write_text(json.dumps(described))
    code, out, err = run("predict", root / "val/b/0.tif", plain, "--student", "mine", "--json")
    one, other = json.loads(out)
    assert one["top"] != other["top"]
    assert "--data.alpha ignore" in err


def test_predict_takes_larger_pictures_where_it_is_told(tmp_path: Path, image_folder: Path, run: Run) -> None:
    options = ("--student.model", "cifar/resnet8", "--data.size", "8", "--data.workers", "0", "--train.epochs", "1")
    code, _, _ = run("train", "--data", image_folder, "--out", "mine", *options, "--train.device", "cpu")
    assert code == 0
    photo = image_folder / "val/circle/00.jpg"
    code, _, err = run("predict", photo, "--student", "mine", "--max_megapixels", "0.001")
    assert code == 2
    assert "more pixels than max_megapixels 0.001 allows" in err
    assert run("predict", photo, "--student", "mine", "--max_megapixels", "1")[0] == 0


@pytest.mark.parametrize(("width", "said"), [(60, False), (61, True)])
def test_crops_that_leave_out_more_than_a_third_are_said(width: int, said: bool) -> None:
    images = ArraySet(torch.zeros(2, 3, 40, width, dtype=torch.uint8), torch.arange(2), ["a", "b"])
    assert bool(cut_off(images)) == said


def test_a_run_goes_on_with_the_bands_as_it_was_started(tmp_path: Path) -> None:
    root = bands(tmp_path / "fields", ".tif", infrared)
    values: dict[str, Any] = {
        "data": {"path": root, "size": 8, "workers": 0},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 2, "batch_size": 4, "device": "cpu", "precision": "fp32"},
        "out": tmp_path / "mine",
    }
    with pytest.raises(KeyboardInterrupt):
        counterpoise.train(values, deadline=0.0)
    file = tmp_path / "mine" / "run.yaml"
    kept = yaml.safe_load(file.read_text())
    assert kept["data"]["alpha"] == "ignore"
    kept["data"]["alpha"] = "auto"  # as an earlier version would have it, which took the band for transparency
    file.write_text(yaml.safe_dump(kept))
    counterpoise.train(values, resume=True)
    described = json.loads((tmp_path / "mine/student/student.json").read_text())
    assert described["input"]["alpha"] == "white"


def test_answers_of_a_teacher_fit_where_pictures_are_read_alike(tmp_path: Path) -> None:
    root = bands(tmp_path / "fields", ".tif", infrared)
    told = {}
    for alpha in ("white", "ignore"):
        images = sources.load(config.Data.model_validate({"path": root, "alpha": alpha, "white_level": 4095})).train
        loader = TrainLoader(images, config.Views(), num_classes=2, batch_size=4, seed=0, size=8, workers=0)
        told[alpha] = loader.specification
    assert told["ignore"] == {**told["white"], "alpha": "ignore"}
    assert told["white"]["white_level"] == 4095


def test_evaluation_says_where_pictures_are_read_otherwise_than_in_training() -> None:
    images = ArraySet(torch.zeros(2, 3, 40, 80, dtype=torch.uint8), torch.arange(2), ["a", "b"])
    images.reading = Reading("white", 1023)
    said = of_evaluation(images, Reading("white", 4095), cropped=True)
    assert "read with alpha white, white level 4095, and these are read with alpha white, white level 1023" in said[0]
    assert "leaves out 50% of their area" in said[1]
    assert of_evaluation(images, Reading("white", 1023), cropped=False) == []


def test_check_says_it_too(tmp_path: Path, run: Run) -> None:
    def save(label: int, number: int, path: Path) -> None:
        noise = np.random.default_rng(10 * label + number).integers(0, 65536, (20, 90), dtype=np.uint16)
        Image.fromarray(noise // 16 if label else noise // 32).save(path.with_suffix(".png"))

    root = folder(tmp_path / "scans", save)
    _, out, _ = run("check", root, "--json")
    said = " ".join(json.loads(out)["found"]["notes"])
    assert "--data.white_level 4095 would fit" in said
    assert "leaves out 78% of their area (the most extreme is 90 x 20)" in said
