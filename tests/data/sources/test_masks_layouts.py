"""Folders of images and masks as others lay them out: which are read, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.checking import check
from counterpoise.data.sources import source_of
from counterpoise.errors import DataError


def picture(path: Path, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 40, sum(str(path).encode()) % 256)).save(path)  # each of its own


def mask(path: Path, value: int = 255, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], dtype=np.uint8)
    values[4:12, 6:18] = value
    Image.fromarray(values).save(path)


def retinas(root: Path) -> Path:
    """images/21_training.tif, 1st_manual/21_manual1.gif and mask/21_training_mask.gif, four of each."""
    for number in range(21, 25):
        picture(root / "images" / f"{number}_training.tif")
        mask(root / "1st_manual" / f"{number}_manual1.gif")
        mask(root / "mask" / f"{number}_training_mask.gif")
    return root


def test_masks_by_hand_beside_fields_of_view_are_described_with_their_flags(tmp_path: Path) -> None:
    root = retinas(tmp_path / "training")
    (problem,) = check(config.Data(path=root)).problems
    assert (
        "pictures in 'images', masks in '1st_manual'; 'mask' holds the field of view there, and no class"
        in problem.what
    )
    flags = "--data.options.masks 1st_manual --data.options.image_suffix _training --data.options.mask_suffix _manual1"
    assert flags in problem.way_out
    with pytest.raises(DataError, match="1st_manual"):
        sources.load(config.Data(path=root))
    retinas(tmp_path / "test")
    with pytest.raises(DataError, match=rf"{root} looks like scenes .*1st_manual"):
        sources.load(config.Data(path=tmp_path))


def test_flags_of_a_description_read_the_data(tmp_path: Path) -> None:
    root = retinas(tmp_path / "training")
    options = {"masks": "1st_manual", "image_suffix": "_training", "mask_suffix": "_manual1"}
    data = config.Data(path=root, source="masks_folder", val_fraction=0.5, options=options)
    with pytest.raises(DataError, match=r"classes.txt cannot be read.* would be 'NAME 0' \(80%\), 'NAME 1' \(20%\)"):
        sources.load(data)
    (root / "classes.txt").write_text("background 0\nvessel 255\n")
    train, val = sources.load(data)
    assert (len(train), len(val)) == (2, 2)
    view = {**options, "masks": "mask", "mask_suffix": "_training_mask"}
    found = check(data.model_copy(update={"options": view}))
    assert any(problem.severity == "warning" and "field of view" in problem.what for problem in found.problems)


def test_halves_of_folders_of_masks_a_picture_are_described(tmp_path: Path) -> None:
    for half in ("stage1_train", "stage1_test"):
        for name in ("0a7e06", "f952cc", "ff3407"):
            picture(tmp_path / half / name / "images" / f"{name}.png")
            for number in range(0 if "test" in half else 3):
                mask(tmp_path / half / name / "masks" / f"{number}.png")
    (problem,) = check(config.Data(path=tmp_path)).problems
    assert "a folder for each of 3 pictures, with the picture and a mask for each object on it" in problem.what
    assert "0a7e06/masks with 3" in problem.what
    assert f"--data.path {tmp_path}/stage1_train" in problem.way_out
    assert len(sources.load(config.Data(path=tmp_path / "stage1_train", val_fraction=0.4)).train) == 2


def test_images_and_masks_within_the_halves_are_read(tmp_path: Path) -> None:
    for half, count in (("Train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            picture(tmp_path / half / "images" / f"{number}.png")
            mask(tmp_path / half / "masks" / f"{number}.png", 1)
    (tmp_path / "classes.txt").write_text("background\nlesion\n")
    train, val = sources.load(config.Data(path=tmp_path))
    assert train.masked
    assert (len(train), len(val)) == (3, 2)
    assert train.name(0) == str(tmp_path / "Train" / "images" / "0.png")
    assert train.read_mask(0).sum() == 8 * 12
    assert len(sources.load(config.Data(path=tmp_path, options={"val_split": "test"})).val) == 1


def test_pictures_with_masks_in_class_folders_stay_classes(tmp_path: Path) -> None:
    for name in ("covid", "normal"):
        for number in range(4):
            picture(tmp_path / name / "images" / f"{number}.png")
            mask(tmp_path / name / "masks" / f"{number}.png")
    assert source_of(config.Data(path=tmp_path)) == "image_folder"


def test_leftovers_are_no_scenes(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png", 1)
    (tmp_path / "classes.txt").write_text("background\nlesion\n")
    picture(tmp_path / "images" / "@eaDir" / "0.png")
    picture(tmp_path / "images" / "__MACOSX" / "._1.png")
    (tmp_path / "masks" / "Thumbs.db").write_bytes(b"x")
    found = check(config.Data(path=tmp_path, val_fraction=0.25))
    assert found.found is not None
    assert found.found.values["train"]["images"] == 3
    assert [problem.severity for problem in found.problems] == ["warning"]
    assert "other programs left there" in found.problems[0].what


def test_check_names_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png", 1)
    (tmp_path / "classes.txt").write_text("background\nlesion\n")
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (tmp_path / "val.txt").write_text("5\n6\n7\n")
    (tmp_path / "masks" / "6.png").unlink()
    mask(tmp_path / "masks" / "1.png", 9)
    mask(tmp_path / "masks" / "2.png", 7)
    mask(tmp_path / "masks" / "3.png", 1, (12, 10))
    Image.new("RGB", (24, 20), (128, 64, 128)).save(tmp_path / "masks" / "4.png")
    (tmp_path / "masks" / "5.png").write_bytes(b"no picture")
    (tmp_path / "images" / "7.png").write_bytes((tmp_path / "images" / "7.png").read_bytes()[:60])
    found = check(config.Data(path=tmp_path))
    said = "\n".join(problem.sentence for problem in found.problems)
    for part in (
        "share 1 images, such as 5",
        "1 of 3 images have no mask",
        "1.png holds the value 9",
        "1 more masks are like it",
        "1 of 8 masks are of another size",
        "4.png holds colors (128 64 128)",
        "5.png cannot be read",
    ):
        assert part in said, part
    assert all(problem.severity == "error" for problem in found.problems)
    with pytest.raises(DataError, match="counterpoise check"):
        sources.load(config.Data(path=tmp_path))


def test_masks_saved_as_jpeg_are_one_finding(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.jpg")
    (tmp_path / "classes.txt").write_text("background 0\nlesion 255\n")
    (problem,) = check(config.Data(path=tmp_path)).problems
    assert "(2 more)" in problem.what
    assert "data.options.lossy to true" in problem.way_out


def test_colors_without_names_are_listed_over_all_masks(tmp_path: Path) -> None:
    for number, color in enumerate(((0, 128, 0), (128, 0, 0), (0, 0, 128))):
        picture(tmp_path / "images" / f"{number}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        painted = Image.new("RGB", (24, 20))
        painted.paste(color, (0, 0, 12, 10))
        painted.save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("background\ntree\nhouse\nwater\n")
    (problem,) = check(config.Data(path=tmp_path)).problems
    assert "'NAME 0 0 0' (75%), 'NAME 0 0 128' (8.3%), 'NAME 0 128 0' (8.3%)" in problem.way_out
