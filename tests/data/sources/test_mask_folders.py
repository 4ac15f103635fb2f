"""A folder of masks for each question: layouts, overlaps, and what is said where something does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.questions import answers_of, counts
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError

QUESTIONS = ("disc", "vessel")
Run = Callable[..., tuple[int, str, str]]


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)


def write(root: Path, halves: tuple[str, ...] = ("train/", "val/"), count: int = 3) -> Path:
    """Pictures 6 x 4 in which the left half is disc and the upper one vessel: 255 in one folder, 1 in the other."""
    disc, vessel = np.zeros((4, 6)), np.zeros((4, 6))
    disc[:, :3], vessel[:2] = 255, 1
    for half in halves:
        for number in range(count):
            save(root / "images" / f"{half}{number}.png", np.full((4, 6, 3), 40 * number))
            save(root / "masks" / "disc" / f"{half}{number}.png", disc)
            save(root / "masks" / "vessel" / f"{half}{number}.png", vessel)
    return root


def load(path: Path, **options: Any) -> Splits:
    return sources.load(config.Data(path=path, val_fraction=0.34, options=options))


@pytest.mark.parametrize("halves", [("train/", "val/"), ("",)])
def test_each_folder_is_a_question_and_structures_overlap(tmp_path: Path, halves: tuple[str, ...]) -> None:
    train, val = load(write(tmp_path, halves))
    assert (len(train), len(val)) == ((3, 3) if len(halves) == 2 else (2, 1))
    for part in (train, val):
        assert part.classes == QUESTIONS
        assert part.questions is not None
        disc, vessel = answers_of(part.questions, part.read_mask(0))
        assert torch.equal(disc, (torch.arange(6) < 3).expand(4, 6).to(torch.int8))
        assert torch.equal(vessel, (torch.arange(4) < 2)[:, None].expand(4, 6).to(torch.int8))
        assert [found.tolist() for found in counts(part)] == [[12 * len(part)] * 2] * 2


def test_questions_are_chosen_and_ordered_and_suffixes_may_differ(tmp_path: Path) -> None:
    root = write(tmp_path, ("",))
    for path in (root / "masks" / "disc").iterdir():
        path.rename(path.with_name(f"{path.stem}_OD.png"))
    train, _ = load(root, questions=["vessel", "disc"], mask_suffix={"disc": "_OD"})
    assert train.classes == ("vessel", "disc")
    assert load(root, questions=["vessel"]).train.classes == ("vessel",)
    moved = shutil.copytree(root, tmp_path.with_name("moved"))
    options = {"questions": ["vessel", "disc"], "mask_suffix": {"disc": "_OD"}}
    assert load(moved, **options).train.fingerprint() == train.fingerprint()


def test_pictures_may_be_arrays(tmp_path: Path) -> None:
    root = write(tmp_path, ("",))
    for file in (root / "images").iterdir():
        np.save(file.with_suffix(".npy"), np.zeros((4, 6, 2), np.uint8))
        file.unlink()
    train, val = sources.load(config.Data(path=root, val_fraction=0.34, channels=2))
    assert (len(train), len(val), train.read(0).shape) == (2, 1, (2, 4, 6))


def test_a_pixel_that_is_void_in_one_mask_counts_for_no_question(tmp_path: Path) -> None:
    root = write(tmp_path, ("",))
    values = np.zeros((4, 6))
    values[0], values[1] = 128, 255
    save(root / "masks" / "disc" / "0.png", values)
    train, val = load(root, ignore=128)
    part = train if "0.png" in train.name(0) else val
    assert part.questions is not None
    answers = answers_of(part.questions, part.read_mask(0))
    assert (answers[:, 0] == -1).all()
    assert (answers[0, 1] == 1).all()


def _too_large(root: Path) -> None:
    save(root / "masks" / "disc" / "train" / "1.png", np.zeros((8, 12)))


def _colors(root: Path) -> None:
    save(root / "masks" / "disc" / "train" / "1.png", np.arange(72).reshape(4, 6, 3))


def _classes(root: Path) -> None:
    save(root / "masks" / "disc" / "train" / "1.png", np.full((4, 6), 3))


def _missing(root: Path) -> None:
    (root / "masks" / "vessel" / "train" / "1.png").unlink()


def _many(root: Path) -> None:
    for number in range(7):
        (root / "masks" / f"more{number}").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_too_large, r"1 masks are of another size than their images: .*disc.train.1.png is 12 x 8 pixels"),
        (_colors, "1.png holds colors, where one of a question is gray"),
        (_classes, r"1.png holds the value 3, where that of a question holds 0 \(no\) and 255 or 1"),
        (_missing, r"1 of 3 images have no mask below .*vessel"),
        (_many, "has 9 folders, and up to 7 questions are asked at once"),
    ],
)
def test_what_does_not_fit_is_said_before_training_and_by_check(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, run: Run
) -> None:
    root = write(tmp_path)
    spoil(root)
    values = {"task": "multilabel_segmentation", "data": root, "student": {"model": "digits/unet_4_8"}}
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.train({**values, "out": tmp_path / "run"})
    code, out, error = run("check", root)
    assert code == 2
    assert "Traceback" not in out + error


def test_masks_of_another_size_are_resized_or_left_out_where_that_is_said(tmp_path: Path) -> None:
    root = write(tmp_path)
    _too_large(root)
    assert load(root, resize_masks=True).train.read_mask(1).shape == (4, 6)
    train = sources.load(config.Data(path=root, on_corrupt="skip")).train
    with pytest.raises(CorruptImage, match="12 x 8"):
        train.read_mask(1)


def test_thresholds_are_not_chosen_on_what_is_trained_on(tmp_path: Path) -> None:
    root = write(tmp_path)
    data: dict[str, Any] = {"path": root, "options": {"val_split": "train"}, "workers": 0}
    run = {"task": "multilabel_segmentation", "student": {"model": "digits/unet_4_8"}, "out": tmp_path / "run"}
    with pytest.raises(ConfigError, match="No picture is held out: val is 'train', which is trained on, too"):
        counterpoise.train({**run, "data": data})
    counterpoise.train({**run, "data": {**data, "held_out": 1}, "train": {"epochs": 1, "device": "cpu"}})


def test_the_pictures_of_a_patient_stay_on_one_side(tmp_path: Path) -> None:
    root = write(tmp_path, ("",), 6)
    for kind in ("images", "masks/disc", "masks/vessel"):
        for path in (root / kind).glob("*.png"):
            path.rename(path.with_name(f"p{int(path.stem) // 2}-{path.name}"))
    train, val = load(root, group=r"(p\d)")
    sides = [{Path(part.name(index)).name[:2] for index in range(len(part))} for part in (train, val)]
    assert not sides[0] & sides[1]
    assert len(val) == 2


def test_folders_of_other_names_are_told_with_the_nearest(tmp_path: Path) -> None:
    root = write(tmp_path)
    with pytest.raises(DataError, match=r"has no folder 'discs'. Did you mean 'disc'\?"):
        load(root, questions=["discs"])
    with pytest.raises(DataError, match="has no folder 'mask' with a folder of masks for each question"):
        sources.load(config.Data(path=root, source="mask_folders", options={"masks": "mask"}))
