"""Class folders on disk, as people have them and as they get them wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from counterpoise import config, evaluate, load_student, train
from counterpoise.data import sources
from counterpoise.errors import CorruptImage, DataError
from counterpoise.models import catalog

Run = Callable[..., tuple[int, str, str]]


def load(path: Path, source: str = "image_folder", **values: Any) -> sources.Splits:
    return sources.load(config.Data(path=path, source=source, **values))


def names(images: sources.ImageSet) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def test_train_and_val_folders_are_read(image_folder: Path) -> None:
    train, val = load(image_folder)
    assert train.classes == val.classes == ("circle", "square", "stripes")
    assert torch.bincount(train.labels).tolist() == [8, 8, 8]
    assert torch.bincount(val.labels).tolist() == [4, 4, 4]
    for images in (train, val):
        for index, name in enumerate(names(images)):
            assert Path(name).parent.name == images.classes[images.labels[index]]
            pixels = images.read(index)
            assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, *images.extent(index)))


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_val_may_have_other_names(image_folder: Path, name: str) -> None:
    (image_folder / "val").rename(image_folder / name)
    assert len(load(image_folder).val) == 12


def test_val_is_preferred_to_test(image_folder: Path) -> None:
    shutil.copytree(image_folder / "train", image_folder / "test")
    assert len(load(image_folder).val) == 12


@pytest.mark.parametrize("inner", ["", "train"])
def test_one_folder_is_split_by_fraction_and_seed(image_folder: Path, inner: str) -> None:
    shutil.rmtree(image_folder / "val")
    path = image_folder if inner == "" else image_folder / "train"
    train, val = load(path, val_fraction=0.25)
    assert torch.bincount(train.labels).tolist() == [6, 6, 6]
    assert torch.bincount(val.labels).tolist() == [2, 2, 2]
    assert not set(names(train)) & set(names(val))
    assert names(load(path, val_fraction=0.25).val) == names(val)
    assert names(load(path, val_fraction=0.25, split_seed=1).val) != names(val)


def test_files_may_be_nested_hidden_ones_and_others_are_ignored(image_folder: Path) -> None:
    circle = image_folder / "train" / "circle"
    (circle / "more" / "deep").mkdir(parents=True)
    (circle / "00.jpg").rename(circle / "more" / "deep" / "00.JPG")
    (circle / "._01.png").write_bytes(b"x")
    (circle / ".cache").mkdir()
    shutil.copy(circle / "01.png", circle / ".cache" / "01.png")
    (circle / "notes.txt").write_text("x")
    (image_folder / "train" / ".hidden").mkdir()
    (image_folder / "train" / "index.png").write_bytes(b"x")
    train = load(image_folder).train
    assert train.classes == ("circle", "square", "stripes")
    found = [Path(name).relative_to(circle).as_posix() for name in names(train) if "circle" in name]
    assert found == ["01.png", "02.jpg", "03.png", "04.jpg", "05.png", "06.jpg", "07.png", "more/deep/00.JPG"]


def test_links_are_followed_once(image_folder: Path) -> None:
    (image_folder / "train" / "circle").rename(image_folder / "round")
    (image_folder / "train" / "circle").symlink_to(image_folder / "round")
    (image_folder / "round" / "up").symlink_to(image_folder / "round")
    assert torch.bincount(load(image_folder).train.labels).tolist() == [8, 8, 8]


def test_class_called_train_is_a_class(image_folder: Path) -> None:
    (image_folder / "train" / "stripes").rename(image_folder / "train" / "train")
    for source in ("image_folder", "auto"):
        splits = load(image_folder / "train", source, val_fraction=0.5)
        assert splits.train.classes == ("circle", "square", "train")
    (image_folder / "val" / "stripes").rename(image_folder / "val" / "train")
    assert load(image_folder).train.classes == ("circle", "square", "train")


def test_val_may_lack_a_class(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "val" / "circle")
    assert load(image_folder).val.labels.unique().tolist() == [1, 2]


def test_empty_folder_has_no_class_folders(tmp_path: Path) -> None:
    for source in ("auto", "image_folder"):
        with pytest.raises(DataError, match="has no class folders; expected one folder of images for each class"):
            load(tmp_path, source)


def test_loose_images_point_to_the_photos_source(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"no class folders.* source 'photos'"):
        load(image_folder / "train" / "circle")


def test_one_class_is_refused_by_name(image_folder: Path) -> None:
    for name in ("square", "stripes"):
        shutil.rmtree(image_folder / "train" / name)
    for path in (image_folder, image_folder / "train"):
        with pytest.raises(DataError, match="one class only, 'circle'"):
            load(path)


@pytest.mark.parametrize("left", ["", "notes.txt"])
def test_empty_class_is_named(image_folder: Path, left: str) -> None:
    square = image_folder / "train" / "square"
    shutil.rmtree(square)
    square.mkdir()
    if left:
        (square / left).write_text("x")
    with pytest.raises(DataError, match="Class 'square' is empty") as caught:
        load(image_folder)
    assert ("such as notes.txt" in str(caught.value)) == bool(left)


def test_class_of_val_that_train_lacks_is_named_with_the_nearest(image_folder: Path) -> None:
    (image_folder / "val" / "circle").rename(image_folder / "val" / "circles")
    with pytest.raises(DataError, match=r"'circles' of .* is unknown to .*Did you mean 'circle'"):
        load(image_folder)


def test_val_without_images_is_refused(image_folder: Path) -> None:
    for path in sorted((image_folder / "val").rglob("*.*")):
        path.unlink()
    with pytest.raises(DataError, match="val holds no images"):
        load(image_folder)


def test_val_without_train_is_refused(image_folder: Path) -> None:
    (image_folder / "train").rename(image_folder / "test")
    for source in ("auto", "image_folder"):
        with pytest.raises(DataError, match="has a folder 'val', but no folder 'train'"):
            load(image_folder, source)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "gone"])
def test_damaged_files_are_named_when_read(image_folder: Path, damage: str) -> None:
    path = image_folder / "train" / "circle" / "02.jpg"
    whole = path.read_bytes()
    splits = load(image_folder)
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello there", "gone": whole}[damage]
    )
    if damage == "gone":
        path.unlink()
    with pytest.raises(CorruptImage) as caught:
        splits.train.read(2)
    assert caught.value.name == str(path)


def test_class_with_one_image_stays_in_train(image_folder: Path, make_picture: Callable[..., Image.Image]) -> None:
    rare = image_folder / "train" / "rare"
    rare.mkdir()
    make_picture("circle", 0).save(rare / "only.png")
    train, val = load(image_folder / "train", val_fraction=0.5)
    assert (train.labels == 1).sum() == 1
    assert not (val.labels == 1).any()


@pytest.mark.parametrize("halves", [("Train", "TEST"), ("TRAINING", "Valid"), ("training", "Testing")])
def test_halves_are_recognized_in_any_case(image_folder: Path, halves: tuple[str, str]) -> None:
    for old, new in zip(("train", "val"), halves, strict=True):
        (image_folder / old).rename(image_folder / new)
    (image_folder / "TEST_SIMPLE").mkdir()
    for source in ("auto", "image_folder"):
        train, val = load(image_folder, source)
        assert train.classes == val.classes == ("circle", "square", "stripes")
        assert (len(train), len(val)) == (24, 12)
        assert Path(names(train)[0]).parts[-3] == halves[0]


def test_halves_that_differ_in_case_alone_are_refused(image_folder: Path) -> None:
    shutil.copytree(image_folder / "train", image_folder / "Train")
    if len(list(image_folder.iterdir())) == 2:
        pytest.skip("this file system does not tell case apart")
    with pytest.raises(DataError, match="'Train' and 'train', which differ in case alone"):
        load(image_folder)


def test_folders_of_folders_are_no_classes(image_folder: Path) -> None:
    for old, new in (("train", "Final_Training"), ("val", "Final_Test")):
        (image_folder / old).rename(image_folder / new)
    for source in ("auto", "image_folder"):
        with pytest.raises(DataError, match=r"train_split Final_Training --data.options.val_split Final_Test"):
            load(image_folder, source)
    train, val = load(image_folder, options={"train_split": "Final_Training", "val_split": "final_test"})
    assert train.classes == ("circle", "square", "stripes")
    assert (len(train), len(val)) == (24, 12)
    nested = load(image_folder, options={"nested": True}, val_fraction=0.25)
    assert nested.train.classes == ("Final_Test", "Final_Training")


def test_classes_one_level_too_deep_are_refused_with_their_folder(image_folder: Path) -> None:
    (image_folder / "Images").mkdir()
    (image_folder / "train").rename(image_folder / "Images" / "x")
    shutil.rmtree(image_folder / "val")
    with pytest.raises(DataError, match=f"give their folder, data.path: {image_folder / 'Images'}"):
        load(image_folder)


def test_splits_may_lie_deeper(image_folder: Path) -> None:
    for half in ("train", "val"):
        (image_folder / half).rename(image_folder / "inner")
        (image_folder / half).mkdir()
        (image_folder / "inner").rename(image_folder / half / "Images")
    with pytest.raises(DataError, match="hold"):
        load(image_folder)
    splits = load(image_folder, options={"train_split": "train/Images", "val_split": "val/Images"})
    assert [len(part) for part in splits] == [24, 12]


def test_one_folder_of_images_in_each_class_is_no_riddle(image_folder: Path) -> None:
    """As Tiny ImageNet has them: CLASS/images/*.JPEG."""
    for folder in sorted((image_folder / "train").iterdir()):
        folder.rename(image_folder / "inner")
        folder.mkdir()
        (image_folder / "inner").rename(folder / "images")
    assert load(image_folder).train.per_class() == [8, 8, 8]


def test_another_split_is_evaluated_on_where_it_is_named(image_folder: Path) -> None:
    shutil.copytree(image_folder / "train", image_folder / "Test")
    assert len(load(image_folder).val) == 12
    assert len(load(image_folder, options={"val_split": "test"}).val) == 24
    with pytest.raises(DataError, match=r"has no split 'tset'. Did you mean 'Test'"):
        load(image_folder, options={"val_split": "tset"})


def test_classes_named_by_numbers_are_in_their_order(image_folder: Path) -> None:
    for half in ("train", "val"):
        for old, new in (("circle", "10"), ("square", "9"), ("stripes", "1")):
            (image_folder / half / old).rename(image_folder / half / new)
    for path in (image_folder, image_folder / "train"):
        train, val = load(path)
        for images in (train, val):
            assert images.classes == ("1", "9", "10")
            for index, name in enumerate(names(images)):
                assert Path(name).parent.name == images.classes[images.labels[index]]


def test_what_was_made_with_numbers_in_the_order_of_text_stays_of_use(
    image_folder: Path, tmp_path: Path, run: Run
) -> None:
    for half in ("train", "val"):
        for old, new in (("circle", "10"), ("square", "9"), ("stripes", "1")):
            (image_folder / half / old).rename(image_folder / half / new)
    begun, store = tmp_path / "begun", tmp_path / "store"
    pictures = ["--data.path", image_folder, "--data.size", "8", "--data.workers", "0", "--data.views.padding", "0"]
    common = [*pictures, "--student.model", "digits/cnn_4_8", "--train.epochs", "1"]
    older = ["--data.class_order", "text"]
    code, _, said = run("train", *common, *older, "--out", begun)
    assert (code, "3 in the order of text: 1, 10, 9" in said) == (0, True)
    assert load_student(begun).classes == ("1", "10", "9")
    taught = ["--teacher.checkpoint", begun, "--teacher.accept_chance"]
    assert run("record", *common, *older, *taught, "--out", store)[0] == 0
    for command in (
        ["train", "--resume", "--out", begun],
        ["distill", *common, "--teacher.store", store, "--out", tmp_path / "new"],
    ):
        code, _, err = run(*command, "--data.class_order", "numbers")
        assert (code, "what they made, give --data.class_order text" in " ".join(err.split())) == (2, True), err
        assert run(*command, *older)[0] == 0


def test_images_can_be_had_with_their_classes_in_another_order(image_folder: Path) -> None:
    images = load(image_folder / "train").val
    turned = images.in_order(("stripes", "circle", "square"))
    assert turned.classes == ("stripes", "circle", "square")
    assert names(turned) == names(images)
    assert [turned.classes[label] for label in turned.labels] == [images.classes[label] for label in images.labels]
    assert turned.fingerprint() != images.fingerprint()
    assert turned.in_order(images.classes).fingerprint() == images.fingerprint()
    with pytest.raises(DataError, match="are other classes than"):
        images.in_order(("circle", "square", "line"))


def test_a_student_of_another_class_order_is_scored_by_names(image_folder: Path, tmp_path: Path) -> None:
    """As students have them that were trained when numbers were sorted as text."""
    for half in ("train", "val"):
        for old, new in (("circle", "10"), ("square", "9"), ("stripes", "1")):
            (image_folder / half / old).rename(image_folder / half / new)
    now = load(image_folder)
    then = sources.Splits(*(half.in_order(("1", "10", "9")) for half in now))
    values = {"student": {"model": "digits/cnn_4_8"}, "data": {"size": 8, "workers": 0}, "train": {"epochs": 1}}
    older = train({**values, "out": tmp_path / "older"}, data=then).folder
    here = {"data": {"workers": 0, "size": 8}}
    by_then, by_now = (evaluate(older, here, data_set=half) for half in (then, now))
    assert by_then == by_now
    assert [row["class"] for row in by_now["per_class"]] == ["1", "10", "9"]
    start = catalog.build("digits/cnn_4_8", checkpoint=older, classes=("1", "9", "10"), num_classes=3, keep_head=False)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    student = load_student(older)
    with torch.no_grad():
        torch.testing.assert_close(start.eval()(pixels), student.eval()(pixels)[:, [0, 2, 1]])


def test_a_corrupt_image_stops_a_run_with_the_way_out(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "train" / "circle" / "01.png").write_bytes(b"x")
    values = {"student": {"model": "cifar/resnet8"}, "data": {"path": image_folder, "size": 16, "workers": 0}}
    with pytest.raises(CorruptImage, match=r"01.png cannot be read: .*--data.on_corrupt skip; `counterpoise check`"):
        train({**values, "out": tmp_path / "run", "train": {"epochs": 1}})
