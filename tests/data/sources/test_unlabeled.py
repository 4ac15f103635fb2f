"""Pictures without labels beside labeled ones: from folders, volumes, packs and tables, without any mask among them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import checking, sources
from counterpoise.data.sources.base import IGNORE, ImageSet
from counterpoise.errors import DataError


def draw(file: Path, seed: int, size: tuple[int, int] = (9, 7)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return file


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six pictures of 9 x 7 with masks of two classes, and beside them three without, of other sizes."""
    for number in range(6):
        draw(tmp_path / "scenes" / "images" / f"p{number}_1.png", number)
        mask = draw(tmp_path / "scenes" / "masks" / f"p{number}_1.png", number)
        Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9) % 2).save(mask)
    (tmp_path / "scenes" / "classes.txt").write_text("background\nvessel\n")
    for number in range(3):
        draw(tmp_path / "more" / "deep" / f"p{number + 7}_1.png", 50 + number, (11, 8))
    return tmp_path / "scenes"


def load(path: Path, unlabeled: Path, **data: Any) -> tuple[ImageSet, list[int]]:
    """The training images, and the numbers of those without a mask; these are void."""
    train = sources.load(config.Data.model_validate({"path": path, "unlabeled": unlabeled, **data})).train
    blank = torch.nonzero(train.labels == -1).flatten().tolist()
    for index in blank:
        assert train.masked
        assert torch.equal(train.read_mask(index), torch.full(train.read(index).shape[1:], IGNORE, dtype=torch.uint8))
    return train, blank


def test_pictures_of_a_folder_a_pack_of_scenes_and_a_table_are_void_beside_masks(scenes: Path, tmp_path: Path) -> None:
    more = sorted((scenes.parent / "more").rglob("*.png"))
    pixels = [np.array(Image.open(file)) for file in more]
    with (tmp_path / "more.csv").open("w", newline="") as file:
        listed = zip(("val", "train", "train", "val", "train"), (more[2], *more, more[0]), strict=True)
        rows = [["split", "picture"], *([part, f"more/deep/{name.name}"] for part, name in listed)]
        csv.writer(file).writerows(rows)
    for unlabeled in (scenes.parent / "more", tmp_path / "more.csv"):
        train, blank = load(scenes, unlabeled)
        found = [train.read(index).permute(1, 2, 0).numpy() for index in blank]
        assert all(map(np.array_equal, found, pixels))
        assert [Path(train.name(index)).name for index in blank] == [file.name for file in more]
    said = [note for note in train.notes if "all 3 pictures in column 'picture'" in note]
    assert "of every part in column 'split'" in said[0]
    counterpoise.pack(scenes, out=tmp_path / "pack")
    train, blank = load(scenes, tmp_path / "pack")
    assert len(blank) == 6
    assert any("the masks in" in note and "left alone" in note for note in train.notes)
    questions = {"questions": {"vessel": ["vessel"]}}
    assert load(scenes, scenes.parent / "more", **questions)[0].questions is not None


def test_volumes_without_labels_are_sliced_as_those_with_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-500, 500, (4, 6, 8, 5)).astype(np.int16)
    for number, volume in enumerate(values):
        folder = tmp_path / ("imagesTr" if number < 3 else "imagesTs")
        folder.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"c{number}_0000.nii.gz")
        if number < 3:
            (tmp_path / "labelsTr").mkdir(exist_ok=True)
            label = nibabel.Nifti1Image((volume > 0).astype(np.uint8), np.eye(4))
            nibabel.save(label, tmp_path / "labelsTr" / f"c{number}.nii.gz")
    (tmp_path / "classes.txt").write_text("background\nliver\n")
    read = {"intensity": {"window": [-160, 240]}, "channels": 1, "options": {"axis": 1}}
    train, blank = load(tmp_path, tmp_path / "imagesTs", **read)
    assert len(blank) == 8
    assert Path(train.name(blank[5])).name == "c3 #5"
    expected = np.floor(np.clip((values[3][:, 5].T + 160.0) / 400, 0, 1) * 255 + 0.5)
    assert np.array_equal(train.read(blank[5])[0], expected)
    with pytest.raises(DataError, match=r"name the folder of the pictures or volumes themselves, such as .*imagesTs"):
        load(tmp_path, tmp_path, **read)
    with pytest.raises(DataError, match="has 1 channels"):
        load(tmp_path, tmp_path / "imagesTs", **{**read, "channels": 2})


def test_masks_are_never_taken_for_pictures_and_patients_of_val_are_named(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has masks or other folders beside them.*such as .*images"):
        load(scenes, scenes)
    with pytest.raises(DataError, match=r"data.unlabeled must be a folder, a pack or a table"):
        load(scenes, scenes / "classes.txt")
    (tmp_path / "none.csv").write_text("picture\nnot.png\n")
    with pytest.raises(DataError, match=r"1 of 1 pictures that .*none.csv names are not there"):
        load(scenes, tmp_path / "none.csv")
    for number in range(6):
        draw(tmp_path / "again" / f"p{number}_2.png", 80 + number)
    data = config.Data.model_validate({"path": scenes, "unlabeled": tmp_path / "again", "val_fraction": 0.3})
    assert any("p" in problem.what and "val" in problem.what for problem in checking.cheap(sources.load(data)))


def test_a_table_of_photos_teaches_by_the_teachers_word(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("file,label\nshapes/val/circle/00.jpg,circle\nshapes/val/square/01.png,square\n")
    train = sources.load(config.Data(path=image_folder, unlabeled=tmp_path / "more.csv")).train
    assert train.labels[-2:].tolist() == [-1, -1]
    assert train.classes == ("circle", "square", "stripes")
