"""The official CIFAR files: whole ones, damaged ones, and ones that are not data at all."""

from __future__ import annotations

import codecs
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import ConfigError, DataError

Pickler = Callable[[Any], bytes]


def load(path: Path, **options: Any) -> sources.Splits:
    return sources.load(config.Data(path=path, source="cifar", options=options))


@pytest.fixture
def record() -> dict[str, Any]:
    """A test file that fits `small_cifar100`."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    return {"data": pixels, "fine_labels": [0, 1, 2, 3, 4, 5], "coarse_labels": [0, 1, 2, 0, 1, 2]}


def test_cifar100_has_fine_and_coarse_classes(small_cifar100: Path) -> None:
    train, val = load(small_cifar100)
    assert isinstance(train, sources.ArraySet)
    assert (train.images.shape, len(val)) == ((60, 3, 32, 32), 24)
    assert train.classes == val.classes == ("apple", "beetle", "chair", "dolphin", "elm", "fox")
    assert train.labels.tolist() == [number % 6 for number in range(60)]
    assert (train.name(12), val.name(0)) == ("train #12", "test #0")
    coarse = load(small_cifar100, labels="coarse").train
    assert coarse.classes == ("circle", "square", "stripes")
    assert coarse.labels.tolist() == [number % 6 % 3 for number in range(60)]


def test_cifar10_is_put_together_from_its_batches(small_cifar10: Path, to_python2_pickle: Pickler) -> None:
    train, val = load(small_cifar10)
    assert (len(train), len(val), train.classes) == (60, 12, ("circle", "square", "stripes"))
    third = pickle.loads((small_cifar10 / "data_batch_3").read_bytes(), encoding="latin1")
    assert np.array_equal(torch.stack([train.read(24 + index) for index in range(12)]).reshape(12, -1), third["data"])
    with pytest.raises(ConfigError, match="coarse labels are those of CIFAR-100"):
        load(small_cifar10, labels="coarse")


@pytest.mark.parametrize("keys", [str, str.encode], ids=["str keys", "bytes keys"])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_files_written_again_by_python_3_are_read(
    small_cifar100: Path, record: dict[str, Any], keys: Callable[[str], Any], protocol: int
) -> None:
    content = {keys(key): value for key, value in record.items()} | {keys("filenames"): [b"a.png"] * 6}
    (small_cifar100 / "cifar-100-python" / "test").write_bytes(pickle.dumps(content, protocol=protocol))
    val = load(small_cifar100).val
    assert isinstance(val, sources.ArraySet)
    assert np.array_equal(val.images.reshape(6, -1).numpy(), record["data"])
    assert val.labels.tolist() == record["fine_labels"]
    val.images[0] = 0  # in memory of its own


class Attack:
    """Unpickles to a call of anything."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_pickle_that_runs_a_command_is_refused(small_cifar100: Path, tmp_path: Path, file: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    attack = pickle.dumps({"data": Attack(os.system, f"touch {marker}")}, protocol=protocol)
    (small_cifar100 / "cifar-100-python" / file).write_bytes(attack)
    with pytest.raises(DataError, match=rf"{file} tries to run code \('\w+\.system'\) and was refused"):
        load(small_cifar100)
    assert not marker.exists()
    pickle.loads(attack)  # the attack itself is sound
    assert marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        (eval, "open('marker', 'w')"),
        (getattr, "x", "upper"),
        (np.load, "marker"),
        (np.ndarray.tofile, np.zeros(1), "marker"),
        (os.path.join, "a", "b"),
    ],
    ids=lambda call: call[0].__name__,
)
def test_only_what_data_needs_may_be_named(
    small_cifar100: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (small_cifar100 / "cifar-100-python" / "test").write_bytes(pickle.dumps({"data": Attack(*call)}, protocol=4))
    with pytest.raises(DataError, match="tries to run code"):
        load(small_cifar100)
    assert not Path("marker").exists()


def test_arrays_of_objects_and_other_codecs_are_no_way_in(small_cifar100: Path, record: dict[str, Any]) -> None:
    test = small_cifar100 / "cifar-100-python" / "test"
    test.write_bytes(pickle.dumps(record | {"data": np.array([[print, 1]], dtype=object)}))
    with pytest.raises(DataError, match=r"tries to run code \('builtins.print'\)"):
        load(small_cifar100)
    test.write_bytes(pickle.dumps(record | {"data": np.array([[1, "a"]], dtype=object)}))
    with pytest.raises(DataError, match=r"must be uint8 \[N, 3072\] .*, got object \[1, 2\]"):
        load(small_cifar100)
    test.write_bytes(pickle.dumps({"data": Attack(codecs.encode, "a", "rot13")}))
    with pytest.raises(DataError, match="'rot13' has no place here"):
        load(small_cifar100)


def test_pickle_cannot_ask_for_more_memory_than_it_brings(small_cifar100: Path, record: dict[str, Any]) -> None:
    from numpy._core.multiarray import _reconstruct  # type: ignore[import-not-found,unused-ignore]

    attack = pickle.dumps(record | {"data": Attack(_reconstruct, np.ndarray, (10**14,), b"b")}, protocol=2)
    (small_cifar100 / "cifar-100-python" / "test").write_bytes(attack)
    with pytest.raises(DataError, match="'data' must be uint8"):
        load(small_cifar100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((6, 3071), np.uint8)}, r"'data' must be uint8 \[N, 3072\] .*got uint8 \[6, 3071\]"),
        ({"data": np.zeros((6, 3, 32, 32), np.uint8)}, r"got uint8 \[6, 3, 32, 32\]"),
        ({"data": np.zeros((6, 3072), np.float32)}, r"got float32 \[6, 3072\]"),
        ({"data": [1, 2]}, "got list"),
        ({"data": None}, "got nothing"),
        ({"data": np.zeros((5, 3072), np.uint8)}, "has 5 images and 6 labels"),
        ({"fine_labels": [0, 1, 2, 3, 4, 6]}, "must be 0 to 5, got 0 to 6"),
        ({"fine_labels": [0, 1, 2, 3, 4, -1]}, "must be 0 to 5, got -1 to 4"),
        ({"fine_labels": ["a"] * 6}, "'fine_labels' must be a list of whole numbers"),
        ({"fine_labels": None}, "'fine_labels' must be a list of whole numbers"),
        ({"data": np.zeros((0, 3072), np.uint8), "fine_labels": []}, "got none"),
    ],
)
def test_content_of_the_wrong_form_is_described(
    small_cifar100: Path, record: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    (small_cifar100 / "cifar-100-python" / "test").write_bytes(pickle.dumps(record | change))
    with pytest.raises(DataError, match=message):
        load(small_cifar100)


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps([1, 2]), None], ids=["empty", "text", "list", "cut"]
)
@pytest.mark.parametrize("file", ["test", "meta"])
def test_damaged_file_is_named(small_cifar100: Path, content: bytes | None, file: str) -> None:
    path = small_cifar100 / "cifar-100-python" / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=f"{file} (is not a whole pickle|must hold a dictionary, got list)"):
        load(small_cifar100)


@pytest.mark.parametrize("names", [None, [], ["one"]])
def test_missing_class_names_are_described(small_cifar100: Path, names: Any) -> None:
    (small_cifar100 / "cifar-100-python" / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    with pytest.raises(DataError, match=r"meta must hold a list 'fine_label_names' of at least 2"):
        load(small_cifar100)


def test_missing_files_are_listed(small_cifar10: Path, tmp_path: Path) -> None:
    (small_cifar10 / "data_batch_2").unlink()
    (small_cifar10 / "batches.meta").unlink()
    with pytest.raises(DataError, match=r"not complete: data_batch_2, batches.meta missing"):
        load(small_cifar10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match="no CIFAR pickles; expected the folder cifar-10-batches-py or cifar-100-python"
    ):
        load(tmp_path / "empty")


def test_two_sets_in_one_folder_must_be_told_apart(small_cifar100: Path, small_cifar10: Path) -> None:
    shutil.move(small_cifar10, small_cifar100)
    with pytest.raises(
        DataError, match="more than one CIFAR; give the path of one: cifar-10-batches-py or cifar-100-pyt"
    ):
        load(small_cifar100)


@pytest.mark.slow
def test_the_real_cifar100_is_read_whole(cifar100_folder: Path) -> None:
    train, val = sources.load(config.Data(path=cifar100_folder))
    assert isinstance(train, sources.ArraySet)
    assert torch.bincount(train.labels).tolist() == [500] * 100
    assert torch.bincount(val.labels).tolist() == [100] * 100
    assert train.classes[:3] == ("apple", "aquarium_fish", "baby")
    pixels = train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx([0.2673, 0.2564, 0.2762], abs=1e-4)
    coarse = sources.load(config.Data(path=cifar100_folder, options={"labels": "coarse"})).train
    assert torch.bincount(coarse.labels).tolist() == [2500] * 20
    assert len(coarse.classes) == 20
