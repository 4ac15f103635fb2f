"""Tables of scenes: columns of pictures and mask files, or of pictures and lengths of runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
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
from counterpoise.data.sources import runs
from counterpoise.errors import ConfigError, CounterpoiseError, DataError

HEIGHT, WIDTH = 6, 9
Write = Callable[..., Path]


def load(path: Path, **options: Any) -> sources.Splits:
    fields = {key: options.pop(key) for key in [*options] if key in config.Data.model_fields}
    return sources.load(config.Data(path=path, options=options, **fields))


def blobs(seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4


def pairs(mask: NDArray[np.bool_], first: int = 1, by_rows: bool = False) -> str:
    """START LENGTH ..., pixel by pixel, as one would count by hand."""
    flat, found = (mask if by_rows else mask.T).ravel(), []
    for at, on in enumerate(flat):
        if on and (at == 0 or not flat[at - 1]):
            found += [at + first, 0]
        if on:
            found[-1] += 1
    return " ".join(map(str, found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """pictures/p1_0.png, p1_1.png, p2_0.png, ... of four patients; truth/p1_0_mask.png ..., 0 and 1; classes.txt."""
    for seed in range(8):
        name = f"p{seed // 2 + 1}_{seed % 2}"
        for part in ("pictures", "truth"):
            (tmp_path / part).mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (30 * seed, 9, 9)).save(tmp_path / "pictures" / f"{name}.png")
        Image.fromarray(blobs(seed).astype(np.uint8)).save(tmp_path / "truth" / f"{name}_mask.png")
    (tmp_path / "classes.txt").write_text("ground\ncell\n")
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    def table(header: str, rows: Sequence[Sequence[str]], name: str = "scenes.csv") -> Path:
        path = folder / name
        path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
        return path

    return table


def of_masks() -> list[list[str]]:
    return [
        [f"pictures/p{p}_{n}.png", f"truth/p{p}_{n}_mask.png", "val" if p == 4 else "train", f"p{p}"]
        for p in range(1, 5)
        for n in range(2)
    ]


def test_columns_of_pictures_and_masks_are_found_divided_and_grouped(folder: Path, write: Write) -> None:
    path = write("file,mask_path,split,patient", of_masks()[::-1])
    train, val = load(path, group="patient")
    assert (len(train), len(val), train.classes, train.masked) == (6, 2, ("ground", "cell"), True)
    assert np.array_equal(train.read_mask(3).numpy() == 1, blobs(3))
    assert train.groups is not None
    assert [train.group_names[number] for number in train.groups] == ["p1", "p1", "p2", "p2", "p3", "p3"]
    assert counterpoise.check(path)["source"] == "masks_table"
    for note in ("masks: column 'mask_path'", "pictures: column 'file'", "parts: column 'split'", "groups: column"):
        assert any(note in said for said in train.notes)
    lines = folder / "scenes.jsonl"
    lines.write_text("".join(json.dumps({"file": row[0], "mask": row[1], "case": row[3]}) + "\n" for row in of_masks()))
    one, other = load(lines, group="case", fold="1/2")
    assert one.groups is not None
    assert other.groups is not None
    assert not {*one.groups.tolist()} & {*other.groups.tolist()}
    named = write("a,b", [[f"p1_{n}", f"p1_{n}"] for n in range(2)], "named.csv")
    options = {"root": "pictures", "mask_root": folder / "truth", "suffix": ".png", "mask_suffix": "_mask.png"}
    assert len(load(named, source="masks_table", image="a", mask="b", val_fraction=0.5, **options).train) == 1


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ((0, 1, "truth/none.png"), {}, "1 of 8 masks that column 'mask' of .* names are not there, such as .*none.png"),
        ((0, 0, "pictures/none.png"), {}, "1 of 8 pictures that .* names are not there, such as .*none.png"),
        ((1, 3, "p4"), {"group": "patient"}, "1 groups of column 'patient' are in both train and val .*'p4'"),
        ((7, 0, "pictures/p1_0.png"), {}, "1 pictures are in both train and val"),
        ((1, 0, "pictures/p1_0.png"), {}, "1 pictures are in several rows with different masks"),
        ((0, 1, "truth/wide.png"), {}, "1 of 8 masks are of another size than their images.*resize_masks"),
        ((0, 1, "truth/all.png"), {}, "holds the value 7"),
        ((0, 1, "truth/lossy.jpg"), {}, "1 masks are of a format that may change values"),
        (None, {"mask": "masc"}, "has no column 'masc'. Did you mean 'mask'"),
    ],
)
def test_what_a_table_of_masks_gets_wrong_is_named(
    folder: Path, write: Write, change: tuple[int, int, str] | None, options: dict[str, Any], said: str
) -> None:
    Image.new("L", (2 * WIDTH, HEIGHT)).save(folder / "truth" / "wide.png")
    Image.new("L", (WIDTH, HEIGHT), 7).save(folder / "truth" / "all.png")
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "truth" / "lossy.jpg")
    rows = of_masks()
    if change is not None:
        rows[change[0]][change[1]] = change[2]
    with pytest.raises(CounterpoiseError, match=said):
        load(write("file,mask,split,patient", rows), **options)


def test_masks_are_resized_where_that_is_told(folder: Path, write: Write) -> None:
    large = Image.open(folder / "truth" / "p1_0_mask.png").resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.NEAREST)
    large.save(folder / "truth" / "p1_0_mask.png")
    train = load(write("file,mask,split,patient", of_masks()), resize_masks=True).train
    assert np.array_equal(train.read_mask(0).numpy() == 1, blobs(0))
    assert any("1 of 6 training masks are resized" in note for note in train.notes)


@pytest.mark.parametrize(("first", "order"), [(1, "columns"), (0, "columns"), (1, "rows")])
def test_pairs_of_runs_are_the_pixels_that_they_count(folder: Path, write: Write, first: int, order: str) -> None:
    rows = [[f"p{seed // 2 + 1}_{seed % 2}", pairs(blobs(seed), first, order == "rows")] for seed in range(7)]
    path = write("ImageId,EncodedPixels", [*rows, ["p4_1", ""]])
    given = {"first": first, "order": order} if (first, order) != (1, "columns") else {}
    train, val = load(path, root="pictures", suffix=".png", fold="1/2", **given)
    assert train.classes == ("background", "object")
    for half in (train, val):
        for index in range(len(half)):
            patient, number = Path(half.name(index)).stem[1:].split("_")
            seed = 2 * (int(patient) - 1) + int(number)
            expected = blobs(seed) if seed < 7 else np.zeros((HEIGHT, WIDTH), dtype=bool)
            assert np.array_equal(half.read_mask(index).numpy() == 1, expected)
    assert any("1 of 8 pictures have no run: all background" in note for note in train.notes)
    assert pickle.loads(pickle.dumps(train)).fingerprint() == train.fingerprint()
    options = {"root": "pictures", "suffix": ".png", **given}
    assert counterpoise.check({"data": {"path": path, "options": options}})["errors"] == 0


def test_several_rows_and_classes_a_picture_and_runs_of_coco(folder: Path, write: Write) -> None:
    large, small = np.zeros((HEIGHT, WIDTH), dtype=bool), np.zeros((HEIGHT, WIDTH), dtype=bool)
    large[1:5, 1:8], small[2:4, 3:5] = True, True
    expected = np.where(small, 2, np.where(large, 1, 0))
    counts = [1 + HEIGHT, 4, *[2, 4] * 6, 1 + HEIGHT]
    coco = json.dumps({"size": [HEIGHT, WIDTH], "counts": counts}).replace('"', '""')
    cells = [(small, "tumor", pairs(small)), (large, "gland", f'"{coco}"')]
    rows = [[f"pictures/{name}.png", kind, cell] for name in ("p1_0", "p2_0") for _, kind, cell in cells]
    path = write("image,kind,rle", [*rows, ["pictures/p3_0.png", "gland", ""]])
    train = load(path, label="kind", val_fraction=0.34).train
    with pytest.raises(DataError, match=r"2 pictures of .*scenes.csv are in several rows with different groups"):
        load(path, group="kind", val_fraction=0.34)
    assert train.classes == ("background", "gland", "tumor")
    assert np.array_equal(train.read_mask(0).numpy(), expected)
    joined = write("Image_Label,EncodedPixels", [[f"{row[0]}_{row[1]}", row[2]] for row in rows], "joined.csv")
    parts = load(joined, val_fraction=0.5)
    assert np.array_equal(parts.val.read_mask(0).numpy(), expected)
    counterpoise.pack({"data": {"path": path, "options": {"label": "kind"}}}, out=folder / "pack")
    assert torch.equal(load(folder / "pack", val_fraction=0.34).train.read_mask(0), train.read_mask(0))


def test_a_column_that_is_called_as_classes_are_is_taken_and_others_are_named(write: Write) -> None:
    cells = [pairs(blobs(seed)) for seed in range(4)]
    rows = [[f"pictures/p{1 + seed}_0.png", f"{1 + seed % 3}", cell, "9"] for seed, cell in enumerate(cells)]
    path = write("ImageId,ClassId,EncodedPixels,Height", rows)
    parts = load(path, val_fraction=0.5)
    assert parts.train.classes == ("background", "1", "2", "3")
    for part in parts:
        for index in range(len(part)):
            seed = int(Path(part.name(index)).stem[1]) - 1
            assert np.array_equal(part.read_mask(index).numpy(), blobs(seed) * (1 + seed % 3))
    notes = parts.train.notes
    assert "classes: column 'ClassId'; all of one class: --data.options.one_class true" in notes
    assert "columns that are not used: Height" in notes
    one = load(path, val_fraction=0.5, one_class=True).train
    assert one.classes == ("background", "object")
    assert "columns that are not used: ClassId, Height" in one.notes
    assert load(path, val_fraction=0.5, label="Height").train.classes == ("background", "9")
    with pytest.raises(ConfigError, match="give one of them"):
        load(path, label="ClassId", one_class=True)
    joined = write("Image,Label,rle", [[f"{row[0]}_{row[1]}", "x", row[2]] for row in rows], "joined.csv")
    assert load(joined, val_fraction=0.5).train.classes == ("background", "1", "2", "3")
    assert load(joined, val_fraction=0.5, one_class=True).train.classes == ("background", "object")


@pytest.mark.parametrize(
    ("columns", "cells", "why"),
    [
        ("class,class_id", ["a,1", "a,1", "b,2", "b,2"], "columns class, class_id may be"),
        ("label", ["a", "", "b", "b"], "column 'label' is called so, and is empty in 1 rows that have runs"),
        ("Label", ["a", "b", "c", "d"], "column 'Label' is called so, and has another value in each row"),
        ("defect", ["1", "1", "1", "0"], "column 'defect' is called so, and says where there is a run"),
    ],
)
def test_a_column_that_may_be_of_classes_is_to_be_said(
    write: Write, columns: str, cells: Sequence[str], why: str
) -> None:
    rows = [[f"pictures/p{1 + at}_0.png", each, "1 5" if at < 3 else ""] for at, each in enumerate(cells)]
    path = write(f"image,{columns},rle", rows)
    with pytest.raises(DataError, match=rf"has the classes is not clear: {why}. .*label NAME; or .*one_class true"):
        load(path, val_fraction=0.5)
    assert load(path, val_fraction=0.5, one_class=True).train.classes == ("background", "object")


@pytest.mark.parametrize(
    ("cell", "options", "said"),
    [
        ("50 6", {}, r"row 2 \(pictures/p1_1.png\): they lead to pixel 55, and a picture of 9 x 6 has 54, 1 to 54"),
        ("0 3", {}, "a start of 0, where the first pixel is 1.*--data.options.first 0"),
        ("54 1", {"first": 0}, "they lead to pixel 54, and .* has 54, 0 to 53"),
        ("4 0", {}, "a length of 0"),
        ("1 2 3", {}, "3 numbers are no pairs"),
        ("1 3 2 4", {}, "run 2 starts at 2, before the end of the one before it"),
        ("1 x", {}, "'x' is no number"),
        ("1 99999999999999999999", {}, "is no number|they lead"),
        ('"{""size"": [9, 6], ""counts"": [54]}"', {}, r"its size is \[9, 6\], and the picture's \[6, 9\]"),
        ('"{""size"": [6, 9], ""counts"": [50]}"', {}, "its counts do not fill a picture of 9 x 6"),
        ('"{""size"": [6, 9], ""counts"": ""~~""}"', {}, "its counts do not fill"),
        ('"{' + '""a"":{' * 2000 + '"', {}, "it is no JSON"),
        ("", {}, "No row of column 'rle' .* holds a run"),
        ("1 2", {"classes": "classes.txt"}, "no column has them: --data.options.label"),
        ("1 2", {"order": "diagonal"}, "data.options.order"),
    ],
)
def test_runs_that_fit_no_picture_are_refused(write: Write, cell: str, options: dict[str, Any], said: str) -> None:
    path = write("image,rle", [["pictures/p1_0.png", ""], ["pictures/p1_1.png", cell]])
    with pytest.raises((DataError, ConfigError), match=said):
        load(path, val_fraction=0.5, **options)


def test_runs_for_a_picture_of_another_size_are_resized_where_that_is_told(folder: Path, write: Write) -> None:
    counts = [0, 2 * HEIGHT, 2 * HEIGHT * (2 * WIDTH - 1)]  # the first column of a picture twice as large
    cell = json.dumps({"size": [2 * HEIGHT, 2 * WIDTH], "counts": counts}).replace('"', '""')
    path = write(
        "image,rle", [["pictures/p1_0.png", f'"{cell}"'], ["pictures/p1_1.png", ""], ["pictures/p2_0.png", ""]]
    )
    with pytest.raises(DataError, match=r"its size is \[12, 18\], and the picture's \[6, 9\]"):
        load(path, val_fraction=0.34)
    train, val = load(path, val_fraction=0.34, resize_masks=True)
    masks = {Path(half.name(at)).stem: half.read_mask(at) for half in (train, val) for at in range(len(half))}
    on = np.zeros((2 * HEIGHT, 2 * WIDTH), dtype=np.uint8)
    on[:, 0] = 1
    nearest = Image.fromarray(on).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    assert np.array_equal(masks["p1_0"].numpy(), np.asarray(nearest))
    assert any("are resized to their pictures" in note for note in train.notes)
    pairs_for = write("image,rle", [["pictures/p1_0.png", "1 72"], ["pictures/p1_1.png", ""]], "pairs.csv")
    with pytest.raises(DataError, match=r"of another size than their outlines.*resize_masks true"):
        load(pairs_for, val_fraction=0.5, encoded_size=[12, 18])
    train, val = load(pairs_for, val_fraction=0.5, encoded_size=[12, 18], resize_masks=True)
    assert max(int(half.read_mask(0).sum()) for half in (train, val)) in (6 * 3, 6 * 2)


def test_runs_are_what_they_were_made_of() -> None:
    for seed in range(6):
        mask = blobs(seed) if seed else np.ones((HEIGHT, WIDTH), dtype=bool)
        assert np.array_equal(runs.fill((), runs.of_pixels(mask), HEIGHT, WIDTH), mask)
