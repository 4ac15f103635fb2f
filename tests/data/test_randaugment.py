import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise.data import randaugment
from counterpoise.data.randaugment import OPERATIONS
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402
from torchvision.transforms.v2.functional import InterpolationMode  # noqa: E402

EXACT = [name for name in OPERATIONS if name not in randaugment.BLEND]


def photos(n, height=24, width=32, seed=0):
    """Smooth random pictures: noise alone would hide a wrong direction, flat colors a wrong neighbor."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (n, 3, 5, 7), dtype=torch.uint8, generator=generator)
    fine = torch.randint(0, 20, (n, 3, height, width), generator=generator)
    return (functional.resize(coarse, [height, width]).int() + fine - 10).clamp(0, 255).to(torch.uint8)


def apply_one(images, name, negative, magnitude):
    operations = torch.full((len(images), 1), OPERATIONS.index(name))
    return randaugment.apply(images, operations, torch.full((len(images), 1), negative), magnitude)


def torchvision_one(image, name, negative, magnitude):
    """One operation as torchvision's RandAugment does it, with its own strength."""
    theirs = v2.RandAugment()
    title = {"auto_contrast": "AutoContrast"}.get(name, name.title().replace("_", ""))
    strengths, signed = theirs._AUGMENTATION_SPACE[title]
    strength = strengths(31, *image.shape[1:])
    strength = 0.0 if strength is None else float(strength[magnitude])
    if name == "solarize":
        strength = (30 - magnitude) / 30  # theirs is rounded to float32 and may move the threshold by a level
    signed_strength = -strength if signed and negative else strength
    return theirs._apply_image_or_video_transform(
        image, title, signed_strength, InterpolationMode.NEAREST, theirs._fill
    )


def test_operations_are_those_of_torchvision():
    theirs = {name.lower() for name in v2.RandAugment()._AUGMENTATION_SPACE}
    assert {name.replace("_", "") for name in OPERATIONS} == theirs


@pytest.mark.parametrize("magnitude", [0, 1, 9, 30])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_operation_equals_torchvision(name, negative, magnitude):
    images = photos(3)
    expected = torch.stack([torchvision_one(image, name, negative, magnitude) for image in images])
    assert torch.equal(apply_one(images, name, negative, magnitude), expected)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", randaugment.BLEND)
def test_blend_differs_from_torchvision_by_rounding_only(name, negative, magnitude):
    images = photos(3)
    expected = torch.stack([torchvision_one(image, name, negative, magnitude) for image in images])
    difference = (apply_one(images, name, negative, magnitude).int() - expected.int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.6
    if magnitude == 0:
        assert torch.equal(apply_one(images, name, negative, 0), images)


@settings(max_examples=40)
@given(
    st.integers(1, 37),
    st.integers(1, 37),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(0, 1000),
)
def test_a_batch_gives_the_bits_of_one_image_at_a_time(height, width, n, count, magnitude, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)
    operations = torch.randint(0, len(OPERATIONS), (n, count), generator=generator)
    negative = torch.rand(n, count, generator=generator) < 0.5
    together = randaugment.apply(images, operations, negative, magnitude)
    alone = [
        randaugment.apply(images[i : i + 1], operations[i : i + 1], negative[i : i + 1], magnitude) for i in range(n)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_threads_do_not_change_bits():
    images = photos(28, 97, 131)
    operations = torch.arange(len(OPERATIONS)).repeat(2).unsqueeze(1)
    negative = torch.arange(28).unsqueeze(1) >= 14
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            randaugment._sources.cache_clear()
            results.append(randaugment.apply(images, operations, negative, 13))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_images_given_are_left_as_they_were():
    images = photos(14)
    before = images.clone()
    randaugment.apply(images, torch.arange(14).unsqueeze(1), torch.zeros(14, 1, dtype=torch.bool), 9)
    assert torch.equal(images, before)


def test_operations_of_an_image_follow_one_another():
    images = photos(2)
    kinds = [OPERATIONS.index("rotate"), OPERATIONS.index("solarize")]
    both = randaugment.apply(images, torch.tensor([kinds] * 2), torch.zeros(2, 2, dtype=torch.bool), 15)
    assert torch.equal(both, apply_one(apply_one(images, "rotate", False, 15), "solarize", False, 15))


def test_translation_moves_by_the_published_share_of_the_width():
    images = photos(1, 33, 331)
    pixels = math.floor(150 / 30 * 10)
    moved = apply_one(images, "translate_x", False, 10)
    assert torch.equal(moved[..., pixels:], images[..., :-pixels])
    assert moved[..., :pixels].eq(0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_bits_of_the_cpu():
    images = photos(28, 61, 67)
    operations = torch.arange(len(OPERATIONS)).repeat(2).unsqueeze(1)
    negative = torch.arange(28).unsqueeze(1) >= 14
    on_gpu = randaugment.apply(images.cuda(), operations, negative, 9)
    assert torch.equal(on_gpu.cpu(), randaugment.apply(images, operations, negative, 9))
