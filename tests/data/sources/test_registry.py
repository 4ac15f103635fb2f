"""Which source a folder is of, its options, and what is said where none fits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources import registry
from counterpoise.errors import ConfigError, DataError


def data(path: Path | None = None, **values: Any) -> config.Data:
    return config.Data(path=path, **values)


@pytest.fixture
def own_source() -> Iterator[Callable[..., None]]:
    """Registers a source that gives the labels and classes it is told to."""

    def add(labels: list[int], classes: list[str], val_classes: list[str] | None = None) -> None:
        @sources.register("own", summary="a test's", needs_path=False)
        def load(data: config.Data, *, depth: int = 1) -> sources.Splits:
            images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
            tensor = torch.tensor(labels, dtype=torch.int64)
            train = sources.ArraySet(images, tensor, classes)
            return sources.Splits(train, sources.ArraySet(images, tensor, val_classes or classes))

    with registry.SOURCES.trial():
        yield add


def test_every_source_has_a_name_and_one_line() -> None:
    assert {"cifar", "digits", "huggingface", "image_folder", "photos"} <= set(sources.names())
    assert list(sources.summaries()) == sources.names()
    assert all(line and "\n" not in line for line in sources.summaries().values())


def test_auto_finds_what_a_folder_holds(image_folder: Path, small_cifar100: Path, small_cifar10: Path) -> None:
    assert sources.load(data(image_folder)).train.classes == ("circle", "square", "stripes")
    assert sources.load(data(image_folder / "train")).train.classes == ("circle", "square", "stripes")
    assert sources.load(data(small_cifar100)).train.classes[0] == "apple"
    assert sources.load(data(small_cifar100 / "cifar-100-python")).train.classes[0] == "apple"
    assert len(sources.load(data(small_cifar10)).train) == 60
    assert len(sources.load(data(small_cifar10.parent)).train) == 60
    assert sources.load(data(image_folder / "train" / "circle")).train.classes == ()


def test_no_data_says_what_to_give() -> None:
    embedded = r"\(data.source: digit_pairs, data.source: digit_scenes, data.source: digits\)"
    with pytest.raises(DataError, match=rf"set data.path to the folder .* {embedded}"):
        sources.load(data())
    with pytest.raises(DataError, match="'image_folder' needs a folder"):
        sources.load(data(source="image_folder"))


def test_missing_folder_is_named_with_the_nearest(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(data.path\) does not exist. Did you mean 'shapes'"):
        sources.load(data(image_folder.parent / "shape"))
    with pytest.raises(DataError, match=r"\(data.unlabeled\) does not exist"):
        sources.load(data(image_folder, unlabeled=image_folder / "nowhere"))
    with pytest.raises(DataError, match=r"not.here"):
        sources.load(data(image_folder / "not" / "here"))


def test_file_in_place_of_a_folder_is_refused(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"must be a folder, or a table of labels .* is another file"):
        sources.load(data(next((image_folder / "train" / "circle").iterdir())))


def test_embedded_source_takes_no_path(image_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'digits' is embedded and takes no path"):
        sources.load(data(image_folder, source="digits"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"set data\.source: digits"):
        sources.load(data(Path("digits")))


def test_unknown_source_and_option_are_answered_with_the_nearest(image_folder: Path, small_cifar100: Path) -> None:
    with pytest.raises(ConfigError, match=r"'image_foldr' is unknown. Did you mean 'image_folder'"):
        sources.load(data(image_folder, source="image_foldr"))
    with pytest.raises(
        ConfigError, match=r"data.options.label: unknown option of source 'cifar'. Did you mean 'labels'"
    ):
        sources.load(data(small_cifar100, options={"label": "fine"}))
    with pytest.raises(
        ConfigError, match=r"data.options.labels: .*'fine' or 'coarse', got 'course'. Did you mean 'coarse'"
    ):
        sources.load(data(small_cifar100, options={"labels": "course"}))
    with pytest.raises(ConfigError, match="Available: train_split, val_split, nested"):
        sources.load(data(image_folder, options={"depth": 2}))


def test_new_source_is_one_function(own_source: Callable[..., None]) -> None:
    own_source([0, 1, -1, 1][:2], ["a", "b"])
    assert "own" in sources.names()
    assert sources.summaries()["own"] == "a test's"
    assert sources.load(data(source="own", options={"depth": "3"})).val.labels.tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"data.options.depth: .*valid integer.* got 'deep'"):
        sources.load(data(source="own", options={"depth": "deep"}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], ["a", "b"]), "train half of the data .* holds no images"),
        (([0, 2], ["a", "b"]), "Labels of the train half are 0 to 2, expected 0 to 1"),
        (([0, -2], ["a", "b"]), "Labels of the train half are -2 to 0"),
        (([0, 0], ["a"]), "one class only, 'a'"),
        (([0, 1], ["a", "b"], ["b", "c"]), "classes of train and val differ"),
        (([0, -1], ["a", "b"]), "1 images of the val half have no label"),
    ],
)
def test_what_a_source_gets_wrong_is_found(own_source: Callable[..., None], given: Any, message: str) -> None:
    own_source(*given)
    with pytest.raises(DataError, match=message):
        sources.load(data(source="own"))


def test_photos_beside_labeled_images_have_no_label(
    image_folder: Path, tmp_path: Path, make_picture: Callable[..., Image.Image]
) -> None:
    photos = tmp_path / "photos" / "2024"
    photos.mkdir(parents=True)
    make_picture("circle", 7).save(photos / "a.jpg")
    make_picture("square", 7).save(photos.parent / "b.png")
    alone = sources.load(data(image_folder))
    both = sources.load(data(image_folder, unlabeled=photos.parent))
    assert both.train.labels.tolist() == [*alone.train.labels.tolist(), -1, -1]
    assert [Path(both.train.name(index)).name for index in (-2 + len(both.train), -1 + len(both.train))] == [
        "a.jpg",
        "b.png",
    ]
    assert both.train.classes == alone.train.classes
    assert both.val.fingerprint() == alone.val.fingerprint()
    for index in range(len(both.train)):
        assert both.train.read(index).dtype == torch.uint8


def test_home_folder_is_understood(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(image_folder.parent))
    assert len(sources.load(data(Path("~/shapes"))).train) == 24


def test_sources_are_listed_without_their_libraries() -> None:
    code = (
        "import sys; from counterpoise.data import sources; sources.summaries();"
        "print([name for name in ('datasets', 'sklearn', 'torchvision', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
