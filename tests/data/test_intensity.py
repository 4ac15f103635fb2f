"""Values of any depth become 8 bits as data.intensity says, wherever a picture is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pixel_files import npy, tiff

from counterpoise import config, decoding
from counterpoise.data import sources
from counterpoise.data.images import header_size, pixels_of, reading_specification
from counterpoise.data.noticing import look_at, said_of_reading
from counterpoise.decoding import Reading
from counterpoise.errors import ConfigError, CorruptImage, DataError
from counterpoise.reading import Intensity

CT = Intensity("window", -160, 240)
RNG = np.random.default_rng(3)
HOUNSFIELD = RNG.integers(-1024, 3071, (9, 7)).astype(np.int16)


def reading(kind: str, low: float, high: float, channels: int = 1) -> Reading:
    return Reading(channels=channels, intensity=Intensity(kind, low, high))


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def in_words(values: np.ndarray, kind: str, low: float, high: float) -> np.ndarray:
    """The definition, of one channel, by numpy's own words."""
    values = values.astype(np.float64)
    if kind == "percentiles":
        low, high = np.percentile(values, [low, high])
    if kind == "zscore":
        low, high = (values.mean() + end * values.std() for end in (low, high))
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">u2", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize(
    ("kind", "low", "high"), [("window", -60, 90.5), ("white", 0, 100), ("percentiles", 2, 97), ("zscore", -2, 2)]
)
def test_values_become_eight_bits_by_the_definition_whatever_holds_them(
    dtype: str, kind: str, low: float, high: float
) -> None:
    least = 0 if "u" in dtype else -128
    values = RNG.integers(least, least + 256, (2, 9, 7)).astype(dtype) / (3 if "f" in dtype else 1)
    values = np.moveaxis(values.astype(dtype), 0, -1)
    expected = np.stack([in_words(values[..., band], kind, low, high) for band in (0, 1)], -1)
    found = [pixels_of(npy(values), "it", reading(kind, low, high, 2)).permute(1, 2, 0).numpy()]
    found.append(pixels_of(tiff(values, planarconfig="contig"), "it", reading(kind, low, high, 2)).permute(1, 2, 0))
    found.append(pixels_of(values, "it", reading(kind, low, high, 2)).permute(1, 2, 0))
    for each in found:
        assert np.abs(np.asarray(each, dtype=int) - expected).max() <= (kind == "zscore")  # sums that are exact, or not
    gray = pixels_of(tiff(values[..., 0]), "it", reading(kind, low, high, 3))
    assert np.array_equal(np.asarray(gray), np.asarray(found[1])[None, ..., 0].repeat(3, 0))


def test_what_is_read_in_other_ways_is_the_same() -> None:
    ct = Reading(channels=1, intensity=CT)
    expected = in_words(HOUNSFIELD, *CT[:3])
    for content in (npy(HOUNSFIELD), tiff(HOUNSFIELD), tiff(HOUNSFIELD.astype(np.float32))):
        assert np.array_equal(pixels_of(content, "it", ct)[0], expected)
        assert header_size(content, "it", ct) == (9, 7)
        assert np.array_equal(np.asarray(decoding.read(content, ct._replace(channels=3)))[..., 1], expected)
    deep = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
    level = pixels_of(png(deep), "it", Reading(channels=1, white_level=4095))
    for told in (reading("white", 0, 4095), reading("window", 0, 4095)):
        assert np.array_equal(pixels_of(png(deep), "it", told), level)
        assert np.array_equal(pixels_of(Image.fromarray(deep), "it", told), level)
        assert np.array_equal(pixels_of(tiff(deep), "it", told), level)
    colors = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = pixels_of(png(colors), "it", reading("window", 20, 120, 3)).permute(1, 2, 0)
    assert np.array_equal(found, in_words(colors, "window", 20, 120))


def test_pictures_of_one_value_and_of_few_bright_ones_have_a_meaning() -> None:
    flat, spots = np.full((9, 7), 700, np.int16), np.zeros((40, 40), np.float32)
    spots[0, 0] = 5
    for values in (flat, flat.astype(np.float32)):
        assert set(pixels_of(values, reading=reading("zscore", -3, 3)).unique().tolist()) == {128}
        assert set(pixels_of(values, reading=reading("percentiles", 1, 99)).unique().tolist()) == {0}
    assert pixels_of(spots, reading=reading("percentiles", 1, 99)).sum() == 255


@pytest.mark.parametrize(
    ("make", "told", "why"),
    [
        (lambda: npy(np.full((5, 7), np.nan)), CT, "no finite numbers"),
        (lambda: npy(np.full((5, 7), np.inf, np.float32)), CT, "no finite numbers"),
        (lambda: tiff(np.full((5, 7), 1e307)), Intensity("zscore", -3, 3), "no finite numbers"),
        (lambda: npy(np.zeros((5, 7), np.complex64)), CT, "no numbers that become gray"),
        (lambda: npy(np.zeros((5, 7, 2))), CT, r"expected \[height, width, 1\]"),
        (lambda: b"P5 7 5 4095\n" + bytes(70), CT, "comes as shares of its white"),
        (lambda: npy(HOUNSFIELD), None, "say|others where data.intensity says how they become 8 bits"),
        (lambda: tiff(HOUNSFIELD.astype(np.float32)), None, "say how they become 8 with data.intensity"),
        (lambda: npy(np.zeros((1, 1))).replace(b"(1, 1)", b"(9999999, 9999)"), CT, "megapixels"),
    ],
)
def test_what_has_no_such_values_is_refused(make: Any, told: Intensity | None, why: str) -> None:
    with pytest.raises(CorruptImage, match=why):
        pixels_of(make(), "it", Reading(channels=1, intensity=told))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "takes one of window, percentiles, zscore, white; given: none"),
        ({"window": [0, 1], "white": 5}, "given: window, white"),
        ({"window": [240, -160]}, "window rises, from black to white"),
        ({"percentiles": [1, 101]}, "less than or equal to 100"),
        ({"zscore": True}, "takes a number, got true"),
        ({"window": [float("nan"), 3]}, "finite number"),
    ],
)
def test_intensities_that_mean_nothing_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config.resolve({"data": {"intensity": given}})
    with pytest.raises(ConfigError, match="both say which value is white"):
        config.resolve({"data": {"intensity": {"white": 4095}, "white_level": 4095}})


def test_one_way_takes_the_place_of_another_in_what_is_laid_over_a_run_file() -> None:
    base, over = ({"data": {"path": "x", "intensity": given}} for given in ({"white": 4095}, {"zscore": 3}))
    run = config.resolve(config.merge(base, over))
    assert run.data.reading.intensity == Intensity("zscore", -3, 3)
    assert "  intensity:\n    zscore: 3.0\n" in config.dump(run)


def test_a_folder_is_read_by_it_and_what_becomes_black_is_said(tmp_path: Path) -> None:
    for half in ("train", "val"):
        for name in "ab":
            (tmp_path / half / name).mkdir(parents=True)
            (tmp_path / half / name / "0.npy").write_bytes(npy(HOUNSFIELD))
    images = sources.load(config.Data(path=tmp_path, intensity={"window": [-160, 240]})).train  # type: ignore[arg-type]
    assert np.array_equal(images.read(0)[2], in_words(HOUNSFIELD, *CT[:3]))
    assert any("By data.intensity window -160 to 240" in note for note in images.notes)
    assert said_of_reading(images.reading) == "alpha white, intensity window -160 to 240"
    assert reading_specification(images.reading) == {"intensity": {"window": [-160, 240]}}
    far = reading("window", 5000, 6000)
    assert "Hardly anything lies between" in look_at([npy(HOUNSFIELD)], far).notes(far)[0]
    with pytest.raises(DataError, match="these images have 8 bits"):
        sources.load(config.Data(source="digits", intensity={"zscore": 3}))  # type: ignore[arg-type]
