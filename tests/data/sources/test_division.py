"""What is held out: by class, by groups, by folds; a function of the seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.checking import cheap
from counterpoise.data.sources import drawing
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.division import fold, split
from counterpoise.errors import DataError


def labels_and_groups(seed: int, groups: int = 40) -> tuple[Tensor, Tensor]:
    """Groups of 1 to 12 images whose classes are mostly one of 4, the last of them rare."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 13, (groups,), generator=generator)
    main = torch.multinomial(torch.tensor([0.4, 0.3, 0.2, 0.1]), groups, replacement=True, generator=generator)
    of = torch.repeat_interleave(torch.arange(groups), sizes)
    other = torch.randint(0, 4, (len(of),), generator=generator)
    return torch.where(torch.rand(len(of), generator=generator) < 0.8, main[of], other), of


def images(labels: Tensor, groups: Tensor | None = None) -> ArraySet:
    found = ArraySet(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels, [*"abcdefgh"])
    found.groups = groups
    return found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_image_is_in_one_fold_and_classes_are_in_proportion(seed: int, grouped: bool) -> None:
    labels, groups = labels_and_groups(seed)
    whole = images(labels, groups if grouped else None)
    seen = torch.zeros(len(labels), dtype=torch.int64)
    share = torch.bincount(labels) / 5
    for number in range(1, 6):
        train, val = fold(whole, number, 5, seed)
        assert train.positions is not None
        assert val.positions is not None
        assert len(train) + len(val) == len(labels)
        seen[val.positions] += 1
        counts = torch.bincount(val.labels, minlength=4)
        assert (counts - share).abs().max() <= (12 if grouped else 1)
        assert abs(len(val) - len(labels) / 5) <= (8 if grouped else 1)
        if grouped:
            assert not set(groups[train.positions].tolist()) & set(groups[val.positions].tolist())
        assert torch.equal(fold(whole, number, 5, seed).val.positions, val.positions)
        assert not torch.equal(fold(whole, number, 5, seed + 1).val.positions, val.positions)
    assert seen.unique().tolist() == [1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_are_held_out_near_the_share_that_was_asked_for(seed: int) -> None:
    labels, groups = labels_and_groups(seed, 200)
    val = split(images(labels, groups), len(labels) // 5, seed).val
    share = torch.bincount(val.labels, minlength=4) / torch.bincount(labels)
    assert (share - 0.2).abs().max() < 0.04


def test_a_class_of_one_image_or_one_group_stays_in_train_and_is_said() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])
    groups = torch.tensor([0, 0, 1, 2, 0, 1, 2, 2, 3])
    for grouped, word in ((None, "image"), (groups, "group")):
        for number in (1, 2):
            train, val = fold(images(labels, grouped), number, 2, 0)
            assert 2 not in val.labels
            assert f"classes of one {word} alone, which stays in train: 'c'" in train.notes
        train, val = split(images(labels, grouped), 3, 0)
        assert 2 not in val.labels
        assert f"classes of one {word} alone, which stays in train: 'c'" in train.notes


def test_what_has_no_label_is_not_held_out() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1])
    groups = torch.tensor([0, 1, 2, 0, 1, 2, 2, 3])
    for number in (1, 2, 3):
        train, val = fold(images(labels), number, 3, 0)
        assert (len(train), len(val), val.unlabeled) == (6, 2, 0)
        train, val = fold(images(labels, groups), number, 3, 0)
        lost = 2 in (val.groups.tolist() if val.groups is not None else [])
        assert (len(train), len(val), val.unlabeled) == (6 - lost, 2, 0)
        assert any("on neither side" in note for note in train.notes) == lost
    train, val = split(images(labels), 2, 0)
    assert (len(train), len(val), val.unlabeled) == (6, 2, 0)
    bare = ArraySet(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), torch.full((6,), -1), [])
    assert [len(fold(bare, number, 3, 0).val) for number in (1, 2, 3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("labels", "groups", "count", "said"),
    [
        ([0, 0, 1, 1], None, 5, "4 images cannot be divided into 5 folds"),
        ([0, 0, 1, 1], [0, 1, 0, 1], 3, "2 groups cannot be divided into 3 folds"),
        ([0, 0, 1, 1], [0, 0, 1, 1], 2, "Every class is in one group alone"),
        ([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], 2, "2 groups cannot be divided into 2 folds, of which 1 hold all there is"),
    ],
)
def test_too_few_are_said(labels: list[int], groups: list[int] | None, count: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fold(images(torch.tensor(labels), None if groups is None else torch.tensor(groups)), 1, count, 0)


def test_one_group_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="1 groups cannot be divided into train and val"):
        split(images(torch.tensor([0, 1, 0, 1]), torch.zeros(4, dtype=torch.int64)), 1, 0)


def test_at_least_one_group_is_held_out() -> None:
    drawn = drawing.held_out(torch.tensor([0] * 9), torch.arange(9) // 3, 1, 0)
    assert (drawn.bins == 0).sum() == 3


@pytest.mark.parametrize("values", [{}, {"source": "digits", "options": {"train_size": 60}}, {"held_out": 3}])
def test_folds_of_any_source(image_folder: Path, values: dict[str, Any]) -> None:
    """Of what there is to train on; a val that the data bring is left alone."""
    path = None if "source" in values else image_folder
    without = sources.load(config.Data(path=path, **{k: v for k, v in values.items() if k != "held_out"}))
    parts = [sources.load(config.Data(path=path, fold=f"{number}/3", **values)) for number in (1, 2, 3)]
    if "held_out" in values:
        assert [len(part.val) for part in parts] == [3, 3, 3]
        assert [len(part.train) for part in parts] == [13, 13, 13]
        assert "on neither side" in parts[1].train.notes[-1]
        assert "fold 2 of 3" in parts[1].train.notes[-1]
        return
    assert sum(len(part.val) for part in parts) == len(without.train)
    assert "data.fold divides the training images" in parts[0].train.notes[-1]
    whole = sources.load(config.Data(source="digits", fold="1/3"))
    assert len(whole.train) + len(whole.val) == 1797


def test_a_val_folder_that_lacks_a_class_is_said_and_no_error(image_folder: Path) -> None:
    for file in (image_folder / "val" / "square").iterdir():
        file.unlink()
    for gone in (False, True):
        if gone:
            (image_folder / "val" / "square").rmdir()
        splits = sources.load(config.Data(path=image_folder))
        assert splits.val.per_class() == [4, 0, 4]
        assert any("1 of 3 classes have no image in val" in problem.what for problem in cheap(splits))


PARTS = ("train", "validate", "eval")
"""The second and third are none that are known."""


def pictures(root: Path, *places: str) -> None:
    """Two pictures in each place, which are masks of two classes as well."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            Image.new("L", (4, 4), number).save(root / place / f"{number}.png")
    (root / "classes.txt").write_text("a\nb\n")


def by_folder(root: Path) -> None:
    pictures(root, *(f"{half}/{part}" for half in ("images", "masks") for part in (*PARTS, ".")))


def questions(root: Path) -> None:
    pictures(root, *(f"{half}/{part}" for half in ("images", "masks/a", "masks/b") for part in (*PARTS, ".")))


def divided(root: Path) -> None:
    pictures(root, *(f"{part}/{half}" for half in ("images", "masks") for part in ("train", "val", "test")))


def classes(root: Path) -> None:
    pictures(root, *(f"{part}/{kind}" for kind in "ab" for part in ("train", "val", "test")), ".", "train")


def photos(root: Path) -> None:
    pictures(root, "train", "val", "test", ".")


def shapes(root: Path) -> None:
    pictures(root, *PARTS, ".")
    shape = {"label": "b", "points": [[0, 0], [3, 3]], "shape_type": "rectangle"}
    for file in root.glob("*/*.png"):
        said = {"shapes": [shape], "imagePath": file.name, "imageHeight": 4, "imageWidth": 4}
        file.with_suffix(".json").write_text(json.dumps(said))


OTHERS = "not used: {0}/eval, {0}/validate"
BESIDE = "2 pictures lie beside the parts and are not used, such as {0}/0.png"
OF_CLASSES = "2 pictures lie beside class folders and are not used, such as {0}/train/0.png"


@pytest.mark.parametrize(
    ("build", "source", "inner", "said"),
    [
        (by_folder, "masks_folder", "images", [OTHERS, BESIDE]),
        (questions, "mask_folders", "images", [OTHERS, BESIDE]),
        (divided, "masks_folder", "", ["not used: {0}/test/images"]),
        (classes, "image_folder", "", [OF_CLASSES, "not used: {0}/test", BESIDE]),
        (photos, "photos", "", ["not used: {0}/test", BESIDE]),
        (shapes, "labelme", "", [BESIDE, "not used: eval, validate of {0}"]),
    ],
)
def test_what_is_there_and_in_no_part_is_said(
    tmp_path: Path, build: Callable[[Path], None], source: str, inner: str, said: list[str]
) -> None:
    build(tmp_path)
    if inner:
        (tmp_path / inner / "without").mkdir()
    train = sources.load(config.Data(path=tmp_path, source=source, val_fraction=0.5)).train
    found = [note for note in train.notes if "not used" in note]
    assert found == [note.format(tmp_path / inner if inner else tmp_path) for note in said]
