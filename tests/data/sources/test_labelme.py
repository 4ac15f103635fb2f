"""Scenes as LabelMe has them, and folders with a mask for each object."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import CounterpoiseError

HEIGHT, WIDTH = 20, 30
Values = dict[str, Any]


def load(path: Path, **options: Any) -> sources.Splits:
    fields = {key: options.pop(key) for key in [*options] if key in config.Data.model_fields}
    return sources.load(config.Data(path=path, options=options, **fields))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (seed * 20, 80, 80)).save(path)
    return path


def shape(label: str, kind: str, *points: tuple[float, float], **more: Any) -> Values:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, "flags": {}, **more}


def png(mask: NDArray[np.bool_]) -> str:
    written = io.BytesIO()
    Image.fromarray(mask).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def write(path: Path, *shapes: Values, **changes: Any) -> None:
    said = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{path.stem}.png", "imageData": None}
    said |= {"imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}
    path.write_text(json.dumps({key: value for key, value in said.items() if value != "left out"}))


BLOB = np.array([[True, False, True], [True, True, True]])
SHAPES = (
    shape("street", "rectangle", (25.0, 18.0), (2.0, 1.0)),
    shape("car", "polygon", (4, 4), (10, 4), (10, 10), (4, 10)),
    shape("wheel", "circle", (16, 10), (19, 10)),
    shape("sign", "mask", (22, 3), (24, 4), mask=png(BLOB)),
    shape("__ignore__", "polygon", (0, 15), (2, 15), (2, 20), (0, 20)),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """drawn/0.png to 3.png with JSON beside them, 4.png without; the last JSON holds no shape."""
    folder = tmp_path / "drawn"
    for number in range(5):
        picture(folder / f"{number}.png", number)
    for number in range(3):
        write(folder / f"{number}.json", *SHAPES)
    write(folder / "3.json")
    return folder


def test_shapes_of_labelme_become_masks(root: Path) -> None:
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[1:18, 2:25] = 3  # classes by name: car, sign, street, wheel
    down, across = np.arange(HEIGHT)[:, None] + 0.5, np.arange(WIDTH) + 0.5
    expected[(across - 16) ** 2 + (down - 10) ** 2 <= 9] = 4
    expected[4:10, 4:10] = 1
    expected[3:5, 22:25][BLOB] = 2
    expected[15:20, 0:2] = 255
    train, val = load(root, val_fraction=0.25)
    assert train.classes == val.classes == ("background", "car", "sign", "street", "wheel")
    scenes = {Path(half.name(at)).stem: half.read_mask(at).numpy() for half in (train, val) for at in range(len(half))}
    assert sorted(scenes) == ["0", "1", "2", "3"]
    assert all(np.array_equal(scenes[name], expected) for name in "012")
    assert not scenes["3"].any()
    for note in ("1 pictures of .* have no JSON and are not used", "1 of 4 pictures of .* have no shape"):
        assert any(re.search(note, said) for said in train.notes)
    assert counterpoise.check(root)["source"] == "labelme"
    counterpoise.pack(root, out=root.parent / "pack")
    assert torch.equal(load(root.parent / "pack", val_fraction=0.25).train.read_mask(0), train.read_mask(0))


def test_parts_groups_and_classes_of_labelme(root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for half, names in (("train", ("p1_a", "p1_b", "p2_a")), ("val", ("p3_a",))):
        for name in names:
            picture(data / half / f"{name}.jpg")
            square = shape("car", "polygon", (1, 1), (9, 1), (9, 9), group_id=None)
            write(
                data / half / f"{name}.json",
                square,
                imagePath=f"..\\{half}\\{name}.jpg",
                version="3.2",
                imageHeight="left out",
            )
    (data / "labels.txt").write_text("__ignore__\n_background_\nbus\ncar\n")
    train, val = load(data, group="(p[0-9])_", classes="labels.txt")
    assert (len(train), len(val), train.classes) == (3, 1, ("background", "bus", "car"))
    assert train.groups is not None
    assert train.groups.tolist() == [0, 0, 1]
    assert val.read_mask(0).unique().tolist() == [0, 2]
    with pytest.raises(CounterpoiseError, match=r"Label 'sign' is none of .*labels.txt"):
        load(root, classes=data / "labels.txt", val_fraction=0.5)


@pytest.mark.parametrize(
    ("shapes", "changes", "said"),
    [
        ((shape("car", "polygon", (40, 4), (50, 4), (50, 9)),), {}, "1 outlines of .* lie outside their picture, such"),
        ((shape("car", "circle", (40, 40), (42, 40)),), {}, "lie outside their picture"),
        ((shape("car", "mask", (40, 3), (42, 4), mask=png(BLOB)),), {}, "lie outside their picture"),
        ((shape("car", "polygon", (1, 1), (4000, 4), (5, 9)),), {}, "coordinates far outside its picture of 30 x 20"),
        ((shape("car", "polygon", (1, 1), (float("nan"), 4), (5, 9)),), {}, "far outside its picture, or no number"),
        ((shape("car", "circle", (1, 1), (10**299, 4)),), {}, "far outside its picture, or no number"),
        ((shape("car", "polygon", (1, 1), (4, 4)),), {}, "has 2 points; expected 3 or more"),
        ((shape("car", "line", (1, 1), (4, 4)),), {}, "1 shapes of .* are lines or points.*without_area background"),
        ((shape("car", "cuboid", (1, 1), (4, 4)),), {}, "is a 'cuboid': expected a polygon, rectangle, circle or mask"),
        ((shape("car", "mask", (1, 1), (4, 4), mask="iVBORw0K"),), {}, "is a mask, and holds no PNG of it"),
        ((shape("", "rectangle", (1, 1), (4, 4)),), {}, "Shape 1 of .* has no label"),
        ((shape("car", "rectangle", (1, 1), ("x", 4)),), {}, r"has the point \['x', 4\]; expected \[x, y\]"),
        (SHAPES, {"imageHeight": 40, "imageWidth": 60}, "of another size than their outlines.*resize_masks"),
        (SHAPES, {"imageHeight": 10**6, "imageWidth": 10**6}, "of another size than their outlines"),
        (SHAPES, {"imageHeight": -3}, "imageHeight and imageWidth are -3 and 30"),
        (SHAPES, {"imagePath": "../../secret.png"}, "1 JSON of .* have no picture beside them"),
        ((), {"shapes": "left out"}, "is no file of LabelMe's: expected shapes and imagePath"),
        ((), {"shapes": [[1]]}, "is no file of LabelMe's"),
    ],
)  # fmt: skip
def test_what_is_wrong_for_labelme_is_said(root: Path, shapes: tuple[Values, ...], changes: Values, said: str) -> None:
    picture(root.parent.parent / "secret.png")
    (root / "1.json").unlink()
    name = "7.json" if "imagePath" in changes else "1.json"
    write(root / name, *shapes, **changes)
    with pytest.raises(CounterpoiseError, match=said):
        load(root, source="labelme", val_fraction=0.5)
    assert counterpoise.check(root)["errors"] >= 1


def test_every_bad_file_is_named_at_once_and_a_shape_that_reaches_out_is_clipped(root: Path) -> None:
    (root / "0.json").write_text("[" * 100_000)
    write(root / "1.json", shapes="left out")
    problems = counterpoise.check(root)["problems"]
    assert problems[0]["count"] == 2
    assert "nested too deeply" in problems[0]["where"][0]
    (root / "0.json").unlink()
    write(root / "1.json", shape("car", "rectangle", (-5, 2), (3, 4)))
    train, val = load(root, val_fraction=0.34)
    masks = {Path(half.name(at)).stem: half.read_mask(at) for half in (train, val) for at in range(len(half))}
    assert int((masks["1"] == 1).sum()) == 3 * 2
    assert any("reach out of their pictures and are clipped" in note for note in train.notes)


def test_masks_of_labelme_are_resized_where_that_is_told(root: Path) -> None:
    whole = load(root, val_fraction=0.25).train.read_mask(0)
    for number in range(5):
        picture(root / f"{number}.png", number, (2 * WIDTH, 2 * HEIGHT))
    train = load(root, val_fraction=0.25, resize_masks=True).train
    assert torch.equal(train.read_mask(0)[::2, ::2], whole)
    assert any("are resized to their pictures, by the nearest pixel" in note for note in train.notes)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """cells/p1_0/images/p1_0.png and cells/p1_0/masks/0.png, 1.png, for four patients of two; the last has no mask."""
    folder = tmp_path / "cells"
    for name in (f"p{patient}_{number}" for patient in range(1, 5) for number in range(2)):
        picture(folder / name / "images" / f"{name}.png", int(name[1]))
        (folder / name / "masks").mkdir()
        for number in range(0 if name == "p4_1" else 2):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[2 + 6 * number : 8 + 6 * number, 3:9] = 255
            Image.fromarray(mask).convert("RGBA" if number else "L").save(folder / name / "masks" / f"{number}.png")
    return folder


def test_masks_of_objects_are_merged(cells: Path) -> None:
    train, val = load(cells, group="(p[0-9])_", fold="1/2", name="nucleus")
    assert (len(train), len(val), train.classes) == (4, 4, ("background", "nucleus"))
    assert not {Path(train.name(at)).name[:2] for at in range(4)} & {Path(val.name(at)).name[:2] for at in range(4)}
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[2:14, 3:9] = 1
    masks = [half.read_mask(at) for half in (train, val) for at in range(4)]
    assert sum(torch.equal(mask, expected) for mask in masks) == 7
    assert sum(not mask.any() for mask in masks) == 1
    assert any(note.startswith("1 of 8 pictures of") and "have no object" in note for note in train.notes)
    checked = counterpoise.check(cells)
    assert (checked["source"], checked["errors"]) == ("instance_folders", 0)
    counterpoise.pack(cells, out=cells.parent / "pack")
    assert torch.equal(load(cells.parent / "pack").train.read_mask(0), load(cells).train.read_mask(0))


def test_pictures_that_are_arrays_are_those_of_objects_too(cells: Path) -> None:
    for file in cells.glob("*/images/*.png"):
        np.save(file.with_suffix(".npy"), np.asarray(Image.open(file)))
        file.unlink()
    found = sources.load(config.Data(path=cells, val_fraction=0.34, intensity=config.Intensity(white=255)))
    assert len(found.train) + len(found.val) == 8
    with pytest.raises(CounterpoiseError, match=r"8 folders of .*\(0; \.npy is read with data\.channels or"):
        load(cells)


def test_what_is_wrong_with_masks_of_objects_is_said(cells: Path) -> None:
    Image.new("L", (WIDTH // 2, HEIGHT // 2), 255).save(cells / "p1_0" / "masks" / "0.png")
    with pytest.raises(CounterpoiseError, match=r"1 masks are of another size than their images.*resize_masks true"):
        load(cells)
    assert any("1 masks of objects are resized" in note for note in load(cells, resize_masks=True).train.notes)
    picture(cells / "p2_0" / "images" / "more.png")
    (cells / "p3_0" / "masks" / "0.png").write_bytes(b"none")
    (cells / "p3_1" / "masks").rename(cells / "p3_1" / "mask")
    checked = counterpoise.check({"data": {"path": cells, "source": "instance_folders"}})
    found = [problem["what"] for problem in checked["problems"]]
    for said in ("1 folders of", "1 pictures of", "1 masks are of another", "1 masks of objects cannot be read"):
        assert any(what.startswith(said) for what in found)
