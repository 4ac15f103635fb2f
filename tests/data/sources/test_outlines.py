"""Scenes whose labels are outlines, as COCO and YOLO have them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.outlines import centers_inside
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError

pytest.importorskip("pycocotools", reason="needs the extra coco")
Values = dict[str, Any]
HEIGHT, WIDTH = 24, 32
SQUARE = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]
INNER = [6.0, 6.0, 10.0, 6.0, 10.0, 10.0, 6.0, 10.0]


def annotation(number: int, image: int, category: int, outline: Any, **more: Any) -> Values:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline, **more}


@pytest.fixture
def values() -> Values:
    """A JSON of COCO's: 4 pictures; in the first a cat with a dog on it, in the last nothing."""
    images = [{"id": 10 + n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(4)]
    return {
        "images": images[::-1],
        "categories": [{"id": 18, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 9, "name": "unused"}],
        "annotations": [
            annotation(1, 10, 18, [INNER]),
            annotation(2, 10, 7, [SQUARE, [20.0, 1.0, 30.0, 1.0, 30.0, 5.0]]),
            annotation(3, 11, 7, [[1.5, 1.25, 20.5, 3.0, 9.0, 22.75]]),
            annotation(4, 12, 18, {"size": [HEIGHT, WIDTH], "counts": [10, 30, HEIGHT * WIDTH - 40]}, iscrowd=1),
            annotation(5, 12, 7, [SQUARE]),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path, values: Values) -> Path:
    """coco/annotations/instances_{train,val}2017.json, coco/{train,val}2017/N.png."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for half in ("train", "val"):
        (root / f"{half}2017").mkdir()
        for number in range(4):
            pixels = generator.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{half}2017" / f"{number}.png")
        (root / "annotations" / f"instances_{half}2017.json").write_text(json.dumps(values))
        (root / "annotations" / f"captions_{half}2017.json").write_text("{}")
    return root


def load(path: Path, **options: Any) -> sources.Splits:
    fields = {key: options.pop(key) for key in [*options] if key in config.Data.model_fields}
    return sources.load(config.Data(path=path, options=options, **fields))


def filled(polygons: list[list[float]]) -> np.ndarray[Any, Any]:
    from pycocotools import mask

    found: np.ndarray[Any, Any] = mask.decode(mask.merge(mask.frPyObjects(polygons, HEIGHT, WIDTH))).astype(bool)
    return found


def test_outlines_of_coco_are_the_pixels_of_its_own_tools(folder: Path, values: Values) -> None:
    train, val = load(folder)
    assert train.classes == val.classes == ("background", "cat", "unused", "dog")
    assert (len(train), train.masked, val.origin) == (4, True, f"val of {folder}")
    masks = [train.read_mask(index).numpy() for index in range(4)]
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[filled(values["annotations"][1]["segmentation"])] = 1
    expected[filled([INNER])] = 3  # the smaller one is on top, whatever the order of the file
    assert np.array_equal(masks[0], expected)
    assert np.array_equal(masks[1] == 1, filled(values["annotations"][2]["segmentation"]))
    runs = np.repeat([0, 3, 0], [10, 30, HEIGHT * WIDTH - 40]).reshape(WIDTH, HEIGHT).T
    assert np.array_equal(masks[2], np.where(filled([SQUARE]), 1, runs))  # a crowd lies below
    assert not masks[3].any()
    assert any("1 of 4 pictures of instances_train2017.json have no object" in note for note in train.notes)


def test_other_layouts_of_coco(folder: Path, values: Values, tmp_path: Path) -> None:
    expected = load(folder)
    alone = folder / "annotations" / "instances_train2017.json"
    train, val = load(alone, fold="1/2")
    assert (len(train), len(val)) == (2, 2)
    assert train.split_from is not None
    assert train.split_from.fingerprint() == expected.train.fingerprint()
    by_name = load(folder, train="annotations/instances_val2017.json", val="annotations/instances_train2017.json")
    assert by_name.val.name(0) == expected.train.name(0)
    assert "which is trained on, too" in load(folder, val_split="train").val.origin
    shutil.move(folder / "train2017", tmp_path / "pictures")
    with pytest.raises(DataError, match=r"such as 0.png, are in none of .*train2017.*--data.options.images FOLDER"):
        load(alone)
    assert load(alone, images=tmp_path / "pictures").train.split_from is not None
    roboflow = tmp_path / "roboflow"
    for half, name in (("train", "pictures"), ("valid", "coco/val2017")):
        shutil.copytree(tmp_path / name, roboflow / half)
        (roboflow / half / "_annotations.coco.json").write_text(json.dumps(values))
    assert [part.fingerprint() for part in load(roboflow)] == [part.fingerprint() for part in expected]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("categories"), "is no file of COCO's"),
        (lambda v: v["categories"].append({"id": 1, "name": "cat"}), "the class 'cat' twice"),
        (lambda v: v["categories"].append({**v["categories"][0], "name": "other"}), "two categories of one id"),
        (lambda v: v["annotations"][0].update(iscrowd="0"), "'iscrowd' of annotation 1 is '0'"),
        (lambda v: v["annotations"].clear(), "No picture of .* has an outline"),
        (lambda v: v["annotations"][3]["segmentation"].update(size=9), "do not fill"),
        (lambda v: v["annotations"][3]["segmentation"].update(counts="0T3"), "do not fill"),
        (lambda v: v["categories"].append({"id": 1}), "category 1 has no 'name'"),
        (lambda v: v["images"][0].pop("height"), "image 13 has no 'height'"),
        (lambda v: v["images"][0].update(width=10**9), "is said to be 1000000000 x 24 pixels"),
        (lambda v: v["images"][0].update(file_name="0.png"), "two images of one id, or of one file_name"),
        (lambda v: v["images"][0].update(file_name="9.png"), "1 of 4 pictures that .* names are not in"),
        (lambda v: v["annotations"][0].update(category_id=5), "annotation 1 is of category 5, which is not there"),
        (lambda v: v["annotations"][0].update(image_id="x"), "'image_id' of annotation 1 is 'x'"),
        (lambda v: v["annotations"][0].update(image_id=99), "annotation 1 is of image 99"),
        (lambda v: v["annotations"][0].update(segmentation=[[1, 2, 3]]), "is neither polygons nor runs"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, 1e9, 0, 5, 5]]), "far outside its picture"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, float("nan"), 0, 5, 5]]), "far outside"),
        (lambda v: v["annotations"][0].update(segmentation=[["a"] * 6]), "are no numbers"),
        (
            lambda v: v["annotations"][0].update(segmentation=[[40, 0, 50, 0, 45, 9]]),
            "1 outlines of .* lie outside their",
        ),
        (lambda v: v["annotations"][3]["segmentation"].update(counts=[5]), r"runs \(RLE\) of annotation 4 do not fill"),
        (lambda v: v["annotations"][3]["segmentation"].update(counts="\x7fbad"), "do not fill"),
        (lambda v: v["annotations"][3]["segmentation"].update(size=[9, 9]), "do not fill"),
        (lambda v: v["annotations"][0].update(segmentation=[], bbox=[1, 1, 3, 3]), "1 of 5 objects .* have a box"),
        (lambda v: v.update(images=[], annotations=[]), "names no images"),
    ],
)
def test_what_is_wrong_in_a_json_is_said(
    folder: Path, values: Values, change: Callable[[Values], Any], said: str
) -> None:
    change(values)
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=said):
        load(folder)


def test_boxes_may_be_void_or_background(folder: Path, values: Values) -> None:
    values["annotations"][0].update(segmentation=[], bbox=[20, 10, 4, 5])
    values["annotations"].append(annotation(6, 13, 7, [[1.0, 1.0, 2.0, 2.0]]))
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(values))
    train = load(folder, without_outline="void").train
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[10:15, 20:24] = True
    assert np.array_equal(train.read_mask(0).numpy() == 255, expected)
    assert "1 objects of instances_train2017.json have no outline: they are void in their boxes" in train.notes
    plain = load(folder, without_outline="background").train
    assert 255 not in plain.read_mask(0)
    assert "1 objects of instances_train2017.json have no outline: they are background" in plain.notes
    assert any("1 outlines of fewer than 3 points" in note for note in train.notes)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        (None, r"annotation 1 has no outline, and its 'bbox', which would be void, is None; expected \[x, y, width"),
        ([20, 10, 4], "'bbox', which would be void, is .20, 10, 4."),
        ([20, 10, 0, 5], "'bbox', which would be void, is .20, 10, 0, 5."),
        ([20, 10, 4, -5], "'bbox', which would be void, is .20, 10, 4, -5."),
        (["a", 1, 2, 3], "are no numbers"),
        ([40, 3, 5, 5], "1 outlines of .* lie outside their picture, such as annotation 1"),
    ],
)
def test_a_box_that_cannot_be_void_is_said(folder: Path, values: Values, box: Any, said: str) -> None:
    values["annotations"][0].update(segmentation=[], bbox=box)
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=said):
        load(folder, without_outline="void")
    assert 255 not in load(folder, without_outline="background").train.read_mask(0)


def test_a_box_that_reaches_out_is_clipped_and_said(folder: Path, values: Values) -> None:
    values["annotations"][0].update(segmentation=[], bbox=[-4, -4, 6, 7])
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(values))
    train = load(folder, without_outline="void").train
    assert np.argwhere(train.read_mask(0).numpy() == 255).max(0).tolist() == [2, 1]
    assert any("1 outlines of instances_train2017.json reach out" in note for note in train.notes)


def test_an_outline_that_reaches_out_is_clipped_and_masks_are_resized_where_told(folder: Path, values: Values) -> None:
    values["annotations"][0].update(segmentation=[[-9, -9, 3, -9, 3, 2, -9, 2]])
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(values))
    train = load(folder).train
    mask, before = train.read_mask(0), train.fingerprint()
    assert int((mask == 3).sum()) == 3 * 2
    assert any("1 outlines of instances_train2017.json reach out of their pictures" in note for note in train.notes)
    Image.new("RGB", (2 * WIDTH, 2 * HEIGHT)).save(folder / "train2017" / "0.png")
    resized = load(folder, resize_masks=True).train
    assert torch.equal(resized.read_mask(0)[::2, ::2], mask)
    assert any("are resized to their pictures" in note for note in resized.notes)
    assert resized.fingerprint() != before


def test_pictures_of_another_size_and_missing_ones(folder: Path) -> None:
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "train2017" / "1.png")
    with pytest.raises(DataError, match=r"1 pictures of train .* is for a picture of 32 x 24 .* after the turn"):
        load(folder)
    train = load(folder, on_corrupt="skip").train
    with pytest.raises(CorruptImage, match="for a picture of 32 x 24 pixels"):
        train.read_mask(1)
    (folder / "train2017" / "1.png").unlink()
    train = load(folder, on_corrupt="skip").train
    assert [len(train), *(int(train.read_mask(index).max()) for index in range(3))] == [3, 3, 3, 0]
    with pytest.raises(ConfigError, match=r"no data.options.train"):
        load(folder, val="annotations/instances_val2017.json")
    shutil.rmtree(folder / "annotations")
    with pytest.raises(DataError, match="holds no JSON of COCO's"):
        load(folder, source="coco")


def test_outlined_scenes_travel_and_are_packed(folder: Path, tmp_path: Path) -> None:
    counterpoise.pack(folder, out=tmp_path / "pack")
    for part, packed in zip(load(folder), load(tmp_path / "pack"), strict=True):
        assert packed.classes == part.classes
        for index in range(len(part)):
            assert torch.equal(packed.read_mask(index), part.read_mask(index))
        travelled = pickle.loads(pickle.dumps(part))
        assert torch.equal(travelled.read_mask(0), part.read_mask(0))
    found = counterpoise.check(folder)
    assert (found["source"], found["errors"]) == ("coco", 0)
    assert any("'unused'" in problem["what"] for problem in found["problems"])


@pytest.mark.parametrize("seed", range(4))
def test_a_pixel_is_inside_where_its_center_is(seed: int) -> None:
    """Against the definition, pixel by pixel; and adjacent triangles cover a square without gap or overlap."""
    generator = np.random.default_rng(seed)
    ring = generator.uniform(-5, 30, (3 + 3 * seed, 2))
    found = centers_inside([ring], None, 20, 26)
    for row in range(20):
        for column in range(26):
            x, y = column + 0.5, row + 0.5
            crossings = 0
            for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
                    crossings += 1
            assert found[row, column] == crossings % 2
    corners = np.array([[2.0, 2.0], [20.0, 3.0], [22.0, 17.0], [1.0, 15.0]])
    middle = generator.uniform(6, 14, 2)
    pieces = [centers_inside([np.stack([corners[i], corners[(i + 1) % 4], middle])], None, 20, 26) for i in range(4)]
    assert np.array_equal(np.sum(pieces, axis=0), centers_inside([corners], None, 20, 26))


@pytest.fixture
def yolo(tmp_path: Path, folder: Path) -> Path:
    """yolo/data.yaml, images/{train,val}/N.png, labels/{train,val}/N.txt."""
    root = tmp_path / "yolo"
    for half in ("train", "val"):
        shutil.copytree(folder / f"{half}2017", root / "images" / half)
        (root / "labels" / half).mkdir(parents=True)
        for number in range(3):
            lines = [f"{label} {' '.join(str(v / (HEIGHT if i % 2 else WIDTH)) for i, v in enumerate(ring))}"
                     for label, ring in ((1, INNER), (0, SQUARE))]  # fmt: skip
            (root / "labels" / half / f"{number}.txt").write_text("\n".join(lines) + "\n\n")
    write(root)
    return root


def write(root: Path, **changes: Any) -> None:
    said = {"path": ".", "train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}}
    (root / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in {**said, **changes}.items() if v is not None}))


def test_outlines_of_yolo(yolo: Path) -> None:
    train, val = load(yolo)
    assert train.classes == val.classes == ("background", "cat", "dog")
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[4:12, 4:12] = 1
    expected[6:10, 6:10] = 2
    assert np.array_equal(train.read_mask(0).numpy(), expected)
    assert not train.read_mask(3).any()
    assert any("1 of 4 images of .* have no object" for note in train.notes)
    assert counterpoise.check(yolo)["source"] == "yolo"
    write(yolo, path="nowhere/else", train="../images/train", val=None, names=["cat", "background"])
    train, val = load(yolo, val_fraction=0.3)
    assert train.classes == ("background", "cat")
    assert len(train) + len(val) == 4


@pytest.mark.parametrize(
    ("line", "changes", "said"),
    [
        ("0 0.5 0.5 0.2 0.2", {}, r"1 objects of .* are boxes \(5 numbers a line\), such as .*0.txt, line 1"),
        ("0 0.1 0.1 0.2 0.2 0.3", {}, "line 1 has 5 coordinates"),
        ("0 10 10 20 10 20 20", {}, "line 1 holds 10; expected shares"),
        ("0 nan 0 1 0 1 1", {}, "line 1 holds nan"),
        ("0 -0.01 0 0 0 0 1", {}, "1 outlines of .* lie outside their picture, such as .*0.txt, line 1"),
        ("2 0 0 1 0 1 1", {}, "line 1 is of class 2, and .* names 2"),
        ("cat 0 0 1 0 1 1", {}, "line 1 is no outline: 'cat 0 0"),
        (None, {"train": "images/exercise"}, "train of .* is 'images/exercise', and there is no such folder"),
        (None, {"train": ["a", "b"]}, "expected one folder of images"),
        (None, {"names": {0: "cat", 2: "dog"}}, "the numbers of 'names' are not 0 to 1"),
        (None, {"names": "cat"}, "'names' is neither a list"),
        (None, {"train": None}, "says no 'train'"),
        (None, {"kpt_shape": [17, 3]}, "is of key points"),
    ],
)
def test_what_is_wrong_for_yolo_is_said(yolo: Path, line: str | None, changes: Values, said: str) -> None:
    if line is not None:
        (yolo / "labels" / "train" / "0.txt").write_text(f"{line}\n")
    write(yolo, **changes)
    with pytest.raises(CounterpoiseError, match=said):
        load(yolo, source="yolo")
