"""Sets with masks: subsets, memory, concatenation, class weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from counterpoise.data.class_weights import class_counts, frequency_weights
from counterpoise.data.label_map import read_label_map
from counterpoise.data.sources import split_by_fraction
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, ImageSet, Subset
from counterpoise.data.sources.masks_folder import MaskFiles
from counterpoise.data.sources.memory import concatenate, in_memory
from counterpoise.errors import CorruptImage, DataError


def arrays(count: int = 6, height: int = 4, width: int = 5) -> ArraySet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 3, (count, height, width), generator=generator, dtype=torch.uint8)
    return ArraySet.of_scenes(images, masks, ["sky", "road", "car"], names="scene")


@pytest.fixture
def files(tmp_path: Path) -> MaskFiles:
    """The images and masks of `arrays()` as PNG files."""
    whole = arrays()
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    names = []
    for folder, pixels in (("images", whole.images.permute(0, 2, 3, 1)), ("masks", whole.masks)):
        (tmp_path / folder).mkdir()
        names = [f"{number}.png" for number in range(len(whole))]
        for name, one in zip(names, pixels, strict=True):
            Image.fromarray(one.numpy()).save(tmp_path / folder / name)
    return MaskFiles(tmp_path / "images", names, tmp_path / "masks", names, read_label_map(tmp_path / "classes.txt"))


def masks_of(images: ImageSet) -> Tensor:
    return torch.stack([images.read_mask(index) for index in range(len(images))])


def test_subset_keeps_image_and_mask_together(files: MaskFiles) -> None:
    whole = arrays()
    indices = torch.tensor([4, 1, 5])
    for images in (whole.subset(indices), files.subset(indices), files.subset(torch.arange(6)).subset(indices)):
        assert torch.equal(masks_of(images), whole.masks[indices])
        assert torch.equal(torch.stack([images.read(index) for index in range(3)]), whole.images[indices])
        assert images.classes == ("sky", "road", "car")
    assert isinstance(files.subset(indices), Subset)


def test_split_halves_have_masks() -> None:
    train, val = split_by_fraction(arrays(10), 0.3, seed=1)
    assert train.masked
    assert val.masked
    assert (len(train), len(val)) == (7, 3)


def test_masks_count_for_the_fingerprint(files: MaskFiles) -> None:
    whole = arrays()
    other = whole.masks.clone()
    other[0, 0, 0] = (other[0, 0, 0] + 1) % 3
    changed = ArraySet.of_scenes(whole.images, other, whole.classes)
    assert whole.fingerprint() == arrays().fingerprint()
    assert whole.fingerprint() != changed.fingerprint()
    label_map = read_label_map(files.mask_root.parent / "classes.txt", ignore=2)
    ignoring = MaskFiles(files.root, files.files, files.mask_root, files.mask_files, label_map)
    assert files.fingerprint() != ignoring.fingerprint()


def test_memory_holds_what_files_hold(files: MaskFiles) -> None:
    held = in_memory(files, 6 * 4 * 20)
    assert isinstance(held, ArraySet)
    assert torch.equal(held.images, arrays().images)
    assert torch.equal(held.masks, arrays().masks)
    assert held.fingerprint() == files.fingerprint()
    assert held.name(3) == files.name(3)
    assert in_memory(held, 0) is held
    assert in_memory(files, 6 * 4 * 20 - 1) is files


def test_images_of_two_sizes_stay_on_disk(files: MaskFiles) -> None:
    for folder in (files.root, files.mask_root):
        with Image.open(folder / "5.png") as image:
            image.resize((6, 4)).save(folder / "5.png")
    assert in_memory(files, 1e9) is files


def test_corrupt_mask_is_named_or_left_to_those_who_read_it(files: MaskFiles) -> None:
    path = files.mask_root / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CorruptImage, match=r"masks/2.png cannot be read"):
        in_memory(files, 1e9)
    assert in_memory(files, 1e9, "skip") is files
    (files.root / "4.png").write_bytes(b"")
    assert in_memory(files, 1e9, "skip") is files


def test_images_without_masks_are_unlabeled_and_void() -> None:
    photos = ArraySet(torch.zeros(2, 3, 7, 8, dtype=torch.uint8), torch.tensor([-1, -1]), [])
    both = concatenate(arrays(3), photos)
    assert both.labels.tolist() == [0, 0, 0, -1, -1]
    assert both.classes == ("sky", "road", "car")
    assert torch.equal(both.read_mask(2), arrays(3).masks[2])
    assert torch.equal(both.read_mask(4), torch.full((7, 8), IGNORE, dtype=torch.uint8))
    assert torch.equal(both.subset(torch.tensor([4, 2])).read_mask(1), arrays(3).masks[2])
    assert torch.equal(class_counts(both)[0], class_counts(arrays(3))[0])


def test_masks_of_another_size_or_type_are_refused() -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"\[2, 5, 4\] for images \[2, 3, 4, 5\]"):
        ArraySet.of_scenes(images, torch.zeros(2, 5, 4, dtype=torch.uint8), ["a", "b"])
    with pytest.raises(DataError, match="int64"):
        ArraySet.of_scenes(images, torch.zeros(2, 4, 5, dtype=torch.int64), ["a", "b"])


def test_class_weights_are_by_median_frequency() -> None:
    masks = torch.tensor([[[0, 0, 0, 1]], [[0, 0, 2, 2]], [[0, 0, IGNORE, 1]]], dtype=torch.uint8)
    images = ArraySet.of_scenes(torch.zeros(3, 3, 1, 4, dtype=torch.uint8), masks, ["a", "b", "c", "never"])
    own, around = class_counts(images)
    assert own.tolist() == [7, 2, 2, 0]
    assert around.tolist() == [11, 7, 4, 0]
    frequency = torch.tensor([7 / 11, 2 / 7, 2 / 4])
    assert torch.allclose(frequency_weights(images), torch.cat([0.5 / frequency, torch.ones(1)]))


def test_class_weights_need_a_class() -> None:
    void = torch.full((1, 2, 2), IGNORE, dtype=torch.uint8)
    with pytest.raises(DataError, match="None of the 1 masks"):
        frequency_weights(ArraySet.of_scenes(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), void, ["a", "b"]))
