"""Sets of images: splits, memory, concatenation, fingerprints."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import UNLABELED, Subset
from counterpoise.data.sources.concatenation import Concatenation
from counterpoise.data.sources.division import split, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.memory import concatenate, in_memory
from counterpoise.errors import CorruptImage, DataError


def arrays(labels: list[int], edge: int = 4) -> ArraySet:
    """Images that all differ: the first pixel counts them."""
    images = torch.zeros(len(labels), 3, edge, edge, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels)) % 256
    classes = [f"class {number}" for number in range(max(labels) + 1)]
    return ArraySet(images, torch.tensor(labels), classes, names="test")


@pytest.fixture
def files(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> FileSet:
    """Six files of one size, 20 wide and 16 high."""
    names = [f"{shape}/{number}.png" for shape in ("circle", "square") for number in range(3)]
    for name in names:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(name.split("/")[0], int(path.stem), (20, 16)).save(path)
    return FileSet(tmp_path / "set", names, torch.tensor([0, 0, 0, 1, 1, 1]), ["circle", "square"])


@settings(max_examples=60)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1), st.randoms()
)
def test_split_is_a_partition_with_every_class_on_both_sides(counts, fraction, seed, order) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    order.shuffle(labels)
    whole = arrays(labels)
    train, val = split_by_fraction(whole, fraction, seed)
    names = [part.name(index) for part in (train, val) for index in range(len(part))]
    assert sorted(names) == sorted(whole.name(index) for index in range(len(whole)))
    for label, count in enumerate(counts):
        held = int((val.labels == label).sum())
        assert 1 <= held <= count - 1
        assert abs(held - count * fraction) < 2


def test_split_holds_out_the_exact_count_in_proportion() -> None:
    whole = arrays([0] * 101 + [1] * 50 + [2] * 33)
    train, val = split(whole, 46, seed=3)
    assert len(val) == 46
    assert torch.bincount(val.labels).tolist() == [25, 13, 8]  # a quarter of each, the largest remainders rounded up
    assert len(train) == 138


def test_split_is_drawn_by_its_seed_alone() -> None:
    whole = arrays([0, 1] * 30)
    first, again, other = (split_by_fraction(whole, 0.2, seed).val for seed in (5, 5, 6))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    positions = [int(first.name(index).split("#")[1]) for index in range(len(first))]
    assert positions == sorted(positions)


def test_split_without_enough_images_is_refused() -> None:
    with pytest.raises(DataError, match="2 images cannot be split"):
        split_by_fraction(arrays([0, 1]), 0.5, 0)


def test_images_of_one_size_are_decoded_into_memory(files: FileSet) -> None:
    files.groups, files.group_names = torch.tensor([0, 0, 1, 1, 2, 2]), ("a", "b", "c")
    held = in_memory(files, 6 * 3 * 16 * 20)
    assert isinstance(held, ArraySet)
    assert (held.groups, held.group_names) == (files.groups, ("a", "b", "c"))
    assert held.images.shape == (6, 3, 16, 20)
    for index in range(6):
        assert torch.equal(held.images[index], files.read(index))
        assert held.name(index) == files.name(index) == str(files.file(index))
    assert torch.equal(held.labels, files.labels)
    assert held.fingerprint() == files.fingerprint()
    assert held.corrupt == []


def test_images_stay_files_where_they_do_not_fit_or_differ_in_size(files: FileSet) -> None:
    assert in_memory(files, 6 * 3 * 16 * 20 - 1) is files
    Image.new("RGB", (16, 20)).save(files.file(4))
    assert in_memory(files, 1e9) is files


def test_images_stay_files_without_reading_further_than_needed(files: FileSet) -> None:
    Image.new("RGB", (5, 5)).save(files.file(1))
    files.file(5).write_bytes(b"never looked at")
    assert in_memory(files, 1e9) is files


def test_rotated_photos_of_one_shown_size_fit_into_memory(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 20)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (20, 16)).save(tmp_path / "b.jpg")
    held = in_memory(FileSet(tmp_path, ["a.jpg", "b.jpg"], torch.tensor([0, 1]), ["x", "y"]), 1e9)
    assert isinstance(held, ArraySet)
    assert held.images.shape == (2, 3, 16, 20)


def test_corrupt_image_stops_or_leaves_the_set_to_those_who_read_it(files: FileSet) -> None:
    whole = files.file(2).read_bytes()
    files.file(2).write_bytes(whole[: len(whole) // 2])  # a good header
    files.file(4).write_bytes(b"")
    for index in (2, 4):
        part = files.subset(torch.tensor([0, index]))
        with pytest.raises(CorruptImage) as caught:
            in_memory(part, 1e9, "stop")
        assert caught.value.name == str(files.file(index))
        assert in_memory(part, 1e9, "skip") is part  # as it is where it does not fit: another image takes the place
    assert in_memory(files, 1e9, "skip") is files


def test_extents_are_those_of_the_headers_whoever_asks(files: FileSet) -> None:
    assert files.common_extent == files.small_extent(20) == (16, 20)
    assert files.small_extent(19) is None
    Image.new("RGB", (7, 5)).save(files.file(3))
    files.file(4).write_bytes(b"")
    fresh = FileSet(files.root, files.files, files.labels, files.classes)
    assert fresh.common_extent is None
    assert fresh.extents.tolist() == [[16, 20]] * 3 + [[5, 7], [0, 0], [16, 20]]
    part = fresh.subset(torch.tensor([4, 5, 0]))
    assert part.extents.tolist() == [[0, 0], [16, 20], [16, 20]]
    assert part.common_extent == (16, 20)
    held = in_memory(fresh.subset(torch.tensor([0, 1])), 1e9)
    assert isinstance(held, ArraySet)
    assert held.extents.tolist() == [[16, 20]] * 2
    both = concatenate(arrays([0, 1]), fresh)
    assert both.extents.tolist() == [[4, 4]] * 2 + fresh.extents.tolist()


def test_few_of_many_images_have_their_headers_read_alone(files: FileSet) -> None:
    asked: list[int] = []
    plain = files.extent
    files.extent = lambda index: asked.append(index) or plain(index)  # type: ignore[method-assign, func-returns-value]
    assert files.subset(torch.tensor([1, 4])).extents.tolist() == [[16, 20]] * 2
    assert asked == [1, 4]


def test_unlabeled_images_follow_the_labeled_ones(files: FileSet) -> None:
    both = concatenate(arrays([0, 1, 1]), files)
    assert isinstance(both, Concatenation)
    assert both.labels.tolist() == [0, 1, 1] + [UNLABELED] * 6
    assert both.classes == ("class 0", "class 1")
    assert both.name(2) == "test #2"
    assert both.name(3) == files.name(0)
    assert torch.equal(both.read(8), files.read(5))
    assert [both.extent(index) for index in (0, 3)] == [(4, 4), (16, 20)]
    with pytest.raises(IndexError):
        both.read(9)
    assert in_memory(both, 1e9) is both
    part = both.subset(torch.tensor([8, 0]))
    assert torch.equal(part.read(0), files.read(5))
    assert part.labels.tolist() == [UNLABELED, 0]


def test_arrays_of_one_size_are_concatenated_in_memory() -> None:
    both = concatenate(arrays([0, 1]), arrays([0, 0, 0]))
    assert isinstance(both, ArraySet)
    assert both.images.shape == (5, 3, 4, 4)
    assert both.labels.tolist() == [0, 1, -1, -1, -1]
    assert isinstance(concatenate(arrays([0, 1]), arrays([0], edge=5)), Concatenation)


def test_mixed_set_of_one_size_fits_into_memory(files: FileSet) -> None:
    images = torch.zeros(2, 3, 16, 20, dtype=torch.uint8)
    both = concatenate(ArraySet(images, torch.tensor([0, 1]), ["a", "b"]), files)
    held = in_memory(both, 1e9)
    assert isinstance(held, ArraySet)
    assert len(held) == 8
    assert held.fingerprint() == both.fingerprint()


def test_fingerprint_of_files_ignores_where_and_when_they_were_written(files: FileSet, tmp_path: Path) -> None:
    shutil.copytree(files.root, tmp_path / "copy")
    copied = FileSet(tmp_path / "copy", files.files, files.labels, files.classes)
    assert copied.fingerprint() == files.fingerprint()
    assert len(files.fingerprint()) == 64


def test_fingerprint_tells_contents_labels_classes_and_order_apart(files: FileSet) -> None:
    names, labels, classes = list(files.files), files.labels, list(files.classes)
    found = {
        files.fingerprint(),
        FileSet(files.root, names[::-1], labels.flip(0), classes).fingerprint(),
        FileSet(files.root, names, labels.flip(0), classes).fingerprint(),
        FileSet(files.root, names, labels, classes[::-1]).fingerprint(),
        FileSet(files.root, names[1:], labels[1:], classes).fingerprint(),
    }
    files.file(0).write_bytes(files.file(0).read_bytes() + b" ")
    found.add(FileSet(files.root, names, labels, classes).fingerprint())
    one, other = arrays([0, 1]), arrays([0, 1])
    assert one.fingerprint() == other.fingerprint()
    other = arrays([0, 1])
    other.images[1, 2, 3, 3] += 1
    found |= {one.fingerprint(), other.fingerprint(), arrays([0, 1], edge=8).fingerprint()}
    assert len(found) == 9


def test_arrays_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(DataError, match="must be uint8"):
        ArraySet(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), ["a", "b"])
    with pytest.raises(DataError, match="with 3 labels"):
        ArraySet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 1]), ["a", "b"])


def test_class_names_of_numpy_are_plain_text() -> None:
    found = ArraySet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), np.array(["cat", "dog"]))
    assert [type(name) for name in found.classes] == [str, str]


def test_spacing_stays_with_its_image_in_parts_in_memory_and_one_after_the_other(files: FileSet) -> None:
    assert files.spacing(0) is None
    held = in_memory(files, 1e9)
    assert isinstance(held, ArraySet)
    assert held.spacing(0) is None
    held.spacings = [(0.5, 0.25 * index) for index in range(len(held))]
    part = held.subset(torch.tensor([2, 1]))
    assert [part.spacing(0), part.spacing(1)] == [(0.5, 0.5), (0.5, 0.25)]
    assert concatenate(held, files).spacing(3) == (0.5, 0.75) == concatenate(part, held).spacing(5)
    assert Subset(held, torch.tensor([3])).spacing(0) == (0.5, 0.75)
