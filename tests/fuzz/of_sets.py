"""Data: masks, volumes, tables and documents about pictures, packs and tars."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import containers
import mutators
import numpy as np
import yaml
from campaign import Format
from making import Make, photos, pixels, saved
from PIL import Image

from counterpoise import config
from counterpoise.data import sources

NAMES = ("cell", "nerve")


def _look(images: Any) -> Any:
    """The first pictures and masks of a set, as training asks for them."""
    for index in range(min(2, len(images))):
        images.name(index), images.identity(index), images.extent(index)
        picture = images.read(index)
        mask = images.read_mask(index) if images.masked else None
        if mask is not None and mask.shape != picture.shape[-2:]:
            return None  # what `sound` refuses
    return images.classes, images.labels


def read_as(**data: Any) -> Callable[[Path], Any]:
    """Read the folder as data, and look at some of it."""

    def read(folder: Path) -> Any:
        given = {"path": str(folder / data.get("path", ".")), "val_fraction": 0.34, "max_megapixels": 1}
        splits = sources.load(
            config.Data.model_validate({**given, **{key: value for key, value in data.items() if key != "path"}})
        )
        return [_look(part) for part in splits]

    return read


def sets_fit(found: Any, _: Any) -> bool:
    """Labels are of the classes, whose names differ, and masks are as large as their pictures."""
    return all(
        part is not None and len(set(part[0])) == len(part[0]) and int(part[1].max()) < max(1, len(part[0]))
        for part in found
    )


def _masks(folder: Path) -> None:
    """pictures and masks of three classes, and the list of these."""
    for half in ("train", "val"):
        photos(folder / "images" / half, 2)
        (folder / "masks" / half).mkdir(parents=True)
        for number in range(2):
            mask = Image.fromarray(pixels(number, (8, 8)) % 3, mode="P")
            mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
            mask.save(folder / "masks" / half / f"{number}.png")
    (folder / "classes.txt").write_text("void 0 0 0\ncell 200 0 0\nnerve 0 200 0\n")


def _table(ending: str) -> Make:
    """A label table of six pictures, beside them."""
    rows = [
        {
            "image": f"pictures/{number}.png",
            "label": NAMES[number % 2],
            "split": "val" if number > 3 else "train",
            "age": 30 + number,
        }
        for number in range(6)
    ]

    def make(folder: Path) -> None:
        photos(folder / "pictures")
        file = folder / f"labels.{ending}"
        if ending == "csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.write_text(text.getvalue())
        elif ending == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), file)

    return make


def _coco(folder: Path) -> None:
    """Six pictures with outlines and, of one, run lengths."""
    photos(folder / "images")
    images = [{"id": at, "file_name": f"{at}.png", "height": 8, "width": 8} for at in range(6)]
    objects = [
        {"id": at, "image_id": at, "category_id": 1 + at % 2, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 6]]}
        for at in range(6)
    ]
    objects[2]["segmentation"] = {"size": [8, 8], "counts": [10, 20, 34]}
    values = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "nerve"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(values))


def _labelme(folder: Path) -> None:
    photos(folder, 4)
    for number in range(4):
        ring = {
            "label": NAMES[number % 2],
            "shape_type": "polygon",
            "points": [[1, 1], [6, 1], [6, 6.5]],
            "group_id": None,
        }
        circle = {"label": "cell", "shape_type": "circle", "points": [[3, 3], [5, 3]], "group_id": 1}
        said = {
            "version": "5.4.1",
            "flags": {},
            "shapes": [ring, circle],
            "imagePath": f"{number}.png",
            "imageData": None,
            "imageHeight": 8,
            "imageWidth": 8,
        }
        (folder / f"{number}.json").write_text(json.dumps(said))


def _yolo(folder: Path) -> None:
    photos(folder / "images" / "train", 4)
    photos(folder / "images" / "val", 2)
    for half, count in (("train", 4), ("val", 2)):
        (folder / "labels" / half).mkdir(parents=True)
        for number in range(count):
            (folder / "labels" / half / f"{number}.txt").write_text(
                f"{number % 2} 0.2 0.2 0.8 0.2 0.8 0.8\n0 0.1 0.1 0.3 0.1 0.2 0.4\n"
            )
    (folder / "data.yaml").write_text(
        yaml.safe_dump(
            {"path": ".", "names": {0: "cell", 1: "nerve"}, "nc": 2, "train": "images/train", "val": "images/val"}
        )
    )


def _nifti(folder: Path) -> None:
    import nibabel

    for number in range(3):
        for kind, values in (
            ("images", pixels(number, (6, 8, 5)).astype(np.int16)),
            ("labels", pixels(number, (6, 8, 5)) % 2),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 2.0, 1.0])).to_filename(folder / kind / f"p{number}.nii")
    (folder / "classes.txt").write_text("background\nliver\n")


def _cifar(folder: Path) -> None:
    inner = folder / "cifar-100-python"
    inner.mkdir(parents=True)
    for name, count in (("train", 6), ("test", 3)):
        labels = [number % 3 for number in range(count)]
        record = {
            "data": pixels(count, (count, 3072)),
            "fine_labels": labels,
            "coarse_labels": labels,
            "batch_label": name,
        }
        (inner / name).write_bytes(pickle.dumps(record, protocol=2))
    (inner / "meta").write_bytes(
        pickle.dumps({"fine_label_names": ["a", "b", "c"], "coarse_label_names": ["a", "b", "c"]}, protocol=2)
    )


def _pack(folder: Path) -> None:
    import counterpoise

    for half in ("train", "val"):
        for name in NAMES:
            photos(folder.parent / "photos" / half / name, 2)
    counterpoise.pack(folder.parent / "photos", out=folder, shards=1)


def _scene_pack(folder: Path) -> None:
    import counterpoise

    _masks(folder.parent / "scenes")
    counterpoise.pack(folder.parent / "scenes", out=folder, shards=1)


def _hub(folder: Path) -> None:
    """What `save_to_disk` writes: two splits of pictures with their classes."""
    import datasets

    def split(count: int) -> Any:
        rows = {"image": [{"bytes": saved("PNG", pixels(number)), "path": None} for number in range(count)]}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
        return datasets.Dataset.from_dict({**rows, "label": [at % 2 for at in range(count)]}, features=features)

    with _quietly():
        datasets.DatasetDict({"train": split(4), "validation": split(2)}).save_to_disk(str(folder))


def _hub_files(folder: Path) -> None:
    """The same as Parquet, as the Hub has it."""
    import pyarrow
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    for name, count in (("train", 4), ("validation", 2)):
        image = [{"bytes": saved("PNG", pixels(number)), "path": f"{number}.png"} for number in range(count)]
        table = pyarrow.table({"image": image, "label": [NAMES[at % 2] for at in range(count)]})
        parquet.write_table(table, folder / "data" / f"{name}-00000-of-00001.parquet")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without bars of progress."""
    import datasets

    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _of_hub(folder: Path) -> Any:
    """As the source does, with the library's cache within the folder."""
    import datasets

    usual = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    try:
        with _quietly():
            return read_as(source="huggingface")(folder)
    finally:
        datasets.config.HF_DATASETS_CACHE = usual
        shutil.rmtree(folder / "cache", ignore_errors=True)


def _tars(folder: Path) -> None:
    """What webdataset reads: JPEG, class and JSON beside one another."""
    folder.mkdir()
    for name, count in (("train-000000", 4), ("val-000000", 2)):
        with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for number in range(count):
                for ending, content in ((".png", saved("PNG", pixels(number))), (".cls", str(number % 2).encode())):
                    info = tarfile.TarInfo(f"{number:06d}{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def _inner(name: str) -> mutators.Mutator:
    return mutators.of_text if name.endswith(".cls") else mutators.of_bytes


def _no_index(folder: Path) -> None:
    """The index of a tar is made anew."""

    shutil.rmtree(folder / "index", ignore_errors=True)
    for file in folder.glob("*.json"):
        file.unlink()


SETS: tuple[Format, ...] = (
    Format("mask", _masks, "masks/train/0.png", mutators.of_bytes, read_as(), sound=sets_fit),
    Format("classes file of masks", _masks, "classes.txt", mutators.of_text, read_as(), sound=sets_fit),
    Format(
        "label table, CSV", _table("csv"), "labels.csv", mutators.of_csv, read_as(path="labels.csv"), sound=sets_fit
    ),
    Format(
        "label table, JSON lines",
        _table("jsonl"),
        "labels.jsonl",
        mutators.of_json_lines,
        read_as(path="labels.jsonl"),
        sound=sets_fit,
    ),
    Format(
        "label table, Parquet",
        _table("parquet"),
        "labels.parquet",
        mutators.of_bytes,
        read_as(path="labels.parquet"),
        sound=sets_fit,
    ),
    Format(
        "COCO",
        _coco,
        "annotations/instances_train.json",
        mutators.of_json,
        read_as(source="coco", options={"images": "images"}),
        sound=sets_fit,
    ),
    Format("LabelMe", _labelme, "1.json", mutators.of_json, read_as(source="labelme"), sound=sets_fit),
    Format("YOLO data.yaml", _yolo, "data.yaml", mutators.of_yaml, read_as(source="yolo"), sound=sets_fit),
    Format("YOLO labels", _yolo, "labels/train/0.txt", mutators.of_text, read_as(source="yolo"), sound=sets_fit),
    Format(
        "NIfTI",
        _nifti,
        "images/p1.nii",
        mutators.of_bytes,
        read_as(
            source="nifti", channels=1, intensity={"window": [0, 255]}, options={"images": "images", "labels": "labels"}
        ),
        sound=sets_fit,
        quick=20,
    ),
    Format(
        "CIFAR pickle", _cifar, "cifar-100-python/train", containers.of_pickle, read_as(source="cifar"), sound=sets_fit
    ),
    Format("pack.json", _pack, "pack.json", mutators.of_json, read_as(), sound=sets_fit),
    Format("shard of a pack", _pack, "train-000000.tar", containers.of_tar(_inner), read_as(), sound=sets_fit),
    Format("index of a pack", _pack, "index/train.images.npy", mutators.of_bytes, read_as(), sound=sets_fit),
    Format("names of a pack", _pack, "index/train.images.names", mutators.of_text, read_as(), sound=sets_fit),
    Format("pack.json of scenes", _scene_pack, "pack.json", mutators.of_json, read_as(), sound=sets_fit, quick=20),
    Format(
        "shard of a pack of scenes",
        _scene_pack,
        "train-000000.tar",
        containers.of_tar(_inner),
        read_as(),
        sound=sets_fit,
        quick=20,
    ),
    Format("masks of a pack", _scene_pack, "index/train.masks.npy", mutators.of_bytes, read_as(), sound=sets_fit),
    Format("Hub set", _hub, "train/dataset_info.json", mutators.of_json, _of_hub, sound=sets_fit, quick=10),
    Format("splits of a Hub set", _hub, "dataset_dict.json", mutators.of_json, _of_hub, sound=sets_fit, quick=10),
    Format("state of a Hub set", _hub, "train/state.json", mutators.of_json, _of_hub, sound=sets_fit, quick=10),
    Format("table of a Hub set", _hub, "train/data-00000-of-00001.arrow", mutators.of_bytes, _of_hub, sound=sets_fit),
    Format(
        "Parquet of the Hub",
        _hub_files,
        "data/train-00000-of-00001.parquet",
        mutators.of_bytes,
        _of_hub,
        sound=sets_fit,
        quick=5,
    ),
    Format(
        "tar of others",
        _tars,
        "train-000000.tar",
        containers.of_tar(_inner),
        read_as(source="shards"),
        seal=_no_index,
        sound=sets_fit,
    ),
)
