"""Files and folders that options name, and those of the usual names, where the working folder has others."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.given import classes_file, file_of, folder_of
from counterpoise.errors import DataError

CLASSES = ("background", "liver", "spleen")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """here/, in which we are, with the classes.txt of other data; data/ beside it, scenes and tables of them."""
    root = tmp_path / "data"
    for half in ("images", "masks"):
        (root / half).mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (6, 6), (number, 0, 0)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6) % 3).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    rows = [f"images/{number}.png,masks/{number}.png" for number in range(6)]
    (root / "masks.csv").write_text("\n".join(["file,mask", *rows]))
    (root / "labels.csv").write_text("\n".join(["file,label", *(f"{number}.png,{number % 2}" for number in range(6))]))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "classes.txt").write_text("road\nsky\ncar\n")
    monkeypatch.chdir(tmp_path / "here")
    return root


def load(path: Path, **options: Any) -> sources.Splits:
    fields = {name: options.pop(name) for name in [*options] if name in config.Data.model_fields}
    return sources.load(config.Data(path=path, options=options, **fields))


def volumes(data: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    for half in ("imagesTr", "labelsTr"):
        (data / "volumes" / half).mkdir(parents=True)
        for case in "ab":
            values = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) % 3
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), data / "volumes" / half / f"{case}.nii")
    labels = {name: number for number, name in enumerate(CLASSES)}
    (data / "volumes" / "dataset.json").write_text(json.dumps({"labels": labels}))
    return data / "volumes"


@pytest.mark.parametrize("inner", ["", "masks.csv", "volumes"])
def test_the_usual_classes_file_is_that_of_the_data(data: Path, inner: str) -> None:
    path = volumes(data) if inner == "volumes" else data / inner
    assert load(path, channels=1 if inner == "volumes" else 3).train.classes == CLASSES


def test_that_of_the_working_folder_is_taken_where_it_is_named(data: Path) -> None:
    (data / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"data/classes.txt is not there.*name it: --data.options.classes /.*here/cl"):
        load(data)
    assert load(data, classes="classes.txt").train.classes == ("road", "sky", "car")


def in_both(data: Path, name: str, text: str) -> None:
    (data / name).write_text(text)
    Path(name).write_text(f"{text} ")


def coco(data: Path) -> Path:
    pytest.importorskip("pycocotools")
    images = [{"id": 1, "file_name": "1.png", "height": 6, "width": 6}]
    outline = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]], "iscrowd": 0, "id": 1}
    said = {"images": images, "annotations": [outline], "categories": [{"id": 1, "name": "x"}]}
    in_both(data, "one.json", json.dumps(said))
    return data


def labelme(data: Path) -> Path:
    shape = {"label": "liver", "points": [[0, 0], [4, 4]], "shape_type": "rectangle"}
    said = {"shapes": [shape], "imagePath": "1.png", "imageHeight": 6, "imageWidth": 6}
    (data / "images" / "1.json").write_text(json.dumps(said))
    in_both(data / "images", "names.txt", "liver")
    return data / "images"


def groups(data: Path) -> Path:
    in_both(data, "g.csv", "file,group")
    return data


def tars(data: Path) -> Path:
    (data / "tars").mkdir()
    (data / "classes.txt").rename(data / "tars" / "classes.txt")
    with tarfile.open(data / "tars" / "0.tar", "w") as tar:
        for number in range(6):
            tar.add(data / "images" / f"{number}.png", f"{number}.png")
            label = tarfile.TarInfo(f"{number}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(b"%d" % (number % 3)))
    return data / "tars"


def run_lengths(data: Path) -> Path:
    rows = [f"images/{number}.png,1 3,{CLASSES[number % 3]}" for number in range(6)]
    (data / "runs.csv").write_text("\n".join(["image,rle,label", *rows]))
    return data / "runs.csv"


def labels(data: Path) -> Path:
    rows = [f"images/{number}.png,{CLASSES[number % 3]}" for number in range(6)]
    (data / "named.csv").write_text("\n".join(["file,label", *rows]))
    return data / "named.csv"


OF_PICTURES = [(labels, "table"), (run_lengths, "run_lengths"), (tars, "shards")]


@pytest.mark.parametrize(("build", "source"), OF_PICTURES)
def test_a_classes_file_that_is_named_is_looked_for_beside_the_data(
    data: Path, build: Callable[[Path], Path], source: str
) -> None:
    path = build(data)
    Path("classes.txt").unlink()
    assert load(path, source=source, classes="classes.txt").train.classes == CLASSES


@pytest.mark.parametrize(
    ("build", "source", "options"),
    [
        *((build, source, {"classes": "classes.txt"}) for build, source in OF_PICTURES),
        (lambda data: data, "masks_folder", {"classes": "classes.txt"}),
        (lambda data: data / "masks.csv", "masks_table", {"classes": "classes.txt"}),
        (lambda data: data / "masks.csv", "masks_table", {"mask_root": "images", "root": "../data"}),
        (lambda data: data / "labels.csv", "table", {"root": "images"}),
        (groups, "masks_folder", {"group": "g.csv"}),
        (labelme, "labelme", {"classes": "names.txt"}),
        (coco, "coco", {"train": "one.json"}),
        (lambda data: coco(data) / "one.json", "coco", {"images": "images"}),
    ],
)
def test_a_name_that_both_have_is_refused(
    data: Path, build: Callable[[Path], Path], source: str, options: dict[str, str]
) -> None:
    path = build(data)
    Path("images").mkdir()
    option, name = next(iter(options.items()))
    said = rf"data.options.{option}: {name} may be .*/data/.*{name}, of the data, or .*/here/{name}, of the working"
    with pytest.raises(DataError, match=rf"{said} folder, and they differ.*--data.options.{option} /"):
        load(path, source=source, **options)


def test_one_of_them_is_taken_where_they_are_alike_or_one_is_meant(data: Path) -> None:
    (data / "same").write_text("a")
    Path("same").write_text("a")
    assert file_of(Path("same"), data, "x") == data / "same"
    Path("same").unlink()
    Path("same").symlink_to(data / "same")
    assert file_of(Path("same"), data / "masks.csv", "x") == Path("same")
    for meant in (data / "classes.txt", Path("classes.txt").absolute()):
        assert classes_file(meant, data) == meant
    assert folder_of(Path(), data, "x") == Path()
    assert folder_of(Path(".."), data, "x") == Path("..")
    assert folder_of(Path("images"), data, "x") == data / "images"
    assert folder_of(Path("gone"), data, "x") == data / "gone"
