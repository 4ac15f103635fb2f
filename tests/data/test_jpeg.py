"""JPEGs that simplejpeg decodes are, bit for bit, what Pillow makes of them, or fail in the same words."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from counterpoise import config, decoding
from counterpoise.data import images, jpeg, views
from counterpoise.data.jpeg import Part, whole
from counterpoise.data.loader import TrainLoader
from counterpoise.data.sources import FileSet
from counterpoise.decoding import Reading, Unreadable
from counterpoise.errors import CorruptImage

EXAMPLES = int(os.environ.get("JPEG_EXAMPLES", "60"))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SUBSAMPLINGS = ("444", "422", "420", "440", "411")


def drawn(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture of slopes, edges and noise, its colors at their ends in places."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    bands = [128 + 140 * np.sin(columns / 7 + rows / 5), 255 * ((columns // 9 + rows // 6) % 2), columns * 3 + rows]
    pixels = np.stack(bands, -1) + rng.normal(0, rng.choice([0, 5, 60]), (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def saved(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    return exif


@st.composite
def files(draw: Any) -> tuple[bytes, bool]:
    """A JPEG, and whether it is plain and whole."""
    height, width = draw(st.tuples(*[st.integers(1, 90)] * 2))
    picture = drawn(height, width, draw(st.integers(0, 9)))
    kind = draw(st.sampled_from(["RGB"] * 4 + ["L", "CMYK", "turbo", "rgb"]))
    plain = kind not in ("CMYK", "rgb")
    quality = draw(st.sampled_from((1, 10, 50, 75, 90, 95, 100)))
    if kind == "turbo":
        subsampling = draw(st.sampled_from(SUBSAMPLINGS))
        plain = subsampling != "411"
        content = simplejpeg.encode_jpeg(np.asarray(picture), quality, colorsubsampling=subsampling)
    else:
        options: dict[str, Any] = {"quality": quality}
        if kind == "RGB":
            options["subsampling"] = draw(st.integers(0, 2))
        options["progressive"], options["optimize"] = draw(st.booleans()), draw(st.booleans())
        options["restart_marker_blocks"] = draw(st.sampled_from((0, 0, 1, 5)))
        metadata = draw(st.sampled_from(["none", "exif", "exif", "xmp", "damaged"]))
        if metadata == "exif":
            options["exif"] = turned(draw(st.integers(0, 9)))
        elif metadata == "xmp":
            options["xmp"] = b'<x xmlns:tiff="y" tiff:Orientation="%d"/>' % draw(st.integers(0, 9))
        elif metadata == "damaged":
            options["exif"] = b"Exif\x00\x00" + draw(st.binary(max_size=40))
        if draw(st.booleans()):
            options["icc_profile"] = PROFILE
        if kind == "rgb":
            options["keep_rgb"] = True
        content = saved(picture if kind == "rgb" else picture.convert(kind), **options)
    harm = draw(st.sampled_from(["none"] * 5 + ["cut", "flip", "longer"]))
    if harm == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    elif harm == "flip":
        place = draw(st.integers(0, len(content) - 1))
        content = content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    elif harm == "longer":
        content += b"more than a picture"
    return content, plain and harm == "none"


def by_pillow(content: bytes) -> np.ndarray | str:
    try:
        return np.asarray(decoding.read(content))
    except Unreadable as error:
        return str(error)


def a_part(draws: list[float], height: int, width: int) -> Part:
    top, left = int(draws[0] * height), int(draws[1] * width)
    return Part(top, left, 1 + int(draws[2] * (height - top - 1)), 1 + int(draws[3] * (width - left - 1)))


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES == 60)
@given(files(), st.lists(st.floats(0, 0.999), min_size=4, max_size=4))
def test_pixels_are_pillows_or_it_fails_in_the_same_words(made: tuple[bytes, bool], draws: list[float]) -> None:
    content, plain = made
    expected = by_pillow(content)
    if isinstance(expected, str):
        with pytest.raises(CorruptImage) as caught:
            images.pixels_of(content)
        assert caught.value.reason == expected
        return
    planes = torch.from_numpy(expected.copy()).permute(2, 0, 1)
    assert torch.equal(images.pixels_of(content), planes)
    top, left, height, width, _ = part = a_part(draws, *planes.shape[1:])
    pixels, extent = images.part_of(content, lambda *_: part)
    assert torch.equal(pixels, planes[:, top : top + height, left : left + width])
    assert extent == tuple(planes.shape[1:]) == images.header_size(content)
    assert not plain or jpeg.decode(content, Reading(), whole) is not None


def test_the_decoders_agree_here() -> None:
    assert jpeg.agree()


def test_where_decoders_disagree_pillow_decodes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(drawn(40, 60))
    expected = images.pixels_of(content)
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given, **how: decode(*given, **how) ^ 1)
    for missing in (False, True):
        jpeg.agree.cache_clear()
        if missing:
            monkeypatch.setitem(sys.modules, "simplejpeg", None)
        assert not jpeg.agree()
        assert torch.equal(images.pixels_of(content), expected)
        assert jpeg.decode(content, Reading(), whole) is None
    jpeg.agree.cache_clear()


def test_of_a_file_with_several_jpegs_the_first_is_read() -> None:
    first, second = drawn(40, 60), drawn(40, 60, 1)
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    content = file.getvalue()
    assert Image.open(io.BytesIO(content)).n_frames == 2
    found = jpeg.decode(content, Reading(), whole)
    assert found is not None
    assert np.array_equal(found[0], np.asarray(decoding.read(content)))


def test_too_large_a_photo_is_refused_in_the_same_words() -> None:
    with pytest.raises(CorruptImage, match=r"megapixels, more pixels than max_megapixels 0\.001 allows"):
        images.pixels_of(saved(drawn(40, 60)), "photo", Reading(max_megapixels=0.001))


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("crop", ["resized", "pad", "none"])
def test_views_from_files_are_those_of_whole_pictures_in_planes(tmp_path: Path, crop: Any, fit: Any) -> None:
    for number in range(8):
        saving = {"exif": turned(number + 1), "progressive": number % 2 == 1}
        drawn(40 + 9 * number, 70 - 5 * number, number).save(tmp_path / f"{number}.jpg", **saving)
    drawn(50, 60).save(tmp_path / "8.png")
    files = FileSet(tmp_path, sorted(path.name for path in tmp_path.iterdir()), torch.zeros(9), ["one"])
    strength = config.RandAugment(operations=1, magnitude=9)
    shown = config.Views(crop=crop, randaugment=strength)
    loader = TrainLoader(files, shown, num_classes=1, batch_size=9, seed=5, size=32, workers=0, fit=fit)
    plan = loader.plan
    planes = [images.to_tensor(decoding.read(files.file(index).read_bytes())) for index in range(9)]
    order = [3, 0, 8, 1, 2, 7, 6, 5, 4]
    words = views.crop_words(plan, 2, torch.tensor(order))
    framed = torch.stack([views.frame(plan, planes[index], row) for index, row in zip(order, words, strict=True)])
    expected = views.augment(plan, framed, views.draw(plan, 2, torch.tensor(order)))
    (made,) = loader.views_of([torch.tensor(order)], 2)
    assert torch.equal(made, expected)
    assert made.is_contiguous()


def plan_of(files: FileSet, crop: Any, fit: Any, edge: int = 32, decode: Any = "scaled") -> views.ViewPlan:
    return views.plan_views(config.Views(crop=crop, decode=decode), files, seed=5, size=edge, fit=fit)


@settings(max_examples=EXAMPLES // 2, derandomize=EXAMPLES == 60)
@given(files(), st.sampled_from(jpeg.SMALLER))
def test_smaller_pixels_are_those_of_pillows_draft(made: tuple[bytes, bool], smaller: int) -> None:
    content, plain = made
    try:
        image = Image.open(io.BytesIO(content))
    except (OSError, SyntaxError):
        assume(False)
    width, height = image.size
    assume(min(width, height) >= 2 * smaller)
    found = jpeg.decode(content, Reading(), lambda height, width: Part(0, 0, height, width, smaller))
    assert found is not None or not plain
    if found is None:
        return
    image.draft(None, (width // smaller, height // smaller))
    image = image.convert("RGB").crop((0, 0, *((2 * side + smaller) // (2 * smaller) for side in (width, height))))
    assert np.array_equal(found[0], np.asarray(decoding.upright(image)))


@given(
    st.tuples(*[st.integers(1, 3000)] * 2),
    st.integers(0, 1000),
    st.sampled_from(("resized", "pad", "none")),
    st.sampled_from(("crop", "squash", "pad")),
)
@settings(max_examples=100, derandomize=True)
def test_photos_are_decoded_at_the_smallest_size_of_at_least_twice_the_view(
    extent: tuple[int, int], index: int, crop: Any, fit: Any
) -> None:
    plan = views.plan_views(config.Views(crop=crop, decode="scaled"), a_set(), seed=5, size=32, fit=fit)
    words = views.crop_words(plan, 0, torch.tensor([index]))[0]
    part = views.part(plan, words, *extent)
    assert part[:4] == views.part(replace(plan, decode="exact"), words, *extent)[:4]
    shown = {"crop": (32, 32), "squash": (32, 32), "pad": tuple(max(1, round(32 * s / max(extent))) for s in extent)}
    high, wide = shown[fit]
    if crop != "resized" and fit == "crop":  # the shorter side is what counts, and both shrink alike
        fits = [many for many in (1, 2, 4, 8) if min(extent) >= 2 * many * 32]
    else:
        fits = [many for many in (1, 2, 4, 8) if part.height >= 2 * many * high and part.width >= 2 * many * wide]
    assert part.smaller == max(fits, default=1)


def a_set() -> FileSet:
    return FileSet(Path(), ["one.jpg"], torch.zeros(1), ["one"])


@pytest.mark.parametrize("kind", ["RGB", "CMYK"])
@pytest.mark.parametrize(
    ("crop", "fit"), [("resized", "crop"), ("resized", "pad"), ("none", "crop"), ("pad", "squash")]
)
def test_views_of_large_photos_decoded_smaller_look_alike(tmp_path: Path, kind: str, crop: Any, fit: Any) -> None:
    rows, columns = np.mgrid[:301, :419] / 40
    slopes = np.stack([128 + 90 * np.sin(rows), 128 + 90 * np.cos(columns), 128 + 60 * np.sin(rows + columns)], -1)
    for number in range(8):
        picture = Image.fromarray(slopes.astype(np.uint8)).convert(kind)
        picture.save(tmp_path / f"{number}.jpg", quality=95, exif=turned(number + 1))
    photos = FileSet(tmp_path, sorted(path.name for path in tmp_path.iterdir()), torch.zeros(8), ["one"])
    made = {}
    for decode in ("exact", "scaled"):
        shown = config.Views(crop=crop, decode=decode, scale=(0.3, 1.0))
        loader = TrainLoader(photos, shown, num_classes=1, batch_size=8, seed=5, size=24, workers=0, fit=fit)
        (made[decode],) = loader.views_of([torch.arange(8)], 1)
    difference = (made["exact"].float() - made["scaled"].float()).abs()
    assert 0 < difference.mean() < 1.5
    assert difference.amax() < 16


def test_how_photos_are_decoded_is_part_of_the_views_unless_it_is_as_ever() -> None:
    exact, scaled = (plan_of(a_set(), "resized", "crop", decode=decode) for decode in ("exact", "scaled"))
    assert "decode" not in views.view_specification(exact)
    assert views.view_specification(scaled) == {**views.view_specification(exact), "decode": "scaled"}
    assert "decoded smaller" in views.words(scaled)
