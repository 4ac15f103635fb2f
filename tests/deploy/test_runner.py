"""What run.py makes of a picture is what training and evaluation make of it, for every kind of file."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
import torch
from PIL import Image

from counterpoise.data import images
from counterpoise.decoding import Reading, Unreadable
from counterpoise.deploy import base, pictures, runner
from counterpoise.errors import CorruptImage
from counterpoise.reading import Intensity

KINDS = (
    *("turned.jpg", "gray.jpg", "cmyk.jpg", "alpha.png", "palette.png", "deep.png", "animated.gif", "float.tif"),
    *("field.tif", "pages.tif", "lossless.webp", "plain.bmp"),
)


def save(kind: str, picture: Image.Image, path: Path) -> None:
    if kind == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, exif=exif, quality=90)
    elif kind == "gray.jpg":
        picture.convert("L").save(path)
    elif kind == "cmyk.jpg":
        picture.convert("CMYK").save(path)
    elif kind in ("alpha.png", "field.tif"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path)
    elif kind == "palette.png":
        picture.quantize(32).save(path, transparency=3)
    elif kind == "deep.png":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 16).save(path)
    elif kind == "float.tif":
        Image.fromarray(np.asarray(picture.convert("L"), dtype=np.float32) / 255).save(path)
    elif kind == "lossless.webp":
        picture.save(path, lossless=True)
    elif kind == "plain.bmp":
        picture.save(path)
    else:
        picture.save(path, save_all=True, append_images=[picture.rotate(90)])


@pytest.fixture(scope="session")
def alone() -> dict[str, Any]:
    """What the text of a run.py holds, by itself."""
    text = runner.source(base.find("onnx"), runner.answer_of(dense=False, sigmoid=False))
    assert "import counterpoise" not in text
    assert "from counterpoise" not in text
    assert "import torch" not in text
    held: dict[str, Any] = {"__name__": "run"}
    exec(compile(text, "run.py", "exec"), held)
    return held


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extent", [(301, 203), (90, 480), (64, 48)])
def test_pixels_are_those_of_evaluation(
    make_picture: Callable[..., Image.Image],
    tmp_path: Path,
    alone: dict[str, Any],
    kind: str,
    extent: tuple[int, int],
) -> None:
    path = tmp_path / kind
    save(kind, make_picture("stripes", 1, extent), path)
    for reading in (Reading(), Reading("ignore", 4095)):
        picture = alone["loaded"](path, alone["Reading"](*reading))
        whole = images.to_tensor(images.decode(path, reading=reading))
        for size, share, fit in (
            *(((48, 48), share, "crop") for share in (0.875, 1.0)),
            *(((48, 48), 0.875, fit) for fit in ("squash", "pad")),
            ((40, 56), None, "crop"),
        ):
            pixels, covered = alone["pixels_of"](picture, {"size": list(size), "crop_share": share, "fit": fit})
            assert (pixels.shape, covered) == ((1, 3, *size), size)
            assert torch.equal(torch.from_numpy(pixels)[0], pictures.show(whole, size, share, fit))


@pytest.mark.parametrize("kind", ["deep.png", "signed.tif", "scan.dcm", "plain.bmp"])
def test_values_become_eight_bits_as_in_evaluation(
    make_picture: Callable[..., Image.Image], tmp_path: Path, alone: dict[str, Any], kind: str
) -> None:
    path, values = tmp_path / kind, np.arange(63, dtype=np.int16).reshape(9, 7) * 20 - 600
    if kind == "signed.tif":
        tifffile.imwrite(path, values, photometric="minisblack")
    elif kind == "scan.dcm":
        dicom = pydicom.Dataset()
        dicom.file_meta = pydicom.dataset.FileMetaDataset()
        dicom.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dicom.SOPClassUID, dicom.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
        dicom.set_pixel_data(values + 600, "MONOCHROME1", 16)
        dicom.save_as(path, enforce_file_format=True)
    else:
        save(kind, make_picture("stripes", 1, (40, 30)), path)
    for intensity in (("window", -160, 240), ("percentiles", 1, 99), ("zscore", -3, 3), ("white", 0, 200)):
        for channels in (1, 3):
            told = "white", None, 179.0, channels
            picture = alone["loaded"](path, alone["Reading"](*told, alone["Intensity"](*intensity)))
            whole = images.pixels_of(path, reading=Reading(*told, Intensity(*intensity)))
            assert np.array_equal(np.asarray(picture), whole.permute(1, 2, 0))
            assert channels == 3 or np.ptp(whole.numpy()) > 100
    assert [file for file, _ in alone["pictures_in"]([tmp_path])] == [path]


def test_exports_of_before_crop_and_lie_over_white(alone: dict[str, Any], make_picture: Callable[..., Any]) -> None:
    picture = make_picture("circle", 1, (90, 40))
    older, newer = {"size": [32, 32], "crop_share": 0.9}, {"size": [32, 32], "crop_share": 0.9, "fit": "crop"}
    assert np.array_equal(alone["pixels_of"](picture, older)[0], alone["pixels_of"](picture, newer)[0])


def test_what_is_wrong_with_a_file_is_said_and_further_pages_are(
    alone: dict[str, Any], make_picture: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(white := io.BytesIO(), np.zeros((4, 4), np.uint16), photometric="miniswhite")
    for name, content in (("empty.png", b""), ("text.jpg", b"no picture"), ("white.tif", white.getvalue())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(alone["Unreadable"]) as caught:
            alone["loaded"](tmp_path / name, alone["Reading"]())
        with pytest.raises(CorruptImage, match=re.escape(str(caught.value))):
            images.decode(tmp_path / name)
    save("pages.tif", make_picture("circle", 1), tmp_path / "pages.tif")
    runner.loaded(tmp_path / "pages.tif", Reading())
    assert "pages.tif has 2 pages or frames: only the first is read" in capsys.readouterr().err
    with pytest.raises(Unreadable, match=r"max_megapixels 0\.001 allows"):
        runner.loaded(tmp_path / "pages.tif", Reading(max_megapixels=0.001))


def answering(here: Path, dense: bool, outputs: str = "logits", **told: Any) -> Callable[..., Any]:
    """An export folder of a network that answers with the mean of each channel; how its pictures are answered.

    told: what its export.json says of what the network takes.
    """
    about = {
        "task": "segmentation" if dense else "classification",
        "architecture": "test/mean",
        "classes": ["red", "green", "blue"],
        "outputs": outputs,
        "input": {"size": [8, 8], "crop_share": None if dense else 1.0, "batch": 1, **told},
    }
    here.mkdir()
    (here / "export.json").write_text(json.dumps(about))

    def load(path: str, threads: int | None) -> Callable[..., Any]:
        return lambda pixels: np.float32(pixels / 255) if dense else pixels.mean((2, 3))

    answer = runner.write_mask if dense else runner.top_five
    return lambda *given: runner.main(here, "export.json", "none", answer, load, [str(each) for each in given])


def test_a_folder_is_answered_and_a_damaged_picture_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = answering(tmp_path / "export", dense=False)
    photos = tmp_path / "photos"
    (photos / "inner").mkdir(parents=True)
    Image.new("RGB", (9, 9), (200, 0, 0)).save(photos / "a.png")
    Image.new("RGB", (9, 9), (0, 0, 200)).save(photos / "inner" / "b.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "notes.txt").write_text("no picture")
    assert ask(photos) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [lines[0], lines[4]] == [str(photos / "a.png"), str(photos / "inner" / "b.png")]
    assert [lines[1].split()[1], lines[5].split()[1]] == ["red", "blue"]
    assert f"Error: {photos / 'broken.jpg'} is not answered: it is not a picture of a known format" in printed.err
    assert ask(photos / "a.png") == 0
    assert capsys.readouterr().out.splitlines()[0].split()[1] == "red"
    with pytest.raises(SystemExit) as stop:
        ask("--help")
    assert stop.value.code == 0
    assert "picture files, or folders of them" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_export_and_a_picture_that_fails_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_picture: Callable[..., Any]
) -> None:
    ask = answering(tmp_path / "export", dense=False)
    save("pages.tif", make_picture("circle", 1), tmp_path / "pages.tif")
    content = bytearray((tmp_path / "pages.tif").read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    behind = first + 2 + 12 * struct.unpack("<H", content[first : first + 2])[0]
    content[behind : behind + 4] = struct.pack("<I", 2**31)
    (tmp_path / "pages.tif").write_bytes(content)  # its second page lies behind the end
    assert ask(tmp_path / "pages.tif") == 0

    def fails(path: str, threads: int | None) -> Any:
        def run(pixels: Any) -> Any:
            raise RuntimeError("of the runtime's own")

        return run

    given = (tmp_path / "export", "export.json", "none", runner.top_five)
    assert runner.main(*given, fails, [str(tmp_path / "pages.tif")]) == 2
    assert "pages.tif is not answered: of the runtime's own" in capsys.readouterr().err
    assert runner.main(*given, lambda path, threads: 1 / 0, [str(tmp_path / "pages.tif")]) == 2
    assert "none cannot be opened: ZeroDivisionError" in capsys.readouterr().err
    (tmp_path / "export" / "export.json").unlink()
    assert ask(tmp_path / "pages.tif") == 2
    assert "export.json cannot be read: " in capsys.readouterr().err


def test_no_mask_is_overwritten_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ask = answering(tmp_path / "export", dense=True)
    Image.new("RGB", (9, 7), (200, 0, 0)).save("a.png")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (9, 7), (0, 200, 0)).save("more/a.png")
    Path("mask.png").write_bytes(b"mine")
    assert ask("a.png") == 2
    assert Path("mask.png").read_bytes() == b"mine"
    assert "mask.png is there already: give --overwrite, or another --out" in capsys.readouterr().err
    assert ask("a.png", "--overwrite") == 0
    assert np.asarray(Image.open("mask.png")).shape == (7, 9)
    assert ask("a.png", "more", "--out", "masks") == 0
    assert sorted(path.name for path in Path("masks").iterdir()) == ["a--mask.png", "a-mask.png"]
    assert np.unique(Image.open("masks/a--mask.png")).tolist() == [1]
    assert "1.0000  red" in capsys.readouterr().out


@pytest.mark.parametrize("takes", [{}, {"window": {"stride": [4, 4], "blend": "mean"}, "around": [0, 0, 0]}])
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_probabilities_come_into_a_folder_that_was_not_there_and_are_not_softened_twice(
    tmp_path: Path, takes: dict[str, Any], outputs: str
) -> None:
    ask = answering(tmp_path / "export", True, outputs, **takes)
    color = np.array([51, 51, 153])
    Image.fromarray(np.broadcast_to(color.astype(np.uint8), (9, 12, 3)).copy()).save(tmp_path / "a.png")
    assert ask(tmp_path / "a.png", "--out", tmp_path / "new" / "inner" / "mask.png", "--probabilities") == 0
    found = {path.name: np.unique(Image.open(path)) for path in (tmp_path / "new" / "inner").iterdir()}
    assert found.pop("mask.png").tolist() == [2]
    expected = np.exp(color / 255) / np.exp(color / 255).sum() if outputs == "logits" else color / 255
    for name, share in zip(("red", "green", "blue"), expected, strict=True):
        np.testing.assert_allclose(found[f"{name}-probability.png"] / 65535, share, atol=1e-5)
    assert len(found) == 3
