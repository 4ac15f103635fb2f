"""Folders of images and masks: layouts, and what is said where the two do not fit."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.label_map import read_label_map
from counterpoise.data.mask_file import read_mask
from counterpoise.data.scene_loader import SceneEvalLoader
from counterpoise.data.sources.base import IGNORE, ImageSet
from counterpoise.data.sources.memory import in_memory
from counterpoise.errors import ConfigError, CorruptImage, DataError

NAMES = ("ground", "void", "circle", "square")


def load(path: Path, source: str = "auto", **options: Any) -> tuple[ImageSet, ImageSet]:
    train, val = sources.load(config.Data(path=path, source=source, val_fraction=0.25, options=options))
    assert train.masked
    assert val.masked
    return train, val


def names(images: sources.ImageSet, root: Path) -> list[str]:
    return [Path(images.name(index)).relative_to(root / "images").as_posix() for index in range(len(images))]


def write(root: Path, key: str, seed: int, draw: Callable[..., Image.Image]) -> None:
    """A picture 40 x 32 at images/KEY.jpg and its mask: ground 0, a void line, and the shape's box as 2 or 3."""
    image, mask = root / "images" / f"{key}.jpg", root / "masks" / f"{key}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    shape = ("circle", "square")[seed % 2]
    draw(shape, seed, (40, 32)).save(image)
    values = np.zeros((32, 40), dtype=np.uint8)
    values[8:24, 10 : 20 + seed] = NAMES.index(shape)
    values[0] = 1
    Image.fromarray(values).save(mask)


@pytest.fixture
def scenes(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    """{images,masks}/{train,val,test} with 4, 2 and 3 files, train with a folder more; classes with void at 1."""
    root = tmp_path / "scenes"
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for number in range(count):
            inner = "deep/" if split == "train" and number == 3 else ""
            write(root, f"{split}/{inner}{number}", number, make_picture)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


@pytest.fixture
def flat(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    """images/0.jpg to 7.jpg and their masks."""
    root = tmp_path / "flat"
    for number in range(8):
        write(root, str(number), number, make_picture)
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def test_split_folders_are_read(scenes: Path) -> None:
    train, val = load(scenes)
    assert names(train, scenes) == ["train/0.jpg", "train/1.jpg", "train/2.jpg", "train/deep/3.jpg"]
    assert names(val, scenes) == ["val/0.jpg", "val/1.jpg"]
    assert train.classes == val.classes == ("ground", "circle", "square")
    assert train.labels.tolist() == [0] * 4
    mask = train.read_mask(3)
    assert (mask.dtype, mask.shape) == (torch.uint8, train.read(3).shape[1:])
    expected = torch.zeros(32, 40, dtype=torch.uint8)
    expected[8:24, 10:23] = 2
    expected[0] = IGNORE
    assert torch.equal(mask, expected)


def test_split_to_evaluate_on_can_be_chosen(scenes: Path) -> None:
    assert names(load(scenes, val_split="test")[1], scenes) == ["test/0.jpg", "test/1.jpg", "test/2.jpg"]
    with pytest.raises(DataError, match=r"has no split 'tset'. Did you mean 'test'"):
        load(scenes, val_split="tset")


def test_list_files_divide_a_flat_folder(flat: Path) -> None:
    (flat / "train.txt").write_text("0\n2.jpg\nimages/4.jpg\n\n")
    (flat / "val.txt").write_text("7\n")
    (flat / "test.txt").write_text("6\n5\n")
    train, val = load(flat)
    assert names(train, flat) == ["0.jpg", "2.jpg", "4.jpg"]
    assert names(val, flat) == ["7.jpg"]
    assert names(load(flat, val_split="test")[1], flat) == ["6.jpg", "5.jpg"]
    (flat / "lists").mkdir()
    (flat / "val.txt").rename(flat / "lists" / "val.txt")
    (flat / "train.txt").rename(flat / "lists" / "train.txt")
    assert names(load(flat, lists="lists")[1], flat) == ["7.jpg"]


def test_what_a_list_gets_wrong_is_named(flat: Path) -> None:
    (flat / "train.txt").write_text("0\n1\n")
    (flat / "val.txt").write_text("3\n33\n")
    with pytest.raises(DataError, match=r"val.txt names '33', which is not in .*images.* A line is the path"):
        load(flat)
    (flat / "val.txt").write_text("3\n3.jpg\n")
    with pytest.raises(DataError, match="names '3' twice"):
        load(flat)
    (flat / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt is empty"):
        load(flat)
    for name in ("../flat/images/3.jpg", "/etc/passwd", str(flat / "images" / "3.jpg")):  # leads out of the folder
        (flat / "val.txt").write_text(f"{name}\n")
        with pytest.raises(DataError, match=rf"val.txt names '{name}', which is not in .*images"):
            load(flat)


def test_flat_folder_is_split_by_fraction(flat: Path) -> None:
    train, val = load(flat)
    assert (len(train), len(val)) == (6, 2)
    assert sorted(names(train, flat) + names(val, flat)) == [f"{number}.jpg" for number in range(8)]
    with pytest.raises(DataError, match=r"has no split 'test'"):
        load(flat, val_split="test")


def test_layout_of_cityscapes_is_read_by_names_and_suffixes(scenes: Path) -> None:
    for old, new, suffix in (("images", "leftImg8bit", "_leftImg8bit"), ("masks", "gtFine", "_gtFine_labelTrainIds")):
        (scenes / old).rename(scenes / new)
        for path in sorted((scenes / new).rglob("*.*")):
            path.rename(path.with_name(path.stem + suffix + path.suffix))
    other = scenes / "gtFine" / "train" / "0_gtFine_color.png"
    shutil.copy(next((scenes / "gtFine" / "train").glob("0_*")), other)
    options = {"images": "leftImg8bit", "masks": "gtFine", "image_suffix": "_leftImg8bit"}
    train, val = load(scenes, "masks_folder", **options, mask_suffix="_gtFine_labelTrainIds")
    assert (len(train), len(val)) == (4, 2)
    assert train.name(0).endswith("leftImg8bit/train/0_leftImg8bit.jpg")
    with pytest.raises(DataError, match="whose name ends in '_ids'"):
        load(scenes, "masks_folder", **options, mask_suffix="_ids")


def test_missing_mask_is_named_and_no_other_offered(scenes: Path) -> None:
    (scenes / "masks" / "train" / "2.png").unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 images have no mask below .*masks; the first is .*train/2.jpg"
    ) as told:
        load(scenes)
    assert "Did you mean" not in str(told.value)
    (scenes / "masks" / "train" / "1.png").unlink()
    with pytest.raises(DataError, match=r"2 of 4 images have no mask .* the first is .*train/1.jpg\. Add these"):
        load(scenes)


def test_names_that_end_otherwise_are_answered_with_their_endings(scenes: Path) -> None:
    for path in sorted((scenes / "masks").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(DataError, match=r"set data.options.mask_suffix to _mask\."):
        load(scenes)
    for path in sorted((scenes / "images").rglob("*.jpg")):
        path.rename(path.with_name(f"{path.stem}_training.jpg"))
    expected = r"set data.options.image_suffix to _training and data.options.mask_suffix to _mask\."
    with pytest.raises(DataError, match=expected):
        load(scenes)
    assert len(load(scenes, image_suffix="_training", mask_suffix="_mask")[0]) == 4


def test_mask_without_an_image_is_named(scenes: Path) -> None:
    (scenes / "images" / "val" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"val holds 2 masks and .*val 1 images; val/1.png belongs to none"):
        load(scenes)


def test_two_files_of_one_name_are_refused(flat: Path) -> None:
    shutil.copy(flat / "images" / "3.jpg", flat / "images" / "3.jpeg")
    with pytest.raises(DataError, match=r"3.jpeg and .*3.jpg differ in nothing but their ending"):
        load(flat)


def test_jpeg_masks_are_refused_unless_read_by_the_nearest_class(flat: Path) -> None:
    with Image.open(flat / "masks" / "0.png") as mask:
        mask.save(flat / "masks" / "0.jpg", quality=100)
        mask.save(flat / "masks" / "0.png", "JPEG", quality=100)
    with pytest.raises(CorruptImage, match="is a JPEG file, whatever its name says, and that changes values"):
        read_mask(flat / "masks" / "0.png", read_label_map(flat / "classes.txt"))
    (flat / "masks" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0.jpg is of a format that may change values; masks are PNG.*lossy to true"):
        load(flat)
    with pytest.raises(ConfigError, match="too near for that"):
        load(flat, lossy=True)
    (flat / "classes.txt").write_text("ground 0\nvoid 40\ncircle 80\nsquare 160\n")
    assert load(flat, lossy=True)[0].classes == ("ground", "circle", "square")


def shrink(scenes: Path, keys: tuple[str, ...], size: tuple[int, int] = (20, 16)) -> None:
    for key in keys:
        with Image.open(scenes / "masks" / f"{key}.png") as mask:
            mask.resize(size, Image.Resampling.NEAREST).save(scenes / "masks" / f"{key}.png")


def test_all_masks_of_another_size_are_counted_at_once(scenes: Path) -> None:
    shrink(scenes, ("train/0", "train/1", "train/2", "val/1"))
    with pytest.raises(DataError) as told:
        load(scenes)
    for part in (
        "4 of 6 masks are of another size",
        "train/1.png is 20 x 16 pixels, and its image",
        "train/1.jpg is 40 x 32",
        "and 1 more",
        "--data.options.resize_masks true",
        "--data.on_corrupt skip",
    ):
        assert part in str(told.value)


def test_masks_of_another_size_are_skipped_where_asked(scenes: Path) -> None:
    shrink(scenes, ("train/1", "val/1"))
    train, val = sources.load(config.Data(path=scenes, on_corrupt="skip"))
    assert train.masked
    assert any("2 of 6 masks are of another size" in note and "left out" in note for note in train.notes)
    loader = SceneEvalLoader(in_memory(train, 1e9, "skip"), workers=0, on_corrupt="skip")
    assert [index for batch in loader for index in batch.indices.tolist()] == [0, 2, 3]
    assert [Path(name).name for name in loader.corrupt] == ["1.png"]
    assert val.name(1).endswith("val/1.jpg")


def test_masks_are_resized_where_asked(scenes: Path) -> None:
    before = load(scenes)[0]
    shrink(scenes, ("train/1",))
    train, _ = load(scenes, resize_masks=True)
    assert train.fingerprint() != before.fingerprint()
    mask, old = train.read_mask(1), before.read_mask(0)
    assert mask.shape == old.shape == (32, 40)
    assert mask[20, 15] == 2
    assert mask[31, 39] == 0


@pytest.mark.parametrize("size", [(32, 40), (40, 20)])
def test_masks_of_another_shape_are_not_stretched(scenes: Path, size: tuple[int, int]) -> None:
    shrink(scenes, ("train/1",), size)
    with pytest.raises(
        DataError, match=rf"1.png is {size[0]} x {size[1]} pixels, which is another shape, and its image"
    ):
        load(scenes, resize_masks=True)


def test_lists_that_share_pictures_are_refused_unless_meant(flat: Path) -> None:
    (flat / "train.txt").write_text("0\n1\n2\n3\n")
    (flat / "val.txt").write_text("7\nimages/3.jpg\n1\n")
    with pytest.raises(
        DataError, match=r"train.txt and .*val.txt share 2 images, such as 1, 3: .*--data.options.shared"
    ):
        load(flat)
    train, val = load(flat, shared=True)
    assert (len(train), len(val)) == (4, 3)


def test_what_is_wrong_with_the_first_mask_is_said_at_once(scenes: Path) -> None:
    Image.fromarray(np.full((32, 40), 7, dtype=np.uint8)).save(scenes / "masks" / "val" / "0.png")
    with pytest.raises(DataError, match=r"val/0.png holds the value 7"):
        load(scenes)
    (scenes / "masks" / "val" / "0.png").write_bytes(b"")
    with pytest.raises(CorruptImage, match=r"val/0.png cannot be read"):
        load(scenes)
    skipping = config.Data(path=scenes, on_corrupt="skip")
    assert len(sources.load(skipping).val) == 2


def test_folders_must_be_there(scenes: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder 'mask'; expected .* Did you mean 'masks'"):
        load(scenes, masks="mask")
    shutil.rmtree(scenes / "images" / "val")
    (scenes / "images" / "val").mkdir()
    with pytest.raises(DataError, match="val holds no images"):
        load(scenes)


def test_classes_file_may_lie_elsewhere(scenes: Path, tmp_path: Path) -> None:
    (scenes / "classes.txt").rename(tmp_path / "names.txt")
    assert load(scenes, classes=str(tmp_path / "names.txt"))[0].classes == ("ground", "circle", "square")
    with pytest.raises(DataError, match=r"Classes file .*classes.txt cannot be read: No such file"):
        load(scenes)


def test_ignored_value_may_be_any(scenes: Path) -> None:
    assert load(scenes, ignore=0)[0].classes == ("circle", "square")
    with pytest.raises(ConfigError, match=r"data.options.ignore must be 0 to 255.*got 256"):
        load(scenes, ignore=256)


def test_camvid_is_read_as_it_is_unpacked(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "camvid" / "camvid.zip") as archive:
        every = sorted(archive.namelist())
        for split in ("train", "val", "test"):
            for side in ("images", "masks"):
                found = [name for name in every if name.startswith(f"{side}/{split}/") and not name.endswith("/")]
                archive.extractall(tmp_path, found[:3])
    classes = [f"class {index}" for index in range(11)]
    (tmp_path / "classes.txt").write_text("\n".join([*classes, "void"]))
    train, val = load(tmp_path)
    assert train.classes == tuple(classes)
    values = torch.cat([images.read_mask(index).flatten() for images in (train, val) for index in range(3)])
    assert torch.bincount(values[values != IGNORE]).numel() <= 11
    assert (values == IGNORE).any()
    assert len(load(tmp_path, val_split="test")[1]) == 3
