"""What is data in a folder and what others have left there, and the order of class names."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from counterpoise import config
from counterpoise.data import sources, walking

LEFT = (
    "train/a/@eaDir/0.png",
    "train/a/.ipynb_checkpoints/0.png",
    "train/@eaDir/x.png",
    "train/$RECYCLE.BIN/0.png",
    "__MACOSX/train/a/._0.png",
    "train/lost+found/0.png",
    "train/b/._1.png",
)


@pytest.fixture
def left_by_others(tmp_path: Path) -> Path:
    """{train,val}/{a,b} of 3 and 2 pictures, and what other programs leave beside them."""
    for half, count in (("train", 3), ("val", 2)):
        for name in "ab":
            for number in range(count):
                path = tmp_path / half / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number * 20, 40 * (name == "a"), 90 * (half == "val"))).save(path)
    for name in LEFT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    (tmp_path / "train" / "b" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    return tmp_path


def test_what_other_programs_leave_is_no_data(left_by_others: Path) -> None:
    train, val = sources.load(config.Data(path=left_by_others))
    assert train.classes == ("a", "b")
    assert train.per_class() == [3, 3]
    assert val.per_class() == [2, 2]
    photos = sources.load(config.Data(path=left_by_others, source="photos"))
    assert [len(part) for part in photos] == [6, 4]
    unlabeled = sources.load(config.Data(path=left_by_others, unlabeled=left_by_others))
    assert len(unlabeled.train) == 6 + 10


def test_names_that_are_all_numbers_are_in_the_order_of_numbers() -> None:
    assert walking.ordered(["10", "0", "2", "11", "1", "-1"]) == ["-1", "0", "1", "2", "10", "11"]
    assert walking.ordered(["00010", "00002"]) == ["00002", "00010"]
    assert walking.ordered(["10", "2", "x"]) == ["10", "2", "x"]
    assert walking.ordered([]) == []


@pytest.mark.parametrize("backwards", [False, True])
def test_links_are_read_alike_whatever_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    root = tmp_path / "pictures"
    for folder in (root / "deep" / "real", tmp_path / "other"):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "0.png")
    for name, target in (("aa", "deep/real"), ("up", ".."), ("x", "../other"), ("deep/y", "../../other")):
        (root / name).symlink_to(target)
    disk = walking._all
    in_order = lambda folder: sorted(disk(folder), key=lambda entry: entry.name, reverse=backwards)  # noqa: E731
    monkeypatch.setattr(walking, "_all", in_order)
    twice: list[str] = []
    assert walking.image_files(root, twice=twice) == ["deep/real/0.png", "deep/y/0.png"]
    assert (twice[0], twice[-1]) == ("aa", "x")
    photos = sources.load(config.Data(path=root, source="photos", val_fraction=0.5))
    assert f"{len(twice)} links of {root} lead to folders that are read already, and are left out: aa" in (
        photos.train.notes
    )
