"""Mask files that people have: values of classes, palettes, and what JPEG leaves of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from counterpoise.data.label_map import LabelMap, read_label_map
from counterpoise.data.mask_file import mask_size, read_mask, read_yes, resized
from counterpoise.data.sources.base import IGNORE
from counterpoise.decoding import Reading
from counterpoise.errors import ConfigError, CorruptImage, DataError


def label_map(folder: Path, text: str, ignore: int | None = None, lossy: bool = False) -> LabelMap:
    (folder / "classes.txt").write_text(text)
    return read_label_map(folder / "classes.txt", ignore, lossy)


def lesion(value: int = 255) -> Image.Image:
    mask = Image.new("L", (80, 60))
    ImageDraw.Draw(mask).ellipse((15, 10, 55, 45), fill=value)
    return mask


def save(folder: Path, image: Image.Image, name: str = "mask.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def expected() -> torch.Tensor:
    return torch.from_numpy((np.asarray(lesion()) == 255).astype(np.uint8))


def test_value_that_no_class_has_is_taken_for_a_class_first(tmp_path: Path) -> None:
    path = save(tmp_path, lesion())
    wanted = (
        r"holds the value 255 .* If it is a class, write the value behind every name .*: 'background 0', 'lesion 255'"
    )
    with pytest.raises(DataError, match=wanted + r".* If 255 is void instead.*set data.options.ignore to 255"):
        read_mask(path, label_map(tmp_path, "background\nlesion\n"))
    assert torch.equal(read_mask(path, label_map(tmp_path, "background 0\nlesion 255\n")), expected())


def test_value_beyond_as_many_names_asks_for_a_name(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)))
    with pytest.raises(DataError, match=r"value 2 .* If 2 is a class, name it in .*classes.txt"):
        read_mask(path, label_map(tmp_path, "background\nlesion\n"))
    path = save(tmp_path, Image.fromarray(np.array([[255, 255]], dtype=np.uint8)))
    with pytest.raises(DataError, match=r"behind every name in .*'background 255' and so on"):
        read_mask(path, label_map(tmp_path, "background\nlesion\n"))


def test_numbers_behind_all_names_are_values_and_void_may_have_one(tmp_path: Path) -> None:
    meaning = label_map(tmp_path, "background 0\nedge of it; 128\nvoid 7\nlesion 255\n")
    assert meaning.classes == ("background", "edge of it", "lesion")
    path = save(tmp_path, Image.fromarray(np.array([[0, 128, 7, 255]], dtype=np.uint8)))
    assert read_mask(path, meaning).tolist() == [[0, 1, 255, 2]]
    path = save(tmp_path, Image.fromarray(np.array([[0, 1]], dtype=np.uint8)))
    with pytest.raises(DataError, match=r"holds the value 1 .* the values in .* are 0, 128, 7, 255"):
        read_mask(path, meaning)


@pytest.mark.parametrize("text", ["class 0\nclass 1\n", "road\nlane 2\n", "year 2020\nyear 2021\n", "a 1\nb 300\n"])
def test_numbers_that_are_part_of_names_stay_so(tmp_path: Path, text: str) -> None:
    assert label_map(tmp_path, text).classes == tuple(text.splitlines())
    assert label_map(tmp_path, text).values == [0, 1]


def test_names_that_are_other_numbers_than_their_index_have_two_readings(tmp_path: Path) -> None:
    assert label_map(tmp_path, "0\n1\n2\n").classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"Line 2 of .* is the class '255', and its index is 1: .*'255 255' or '255 1'"):
        label_map(tmp_path, "0\n255\n")
    with pytest.raises(DataError, match="is the class '10', and its index is 2"):
        label_map(tmp_path, "0\n1\n10\n2\n")
    path = save(tmp_path, lesion())
    assert torch.equal(read_mask(path, label_map(tmp_path, "0 0\n255 255\n")), expected())


def test_two_classes_of_one_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'b 1': this value is that of 'a'"):
        label_map(tmp_path, "a 1\nb 1\n")


def test_values_are_found_in_palettes_bits_and_grays_saved_as_rgb(tmp_path: Path) -> None:
    meaning = label_map(tmp_path, "background 0\nlesion 255\n")
    indices = Image.frombytes("P", (80, 60), expected().numpy().tobytes())
    indices.putpalette([0, 0, 0, 255, 255, 255])
    for image, name in (
        (indices, "mask.gif"),
        (indices, "mask.png"),
        (lesion().convert("1"), "mask.png"),
        (lesion().convert("RGB"), "mask.png"),
    ):
        assert torch.equal(read_mask(save(tmp_path, image, name), meaning), expected())
        assert mask_size(tmp_path / name) == (60, 80)
    gray = save(tmp_path, Image.fromarray(expected().numpy()).convert("RGB"))
    assert torch.equal(read_mask(gray, label_map(tmp_path, "background\nlesion\n")), expected())


def palette(rows: list[int], grays: list[int]) -> Image.Image:
    image = Image.frombytes("P", (len(rows), 1), bytes(rows))
    image.putpalette([gray for gray in grays for _ in range(3)])
    return image


@pytest.mark.parametrize(
    ("text", "rows", "grays", "expected"),
    [
        ("background 0\nlesion 255\n", [0, 0], [255], [1, 1]),
        ("background 0\nlesion 255\n", [0, 1], [255, 0], [1, 0]),
        ("a 0\nb 1\nc 2\n", [0, 1, 2], [2, 0, 1], [2, 0, 1]),
        ("a 0\nb 1\nc 2\nvoid 255\n", [0, 1, 2], [0, 128, 255], [0, 1, 2]),  # grays for the eye
        ("background 0\nlesion 1\n", [1, 1], [0, 255], [1, 1]),
        ("a 0 0 0\nb 255 255 255\n", [0, 0], [255], [1, 1]),
    ],
)
def test_values_are_the_grays_of_a_palette_before_its_indices(
    tmp_path: Path, text: str, rows: list[int], grays: list[int], expected: list[int]
) -> None:
    path = save(tmp_path, palette(rows, grays))
    assert read_mask(path, label_map(tmp_path, text)).tolist() == [expected]


def test_palette_whose_index_is_a_class_and_whose_gray_is_void_is_refused(tmp_path: Path) -> None:
    meaning = label_map(tmp_path, "background 0\nlesion 1\nvoid 255\n")
    wanted = r"its index 1 is 'lesion', and the gray of that, 255, is 'void'. Save it in 8-bit gray"
    for image in (palette([0, 1], [0, 255]), Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")):
        with pytest.raises(DataError, match=wanted):
            read_mask(save(tmp_path, image), meaning)
    path = save(tmp_path, palette([0, 1, 2], [255, 0, 9]))
    with pytest.raises(DataError, match=r"value 9 .* its grays: 0, a value of .*, has the index 1, .* in 8-bit gray"):
        read_mask(path, meaning)


@pytest.mark.parametrize(
    ("rows", "grays", "expected"),
    [
        ([0, 0], [255], [1, 1]),
        ([0, 1], [255, 0], [1, 0]),
        ([0, 1], [0, 1], [0, 1]),
        ([0, 0], [128], [IGNORE] * 2),
        ([1, 1], [7, 90], [1, 1]),
    ],
)
def test_palettes_of_a_question_are_read_by_their_grays(
    tmp_path: Path, rows: list[int], grays: list[int], expected: list[int]
) -> None:
    assert read_yes(save(tmp_path, palette(rows, grays)), void=128).tolist() == [expected]


@pytest.mark.parametrize("text", ["background\nlesion\n", "background 0\nlesion 255\n", "a 0 0 0\nb 255 255 255\n"])
@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_mask_that_was_a_jpeg_is_called_so_and_never_void(tmp_path: Path, text: str, kind: str) -> None:
    save(tmp_path, lesion().convert(kind), "mask.jpg", quality=80)
    with Image.open(tmp_path / "mask.jpg") as damaged:
        path = save(tmp_path, damaged)
    with pytest.raises(DataError, match=r"saved as JPEG.*None of them is void.*data.options.lossy to true") as error:
        read_mask(path, label_map(tmp_path, text))
    assert "ignore" not in str(error.value)
    jpeg = tmp_path / "named.png"
    jpeg.write_bytes((tmp_path / "mask.jpg").read_bytes())
    with pytest.raises(CorruptImage, match=r"it is a JPEG file, whatever its name says"):
        read_mask(jpeg, label_map(tmp_path, text))


def test_ids_of_objects_are_not_called_a_jpeg(tmp_path: Path) -> None:
    mask = Image.new("L", (200, 200))
    for number in range(1, 31):
        left, top = 30 * (number % 6), 40 * (number // 7)
        ImageDraw.Draw(mask).ellipse((left, top, left + 18, top + 14), fill=number)
    with pytest.raises(DataError, match="holds the value 30"):
        read_mask(save(tmp_path, mask), label_map(tmp_path, "background\nnucleus\n"))


@pytest.mark.parametrize("text", ["background 0\nlesion 255\n", "a 20 20 200\nb 250 250 20\n"])
def test_lossy_masks_are_read_by_the_nearest_class(tmp_path: Path, text: str) -> None:
    clean = np.array([[0], [255]], dtype=np.uint8)
    if text.count(" ") > 2:
        clean = np.array([[20, 20, 200], [250, 250, 20]], dtype=np.uint8)
    image = Image.fromarray(clean[expected().numpy()].squeeze())
    path = save(tmp_path, image, "mask.jpg", quality=85)
    found = read_mask(path, label_map(tmp_path, text, lossy=True))
    assert (found != expected()).float().mean() < 0.02
    with pytest.raises(DataError):
        read_mask(path, label_map(tmp_path, text))


def test_classes_that_are_alike_cannot_be_read_by_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'background' \(0 0 0\) and 'lesion' \(1 1 1\) .* too near for that"):
        label_map(tmp_path, "background\nlesion\n", lossy=True)


def test_masks_are_resized_to_the_nearest_pixel() -> None:
    mask = torch.tensor([[0, 5], [255, 9]], dtype=torch.uint8)
    assert resized(mask, (4, 6)).tolist() == [[0] * 3 + [5] * 3] * 2 + [[255] * 3 + [9] * 3] * 2


def test_masks_keep_to_the_limit_of_megapixels(tmp_path: Path) -> None:
    path, meaning = save(tmp_path, lesion()), label_map(tmp_path, "background 0\nlesion 255\n")
    with pytest.raises(CorruptImage, match=r"more pixels than max_megapixels 0.004 allows"):
        read_mask(path, meaning, Reading(max_megapixels=0.004))
    assert mask_size(path, Reading(max_megapixels=0.0048)) == (60, 80)
