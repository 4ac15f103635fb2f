"""Pipes and devices where files are expected: named, never waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.checking import check
from counterpoise.data.images import decode, header_size
from counterpoise.data.noticing import look_at
from counterpoise.errors import CorruptImage, DataError
from counterpoise.pages.report.reading import table

Run = Callable[..., tuple[int, str, str]]
PIPE = "is a pipe, expected a file"


@pytest.fixture(autouse=True)
def without_waiting() -> Iterator[None]:
    """A test that waits for the other end of a pipe fails."""

    def ring(*_: object) -> None:
        pytest.fail("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def in_place_of(path: Path) -> Path:
    """A pipe where there was a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Four images and masks in one folder, their classes, and lists that divide them."""
    root = tmp_path / "scenes"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (16, 12), (60 * number, 9, 9)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.tile(np.uint8([0, 1]), (12, 8))).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\ufeffsky\r\nroad\r\n\r\n", encoding="utf-8")
    (root / "train.txt").write_text("\ufeff0\r\n1\r\n\r\n", encoding="utf-8")
    (root / "val.txt").write_text("2\n3\n")
    return root


def test_lists_of_any_editor_are_read(scenes: Path) -> None:
    train, val = sources.load(config.Data(path=scenes))
    assert (len(train), len(val), train.classes) == (2, 2, ("sky", "road"))


def test_pipes_among_pictures_are_named(image_folder: Path, run: Run) -> None:
    pipe = in_place_of(image_folder / "train" / "circle" / "00.jpg")
    code, told, _ = run("check", image_folder)
    assert code == 2
    assert str(pipe) in told
    for read in (decode, header_size):
        with pytest.raises(CorruptImage, match=rf"00\.jpg cannot be read: it {PIPE}"):
            read(pipe)
    assert look_at([pipe], sources.load(config.Data(path=image_folder)).train.reading).notes
    code, _, told = run("train", "--data", image_folder, "--student.model", "cifar/resnet8", "--train.device", "cpu")
    assert code == 2
    assert PIPE in " ".join(told.split())


@pytest.mark.parametrize("name", ["images/0.png", "masks/0.png", "classes.txt", "train.txt"])
def test_pipes_among_scenes_are_named(scenes: Path, name: str) -> None:
    in_place_of(scenes / name)
    problems = [problem.what for problem in check(config.Data(path=scenes)).problems]
    assert any(Path(name).name in problem and f"it {PIPE}" in problem for problem in problems), problems


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_no_classes_file(scenes: Path, device: str) -> None:
    with pytest.raises(DataError, match=rf"{device} cannot be read: it is a device, expected a file"):
        sources.load(config.Data(path=scenes, source="masks_folder", options={"classes": device}))


def test_pipes_in_place_of_tables_are_said_in_reports(tmp_path: Path) -> None:
    missing: list[str] = []
    assert table(in_place_of(tmp_path / "table.csv"), missing) == []
    assert PIPE in missing[0]


def test_a_pipe_is_not_measured(tmp_path: Path, run: Run) -> None:
    code, _, told = run("measure", in_place_of(tmp_path / "model.onnx"))
    assert code == 2
    assert f"model.onnx {PIPE}" in " ".join(told.split())
