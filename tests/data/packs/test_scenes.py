"""Packs of scenes: masks and their meaning come along, whatever they are."""

from __future__ import annotations

import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.questions import answers_of
from counterpoise.errors import ConfigError, CorruptImage, DataError, UnfitMask

RUN = {
    "task": "segmentation",
    "student": {"model": "smp/unet:resnet18", "arguments": {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}},
    "train": {"epochs": 1, "batch_size": 2},
}


@pytest.fixture
def scenes(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    """{images,masks}/{train,val} with 5 and 2 files in colors, one class of which is void."""
    root = tmp_path / "scenes"
    for half, count in (("train", 5), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / half).mkdir(parents=True)
        for number in range(count):
            size = (40 + 8 * (number % 2), 32)
            make_picture("circle", number, size).save(root / "images" / half / f"{number}.jpg")
            mask = np.zeros((size[1], size[0], 3), dtype=np.uint8)
            mask[8:24, 10 : 20 + number] = (200, 0, 0)
            mask[:2] = (0, 0, 9)
            Image.fromarray(mask).save(root / "masks" / half / f"{number}.bmp")
    (root / "classes.txt").write_text("ground 0 0 0\nvoid 0 0 9\nround 200 0 0\n")
    return root


def load(path: Path, **values: Any) -> sources.Splits:
    return sources.load(config.Data(path=path, **values))


def assert_same(folder: sources.Splits, pack: sources.Splits) -> None:
    for one, other in zip(folder, pack, strict=True):
        assert other.masked
        assert one.fingerprint() == other.fingerprint()
        assert one.classes == other.classes
        for index in range(len(one)):
            assert torch.equal(one.read(index), other.read(index))
            assert torch.equal(one.read_mask(index), other.read_mask(index))


def test_a_pack_of_scenes_is_the_folder(scenes: Path, tmp_path: Path) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack", shards=2)
    assert_same(load(scenes), load(tmp_path / "pack"))
    mask, content = scenes / "masks" / "val" / "1.bmp", (scenes / "masks" / "val" / "1.bmp").read_bytes()
    mask.write_bytes(content[:54] + bytes([0, 0, 200]) + content[57:])  # one pixel of ground is round
    with pytest.raises(DataError, match=r"holds another pack: images differ, val/1\.bmp"):
        counterpoise.pack(scenes, out=tmp_path / "pack", shards=2)
    mask.write_bytes(content)
    assert counterpoise.pack(scenes, out=tmp_path / "pack", shards=2)["shards that were there"] == 3
    with tarfile.open(tmp_path / "pack" / "train-000000.tar") as tar:
        assert tar.getnames()[:3] == ["000000000.jpg", "000000000.mask.bmp", "000000001.jpg"]
        inside = tar.extractfile("000000000.mask.bmp")
        assert inside is not None
        assert inside.read() == (scenes / "masks" / "train" / "0.bmp").read_bytes()
    assert counterpoise.verify(tmp_path / "pack")["images of train"] == 5
    train = load(tmp_path / "pack").train
    assert torch.equal(pickle.loads(pickle.dumps(train)).read_mask(3), train.read_mask(3))


@pytest.mark.parametrize("options", [{"ignore": 2}, {"resize_masks": True}, {"classes": "gray.txt", "lossy": True}])
def test_what_masks_mean_comes_along(scenes: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    for file in (scenes / "masks").rglob("*.bmp"):
        mask = Image.fromarray((np.array(Image.open(file))[..., 0] > 0).astype(np.uint8) * 2)
        if "classes" in options:
            mask = mask.point(lambda value: value * 100)
        if "resize_masks" in options:
            mask = mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST)
        mask.save(file.with_suffix(".png"))
        file.unlink()
    (scenes / "classes.txt").write_text("ground\nother\nround\nmore\n")
    (scenes / "gray.txt").write_text("ground 0\nround 190\n")
    section = {"path": scenes, "val_fraction": 0.4, "options": options}
    counterpoise.pack({"task": "segmentation", "data": section}, out=tmp_path / "pack")
    assert_same(load(**section), load(tmp_path / "pack", val_fraction=0.4))


def test_scenes_are_made_smaller_with_their_masks(scenes: Path, tmp_path: Path) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack", shorter=16)
    train = load(tmp_path / "pack").train
    assert train.classes == ("ground", "round")
    for index, old in enumerate(load(scenes).train.read_mask(index) for index in range(5)):
        mask = train.read_mask(index)
        assert mask.shape == train.read(index).shape[1:]
        assert mask.shape[0] == 16
        assert set(mask.unique().tolist()) == set(old.unique().tolist())


def test_a_mask_of_another_size_is_packed_and_said_when_it_is_read(scenes: Path, tmp_path: Path) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack")
    Image.new("RGB", (9, 9)).save(scenes / "masks" / "train" / "1.bmp")
    with pytest.raises(DataError, match="another size"):
        counterpoise.pack(scenes, out=tmp_path / "other")
    skipping = {"data": {"path": scenes, "on_corrupt": "skip"}}
    counterpoise.pack(skipping, out=tmp_path / "other")
    with pytest.raises(UnfitMask, match=r"train-000000\.tar/train/1\.bmp is 9 x 9 pixels"):
        load(tmp_path / "other", on_corrupt="skip").train.read_mask(1)


@pytest.mark.parametrize("change", [("names", ["a"]), ("void", [7]), ("colors", [[0, 0, 300]] * 3), ("ignore", "x")])
def test_masks_that_mean_nothing_are_said(scenes: Path, tmp_path: Path, change: tuple[str, Any]) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack")
    values = json.loads((tmp_path / "pack" / "pack.json").read_text())
    values["meaning"] |= dict([change])
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"pack\.json is damaged: meaning"):
        load(tmp_path / "pack")


def test_a_flipped_bit_of_a_mask_is_named(scenes: Path, tmp_path: Path) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack")
    shard = tmp_path / "pack" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[-1500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"bytes have changed in train/4\.bmp"):
        counterpoise.verify(tmp_path / "pack")
    with pytest.raises(CorruptImage, match=r"train/4\.bmp cannot be read: its bytes have changed"):
        load(tmp_path / "pack").train.read_mask(4)


def test_scenes_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lie in no files of their own"):
        counterpoise.pack({"data": {"source": "digit_scenes"}}, out=tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_run_on_packed_scenes_ends_in_the_same_bytes(scenes: Path, tmp_path: Path) -> None:
    counterpoise.pack(scenes, out=tmp_path / "pack", shards=2)
    weights = []
    for path in (scenes, tmp_path / "pack"):
        out = tmp_path / "runs" / path.name
        counterpoise.train({**RUN, "data": {"path": path, "workers": 0, "size": 32}, "out": out})
        weights.append((out / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def weights(data: Path, out: Path, task: str, **values: Any) -> bytes:
    """Of a student of one epoch."""
    train = {"epochs": 1, "batch_size": 2, "device": "cpu", "precision": "fp32"}
    data_section = {"path": str(data), "workers": 0, "scenes": {"size": [16, 16]}, "val_fraction": 0.34, **values}
    student = {"model": "digits/unet_4_4"}
    counterpoise.train({"task": task, "data": data_section, "student": student, "train": train, "out": str(out)})
    return (out / "student" / "model.safetensors").read_bytes()


def assert_alike(folder: sources.Splits, pack: sources.Splits) -> None:
    for one, other in zip(folder, pack, strict=True):
        assert (one.classes, len(one), one.group_names) == (other.classes, len(other), other.group_names)
        assert one.questions is other.questions is None or torch.equal(one.questions, other.questions)  # type: ignore
        assert one.groups is other.groups is None or torch.equal(one.groups, other.groups)  # type: ignore
        for index in range(len(one)):
            assert torch.equal(one.read(index), other.read(index))
            assert torch.equal(one.read_mask(index), other.read_mask(index))
            assert one.spacing(index) == other.spacing(index)


def test_a_pack_of_questions_of_classes_is_the_folder(scenes: Path, tmp_path: Path) -> None:
    asked = {"questions": {"disc": ["round"], "ball": ["round"]}}
    given = {"data": {"path": str(scenes), **asked, "options": {"group": r"(\d)\.jpg", "shared": True}}}
    counterpoise.pack(given, out=tmp_path / "pack", shards=2)
    options = {"group": r"(\d)\.jpg", "shared": True}
    folder, pack = load(scenes, **asked, options=options), load(tmp_path / "pack")
    assert_same(folder, pack)
    assert_alike(folder, pack)
    assert pack.train.group_names == ("0", "1", "2", "3", "4")
    counterpoise.pack({"data": {"path": str(scenes), **asked}}, out=tmp_path / "small", shorter=16)
    small = load(tmp_path / "small").train
    counterpoise.pack(tmp_path / "pack", out=tmp_path / "again", shorter=16)
    assert load(tmp_path / "again").train.fingerprint() == small.fingerprint()
    assert small.questions is not None
    assert answers_of(small.questions, small.read_mask(0)).amax((1, 2)).tolist() == [1, 1]
    with pytest.raises(ConfigError, match="answer questions already"):
        load(tmp_path / "pack", **asked)
    pack_json = json.loads((tmp_path / "pack" / "pack.json").read_text())
    pack_json["questions"][0]["no"] = [1, 0]
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(pack_json))
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "pack")


def test_a_pack_of_a_folder_of_masks_for_each_question_trains_to_the_same_bytes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(6):
        for folder in ("images", "masks/disc", "masks/vessel"):
            (tmp_path / "eyes" / folder).mkdir(parents=True, exist_ok=True)
            shape = (16, 16, 3) if folder == "images" else (16, 16)
            pixels = draw.integers(0, 256, shape, dtype=np.uint8)
            pixels = pixels if folder == "images" else (pixels > 128).astype(np.uint8) * 255
            if folder == "masks/disc":
                pixels[:3] = 128
            Image.fromarray(pixels).save(tmp_path / "eyes" / folder / f"{number}.png")
    given = {"path": str(tmp_path / "eyes"), "options": {"ignore": 128}}
    counterpoise.pack({"data": given}, out=tmp_path / "pack", shards=2)
    folder, pack = (
        load(tmp_path / "eyes", val_fraction=0.34, options={"ignore": 128}),
        load(tmp_path / "pack", val_fraction=0.34),
    )
    assert pack.train.classes == ("disc", "vessel")
    assert_alike(folder, pack)
    both = [
        weights(tmp_path / "eyes", tmp_path / "one", "multilabel_segmentation", options={"ignore": 128}),
        weights(tmp_path / "pack", tmp_path / "other", "multilabel_segmentation"),
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("kind", ["int16", "uint8"])
def test_a_pack_of_volumes_has_their_slices_groups_and_spacing_and_trains_to_the_same_bytes(
    tmp_path: Path, kind: str
) -> None:
    draw = np.random.default_rng(0)
    for case in ("p1_a", "p1_b", "p2_a", "p3_a"):
        values = draw.integers(0, 200, (16, 16, 3)).astype(kind)
        labels = (values > 100).astype(np.uint8) * 7
        affine = np.diag([0.5, 0.75 + (case == "p2_a"), 2, 1])
        for folder, array in (("images", values), ("labels", labels)):
            (tmp_path / "organs" / folder).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(array, affine)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, tmp_path / "organs" / folder / f"{case}.nii.gz")
    (tmp_path / "organs" / "classes.txt").write_text("background 0\norgan 7\n")
    read: dict[str, Any] = {"channels": 1, "intensity": {"percentiles": [5, 95]}} if kind == "int16" else {}
    options = {"group": "(p[0-9])_"}
    given = {"path": str(tmp_path / "organs"), "val_fraction": 0.34, "options": options, **read}
    counterpoise.pack({"data": given}, out=tmp_path / "pack", shards=3)
    folder = sources.load(config.Data.model_validate(given))
    pack = sources.load(config.Data.model_validate({"path": tmp_path / "pack", "val_fraction": 0.34, **read}))
    assert_alike(folder, pack)
    assert {pack.train.spacing(index) for index in range(len(pack.train))} <= {(0.75, 0.5), (1.75, 0.5)}
    assert counterpoise.verify(tmp_path / "pack")["images of train"] == 12
    both = [
        weights(tmp_path / "organs", tmp_path / "one", "segmentation", options=options, **read),
        weights(tmp_path / "pack", tmp_path / "other", "segmentation", **read),
    ]
    assert both[0] == both[1]
