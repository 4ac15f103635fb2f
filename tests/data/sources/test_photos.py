"""Folders of photos without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import DataError


def test_photos_have_no_labels_and_no_classes(image_folder: Path) -> None:
    train, val = sources.load(config.Data(path=image_folder / "train" / "circle", val_fraction=0.25))
    assert (len(train), len(val)) == (6, 2)
    assert train.classes == val.classes == ()
    assert train.labels.unique().tolist() == val.labels.unique().tolist() == [-1]
    assert train.read(0).shape[0] == 3


def test_photos_are_taken_from_any_depth_when_asked_for(image_folder: Path) -> None:
    train, val = sources.load(config.Data(path=image_folder, source="photos"))
    assert (len(train), len(val)) == (24, 12)
    assert train.classes == ()


def test_train_and_val_of_photos_are_recognized(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (image_folder / "train" / "circle").rename(root / "train")
    (image_folder / "val" / "square").rename(root / "val")
    train, val = sources.load(config.Data(path=root))
    assert (len(train), len(val)) == (8, 4)
    assert train.classes == ()


def test_folder_without_photos_is_refused(tmp_path: Path, image_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        sources.load(config.Data(path=tmp_path / "empty", source="photos"))
    with pytest.raises(DataError, match="empty holds no images"):
        sources.load(config.Data(path=image_folder, unlabeled=tmp_path / "empty"))
