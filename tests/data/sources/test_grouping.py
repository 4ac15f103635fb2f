"""Groups of pictures in folders, by a pattern in their paths or by a table: no group is on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.checking import check
from counterpoise.errors import ConfigError, CounterpoiseError, DataError

PATTERN = "(p[0-9]+)_"
Build = Callable[..., Path]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (90, 40, sum(str(path).encode()) % 256)).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(np.array([[0] * 4 + [1] * 4], dtype=np.uint8), 8, 0)).save(path)


def names(patients: range) -> list[str]:
    """p1_0 and p1_1 to p6_0 and p6_1."""
    return [f"p{patient}_{number}" for patient in patients for number in range(2)]


def class_folders(root: Path, half: str, patients: range) -> None:
    for name in names(patients):
        for kind in ("circle", "square"):
            picture(root / half / kind / f"{name}{kind}.png")


def photos(root: Path, half: str, patients: range) -> None:
    for name in names(patients):
        picture(root / half / f"{name}.png")


def scenes(root: Path, half: str, patients: range) -> None:
    for name in names(patients):
        picture(root / "images" / half / f"{name}.jpg")
        mask(root / "masks" / half / f"{name}.png")
    (root / "classes.txt").write_text("ground\nobject\n")


def yolo(root: Path, half: str, patients: range) -> None:
    for name in names(patients):
        picture(root / "images" / (half or "train") / f"{name}.png")
        text = root / "labels" / (half or "train") / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("0 0.2 0.2 0.8 0.2 0.8 0.8\n")
    halves = {name: f"images/{name}" for name in ("train", "val") if (root / "images" / name).exists()}
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["cell"], **halves}))


def coco(root: Path, half: str, patients: range) -> None:
    half = half or "train"
    images = [
        {"id": at, "file_name": f"{name}.png", "height": 8, "width": 8} for at, name in enumerate(names(patients))
    ]
    objects = [
        {"id": each["id"], "image_id": each["id"], "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]]}
        for each in images
    ]
    for image in images:
        picture(root / half / str(image["file_name"]))
    values = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cell"}]}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{half}.json").write_text(json.dumps(values))


KINDS = (class_folders, photos, scenes, yolo, coco)


def load(path: Path, **fields: Any) -> sources.Splits:
    options = {key: fields.pop(key) for key in ("group", "shared") if key in fields}
    return sources.load(config.Data(path=path, options=options, **fields))


def patients(images: sources.ImageSet) -> set[str]:
    return {Path(images.name(index)).name.partition("_")[0] for index in range(len(images))}


@pytest.mark.parametrize("build", KINDS)
def test_no_group_is_on_both_sides(build: Build, tmp_path: Path) -> None:
    if build is coco:
        pytest.importorskip("pycocotools", reason="needs the extra coco")
    build(tmp_path / "one", "", range(1, 7))
    for division in ({"val_fraction": 0.34}, {"fold": "2/3"}, {"held_out": 4}):
        train, val = load(tmp_path / "one", group=PATTERN, **division)
        assert train.groups is not None
        assert len(patients(val)) in (1, 2)
        assert not patients(train) & patients(val)
        assert f"groups: pattern {PATTERN}, 6 of them, each on one side alone, such as 'p1'" in " ".join(train.notes)
    build(tmp_path / "two", "train", range(1, 5))
    build(tmp_path / "two", "val", range(5, 7))
    assert patients(load(tmp_path / "two", group=PATTERN).val) == {"p5", "p6"}
    build(tmp_path / "two", "val", range(4, 7))
    with pytest.raises(DataError, match=r"1 groups are in both train and val of .*two, such as 'p4'.*shared true"):
        load(tmp_path / "two", group=PATTERN)
    assert any(
        "1 groups are in both" in note for note in load(tmp_path / "two", group=PATTERN, shared=True).train.notes
    )
    found = check(config.Data(path=tmp_path / "two", options={"group": "p([0-9])_0"})).problems
    assert [problem.severity for problem in found if "finds no group in" in problem.what] == ["error"]


def test_a_table_names_pictures_by_path_or_by_name(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    scenes(root, "train", range(1, 5))
    scenes(root, "val", range(5, 7))
    called = (("images/train/", ".jpg", range(1, 3)), ("train/", "", range(3, 5)), ("", "", range(5, 7)))
    rows = {f"{start}{name}{end}": f"house {name[1]}" for start, end, of in called for name in names(of)}
    table = root / "groups.csv"
    table.write_text("patient,file,age\n" + "".join(f"{group},{file},7\n" for file, group in rows.items()))
    train, val = load(root, group="groups.csv")
    assert train.groups is not None
    assert val.groups is not None
    assert train.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert val.groups.tolist() == [4, 4, 5, 5]
    assert val.group_names == tuple(f"house {number}" for number in range(1, 7))
    fold = load(root, group=str(table), fold="1/2")
    assert not patients(fold.train) & patients(fold.val)
    packed = tmp_path / "pack"
    counterpoise.pack({"data": {"path": root, "options": {"group": "groups.csv"}}}, out=packed)
    assert patients(load(packed, fold="1/2").val) == patients(fold.val)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("file,group\np1_0,a\n", DataError, r"names no group for 7 of 8 pictures: p1_1.jpg, .*row without a group"),
        ("file,group\np1_0,a\np1_0,b\n", DataError, r"1 pictures of .*groups.csv are in several rows .* p1_0"),
        ("file,group\np1_0,a\nimages/p1_0.jpg,b\n", DataError, r"in several rows with .* groups, such as p1_0.jpg"),
        ("a,b,c\n1,2,3\n", DataError, "Which columns of .* is not clear: expected 'file' and 'group', got a, b, c"),
        (None, ConfigError, "there is no table"),
    ],
)
def test_what_a_table_lacks_is_named(
    tmp_path: Path, text: str | None, kind: type[CounterpoiseError], said: str
) -> None:
    scenes(tmp_path, "", range(1, 5))
    if text is not None:
        (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(kind, match=said):
        load(tmp_path, group="groups.csv")


def test_a_name_that_is_the_end_of_another_one_is_of_its_own_picture(tmp_path: Path) -> None:
    photos(tmp_path, "", range(1, 3))
    photos(tmp_path, "more", range(1, 3))
    rows = [f"{place}{name}.png,{place}{name[:2]}\n" for name in names(range(1, 3)) for place in ("", "more/")]
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(rows))
    train, _ = load(tmp_path, group="groups.csv", source="photos", val_fraction=0.5)
    assert train.group_names == ("more/p1", "more/p2", "p1", "p2")


def test_a_name_that_two_pictures_share_is_refused_and_a_picture_may_stand_alone(tmp_path: Path) -> None:
    scenes(tmp_path, "train", range(1, 4))
    scenes(tmp_path, "val", range(3, 6))
    rows = "".join(f"{name},\n" for name in names(range(1, 6)))
    (tmp_path / "groups.csv").write_text(f"file,group\n{rows}")
    with pytest.raises(DataError, match=r"'p3_0' of .*groups.csv may be .*train/p3_0.jpg or .*val/p3_0.jpg"):
        load(tmp_path, group="groups.csv")
    both = rows.replace("p3", "train/p3") + rows.replace("p3", "val/p3")
    (tmp_path / "groups.csv").write_text(f"file,group\n{both}")
    train, _ = load(tmp_path, group="groups.csv")
    assert "12 pictures without a group are groups of their own" in train.notes[1]


@pytest.mark.parametrize(
    ("pattern", "kind", "said"),
    [
        ("(p[0-9]+", ConfigError, "is no regular expression: missing"),
        ("p[0-9]+", ConfigError, "has 0 parts in parentheses; expected one"),
        ("(p)([0-9]+)", ConfigError, "has 2 parts in parentheses; expected one"),
        ("(p[1-3])_", DataError, r"finds no group in 2 of 8 paths: p4_0.jpg, p4_1.jpg. It is a regular expression"),
        ("(p|x*)4", DataError, r"finds no group in 6 of 8 paths"),
    ],
)
def test_a_pattern_that_names_no_group_is_refused(
    tmp_path: Path, pattern: str, kind: type[CounterpoiseError], said: str
) -> None:
    scenes(tmp_path, "", range(1, 5))
    with pytest.raises(kind, match=said):
        load(tmp_path, group=pattern)


def test_a_pattern_that_tells_all_pictures_apart_is_said(tmp_path: Path) -> None:
    scenes(tmp_path, "", range(1, 5))
    assert any("Every picture is a group of its own" in note for note in load(tmp_path, group="(p.*)").train.notes)
    named = load(tmp_path, group="(p)(?P<group>[0-9])").train.notes
    assert any("4 of them, each on one side alone, such as '1' of p1_0.jpg" in note for note in named)
