import json
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from counterpoise import config
from counterpoise.data import counting, images, random, views
from counterpoise.data.sources import ArraySet, concatenate
from counterpoise.errors import ConfigError
from counterpoise.system import torchvision_guard

FULL = config.Views(
    crop="pad", flip_vertical=True, rotate=40, randaugment=config.RandAugment(operations=3, magnitude=12)
)
ZOOM = config.Views(crop="resized", randaugment=config.RandAugment())


def plan_for(settings, count=100, size=None, native=(32, 32), seed=3, fit="crop"):
    """The plan of that many images, all of one size, or of several (None)."""
    labels, first = torch.zeros(count, dtype=torch.int64), torch.zeros(1, 3, *(native or (8, 8)), dtype=torch.uint8)
    pictures = ArraySet(first.expand(count, -1, -1, -1), labels, "ab")
    if native is None:
        other = ArraySet(torch.zeros(1, 3, 9, 9, dtype=torch.uint8), labels[:1], "ab")
        pictures = concatenate(pictures.subset(torch.arange(count - 1)), other)
    return views.plan_views(settings, pictures, seed=seed, size=size, fit=fit)


def noise(n, height=32, width=32, seed=0):
    return torch.randint(
        0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def make(plan, pictures, epoch, indices):
    """Views of pictures of any sizes, as a loader makes them."""
    words = views.crop_words(plan, epoch, indices)
    framed = torch.stack([views.frame(plan, picture, row) for picture, row in zip(pictures, words, strict=True)])
    return views.augment(plan, framed, views.draw(plan, epoch, indices))


@settings(max_examples=30)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=10),
    st.sampled_from([FULL, config.Views(crop="none"), config.Views(crop="pad", flip=False, padding=2)]),
)
def test_a_batch_gives_the_bits_of_one_view_at_a_time(seed, epoch, indices, settings):
    plan = plan_for(settings, seed=seed)
    pictures = noise(len(indices))
    together = make(plan, pictures, epoch, torch.tensor(indices))
    alone = [make(plan, pictures[i : i + 1], epoch, torch.tensor([index])) for i, index in enumerate(indices)]
    assert torch.equal(together, torch.cat(alone))


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=6), st.integers(0, 1000))
def test_zoomed_batch_gives_the_bits_of_one_view_at_a_time(sizes, epoch):
    plan = plan_for(ZOOM, size=40, native=None)
    pictures = [noise(1, height, width)[0] for height, width in sizes]
    indices = torch.arange(len(sizes)) + 7
    together = make(plan, pictures, epoch, indices)
    assert together.shape == (len(sizes), 3, 40, 40)
    alone = [make(plan, pictures[i : i + 1], epoch, indices[i : i + 1]) for i in range(len(sizes))]
    assert torch.equal(together, torch.cat(alone))


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.booleans(), st.booleans(), st.integers(0, 100))
def test_pad_crop_flip_equals_torchvision_image_by_image(height, width, padding, flip, vertical, epoch):
    torchvision_guard.ready()
    from torchvision.transforms.v2 import functional

    settings = config.Views(crop="pad", padding=padding, flip=flip, flip_vertical=vertical)
    plan = plan_for(settings, native=(height, width))
    pictures = noise(16, height, width)
    indices = torch.arange(16)
    draws = views.draw(plan, epoch, indices)
    expected = []
    drawn = zip(pictures, draws.offsets.tolist(), draws.flip.tolist(), draws.flip_vertical.tolist(), strict=True)
    for picture, (top, left), mirrored, upside_down in drawn:
        picture = functional.crop(functional.pad(picture, [padding] * 4), top, left, height, width)
        picture = functional.vertical_flip(picture) if upside_down else picture
        expected.append(functional.horizontal_flip(picture) if mirrored else picture)
    assert torch.equal(make(plan, pictures, epoch, indices), torch.stack(expected))


def test_all_162_pad_crop_flip_views_of_an_image_are_reached_evenly():
    plan = plan_for(config.Views())
    draws = views.draw(plan, 0, torch.arange(162 * 100))
    assert draws.offsets.min() == 0
    assert draws.offsets.max() == 8
    number = (draws.offsets[:, 0] * 9 + draws.offsets[:, 1]) * 2 + draws.flip
    counts = torch.bincount(number, minlength=162)
    assert len(counts) == 162
    assert (counts - 100).abs().max() < 60
    picture = noise(1)
    of_one_image = [make(plan, picture, epoch, torch.tensor([4])) for epoch in range(1300)]
    assert len({bytes(view.numpy().tobytes()) for view in of_one_image}) == 162


def test_switching_one_augmentation_on_leaves_the_draws_of_others():
    indices = torch.arange(200)
    plain = views.draw(plan_for(config.Views()), 4, indices)
    more = views.draw(plan_for(FULL), 4, indices)
    assert torch.equal(plain.offsets, more.offsets)
    assert torch.equal(plain.flip, more.flip)
    still = {"crop": "none", "flip": False, "flip_vertical": False, "rotate": 0.0}
    alone = views.draw(plan_for(FULL.model_copy(update=still)), 4, indices)
    assert torch.equal(alone.operations, more.operations)
    assert torch.equal(alone.negative, more.negative)


def test_every_operation_and_sign_of_randaugment_is_drawn():
    draws = views.draw(plan_for(FULL), 0, torch.arange(4000))
    counts = torch.bincount((2 * draws.operations + draws.negative).flatten(), minlength=28)
    assert len(counts) == 28
    assert (counts - 12000 / 28).abs().max() < 6 * (12000 / 28) ** 0.5


@settings(max_examples=200)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(0, 10**9),
    st.floats(0.01, 1.0),
    st.floats(0.1, 1.0),
)
def test_zoomed_crop_lies_within_the_image(height, width, index, smallest, narrowest):
    settings = config.Views(crop="resized", scale=(smallest, 1.0), ratio=(narrowest, 1 / narrowest))
    plan = plan_for(settings, size=8, native=None)
    words = views.crop_words(plan, 0, torch.tensor([index]))[0].tolist()
    top, left, down, across = views._resized_crop(plan, height, width, words)
    assert down >= 1
    assert across >= 1
    assert 0 <= top <= height - down
    assert 0 <= left <= width - across


def test_zoomed_crops_have_the_stated_areas_and_ratios():
    plan = plan_for(config.Views(crop="resized", scale=(0.1, 0.5)), size=8, native=None)
    words = views.crop_words(plan, 0, torch.arange(3000)).tolist()
    crops = torch.tensor([views._resized_crop(plan, 1000, 1000, row) for row in words], dtype=torch.float64)
    top, left, down, across = crops.T
    share, log_ratio = down * across / 1e6, (across / down).log()
    for values, low, high in ((share, 0.1, 0.5), (log_ratio, math.log(3 / 4), math.log(4 / 3))):
        counts = torch.histc((values - low) / (high - low), bins=10, min=-0.01, max=1.01)
        assert counts.sum() == 3000
        assert (counts - 300).abs().max() < 6 * 300**0.5
    for start, span in ((top, 1000 - down), (left, 1000 - across)):
        assert (start / span).mean() == pytest.approx(0.5, abs=0.03)


def test_a_sliver_gets_its_largest_central_crop():
    plan = plan_for(config.Views(crop="resized", scale=(1.0, 1.0)), size=8, native=None)
    words = views.crop_words(plan, 0, torch.tensor([0]))[0].tolist()
    assert views._resized_crop(plan, 1000, 100, words) == (433, 0, 133, 100)
    assert views._resized_crop(plan, 100, 1000, words) == (0, 433, 100, 133)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (1, 1), (2, 300), (300, 1), (24, 24), (400, 301), (25, 9)])
def test_zoom_equals_torchvision_on_the_drawn_box(height, width):
    torchvision_guard.ready()
    from torchvision.transforms.v2 import functional

    plan = plan_for(config.Views(crop="resized"), size=24, native=None)
    picture = noise(1, height, width)[0]
    by_pixels = picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    indices = torch.arange(9)
    expected, framed = [], []
    for words in views.crop_words(plan, 2, indices):
        box = views._resized_crop(plan, height, width, words.tolist())
        expected.append(functional.resized_crop(picture, *box, [24, 24], antialias=True))
        framed.append(views.frame(plan, by_pixels, words))
        assert torch.equal(views.frame(plan, picture, words), expected[-1])
        assert torch.equal(framed[-1], expected[-1])
    draws = views.draw(plan, 2, indices)
    made = views.collected(plan, framed, draws)
    assert torch.equal(made, views.augment(plan, torch.stack(expected), draws))
    assert made.is_contiguous()


@pytest.mark.parametrize("crop", ["none", "pad"])
def test_other_crops_start_from_the_view_of_evaluation(crop):
    plan = plan_for(config.Views(crop=crop, padding=0, flip=False), size=24, native=None)
    picture = noise(1, 50, 70)[0]
    expected = images.prepare(picture, 24)
    assert torch.equal(make(plan, [picture], 0, torch.tensor([1]))[0], expected)


@pytest.mark.parametrize(
    ("native", "crop"),
    [((32, 32), "pad"), ((64, 64), "pad"), ((65, 65), "resized"), ((8, 96), "resized"), (None, "resized")],
)
def test_auto_crop_pads_small_images_in_memory_and_zooms_into_others(native, crop):
    assert plan_for(config.Views(), size=48, native=native).crop == crop


def test_views_have_the_size_of_images_in_memory_unless_told():
    plan = plan_for(config.Views(), native=(28, 20))
    assert (plan.height, plan.width) == (28, 20)
    assert plan_for(config.Views(), native=(28, 20), size=24).height == 24
    with pytest.raises(ConfigError, match=r"data\.size"):
        plan_for(config.Views(), native=None)


def test_specification_is_json_and_tells_plans_apart():
    specification = views.view_specification(plan_for(FULL))
    assert json.loads(json.dumps(specification)) == specification
    others = [
        plan_for(FULL, seed=4),
        plan_for(FULL, count=99),
        plan_for(FULL, size=16),
        plan_for(FULL.model_copy(update={"mixup": 0.2})),
        plan_for(config.Views(crop="pad", randaugment=config.RandAugment(operations=3, magnitude=11))),
    ]
    others += [plan_for(FULL.model_copy(update={key: 0})) for key in ("flip_vertical", "rotate")]
    assert all(views.view_specification(other) != specification for other in others)
    assert not {"flip_vertical", "rotate"} & views.view_specification(plan_for(config.Views())).keys()
    assert "mirrored, upside down, turned by up to 40 degrees, RandAugment" in views.words(plan_for(FULL))


def test_views_do_not_touch_global_chance():
    before = torch.get_rng_state()
    make(plan_for(FULL), noise(4), 0, torch.arange(4))
    make(plan_for(ZOOM, size=16, native=None), noise(4), 0, torch.arange(4))
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_epochs_and_seeds_give_other_views(one, other):
    assume(one != other)
    indices = torch.arange(64)
    assert not torch.equal(
        views.draw(plan_for(FULL), one, indices).offsets, views.draw(plan_for(FULL), other, indices).offsets
    )
    by_seed = [views.draw(plan_for(FULL, seed=seed), 0, indices).offsets for seed in (one, other)]
    assert not torch.equal(*by_seed)


def test_half_of_the_views_are_mirrored():
    drawn = views.draw(plan_for(FULL), 0, torch.arange(10000))
    flip = views.draw(plan_for(config.Views()), 0, torch.arange(10000)).flip
    assert torch.equal(flip, drawn.flip)
    for half in (flip, drawn.flip_vertical, flip == drawn.flip_vertical):
        assert half.double().mean() == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 10000))
    degrees = torch.atan2(*drawn.turns.double().flip(1).unbind(1)).rad2deg()
    assert degrees.abs().max() == pytest.approx(40, rel=1e-3)
    assert degrees.std() == pytest.approx(40 / math.sqrt(3), rel=0.03)
    assert not torch.equal(flip.long(), random.words(3, 0, torch.arange(10000), random.CROP, 1)[:, 0] >> 31)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_bits_of_the_cpu():
    plan = plan_for(FULL)
    pictures, draws = noise(50), views.draw(plan, 1, torch.arange(50))
    on_gpu = views.augment(plan, pictures.cuda(), draws.to(torch.device("cuda")))
    assert torch.equal(on_gpu.cpu(), views.augment(plan, pictures, draws))


@pytest.mark.parametrize(
    ("padding", "flip", "vertical"),
    [(0, False, False), (0, True, False), (1, True, True), (2, False, True), (4, True, False)],
)
def test_every_view_has_a_number_of_its_own(padding, flip, vertical):
    crop = "pad" if padding else "none"
    plan = plan_for(config.Views(crop=crop, padding=padding or 4, flip=flip, flip_vertical=vertical))
    count = counting.countable(plan)
    assert count == (2 * padding + 1) ** 2 * (1 + flip) * (1 + vertical)
    together = [counting.numbered(plan, number, 3) for number in range(count)]
    for number, draws in enumerate(together):
        assert counting.numbers(plan, draws).tolist() == [number] * 3
    shown = {(*draws.offsets[0].tolist(), bool(draws.flip[0]), bool(draws.flip_vertical[0])) for draws in together}
    assert len(shown) == count
    drawn = views.draw(plan, 5, torch.arange(2000))
    numbers = counting.numbers(plan, drawn)
    assert numbers.min() >= 0
    assert len(numbers.unique()) == count
    for number in numbers[:20].tolist():
        row = int((numbers == number).nonzero()[0])
        again = counting.numbered(plan, number, 1)
        assert torch.equal(again.offsets[0], drawn.offsets[row])
        assert again.flip[0] == drawn.flip[row]
        assert again.flip_vertical[0] == drawn.flip_vertical[row]


def test_the_162_views_of_cifar_are_counted():
    assert counting.countable(plan_for(config.Views())) == 162
    assert counting.countable(plan_for(FULL)) is None
    assert counting.countable(plan_for(ZOOM, size=16, native=None)) is None
    assert counting.countable(plan_for(config.Views(mixup=0.1))) is None
    assert counting.countable(plan_for(config.Views(rotate=5))) is None


@pytest.mark.parametrize(("fit", "rows"), [("squash", 32), ("pad", 8)])
def test_zoomed_views_are_of_the_shape_in_which_evaluation_shows_the_picture(fit, rows):
    plan = plan_for(config.Views(crop="resized"), size=32, native=None, fit=fit)
    picture = torch.full((3, 32, 128), 255, dtype=torch.uint8)
    for index in range(20):
        view = views.frame(plan, picture, views.crop_words(plan, 0, torch.tensor([index]))[0])
        assert view.flatten(1).sum(1).tolist() == [255 * 32 * rows] * 3
    bars = images.prepare(picture, 32, fit=fit) == 0
    assert torch.equal(bars, view == 0)


def test_zoomed_views_of_squashed_pictures_reach_their_ends():
    plan = plan_for(config.Views(crop="resized"), size=32, native=None, fit="squash")
    words = views.crop_words(plan, 0, torch.arange(200)).tolist()
    boxes = torch.tensor([views._resized_crop(plan, 32, 128, row) for row in words])
    shape = boxes[:, 3] / boxes[:, 2]
    assert (shape / 4).min() >= 0.7  # round numbers of pixels in plan.ratio
    assert (shape / 4).max() <= 1.45
    assert ((boxes[:, 1] >= 0) & (boxes[:, 1] + boxes[:, 3] <= 128)).all()
    assert boxes[:, 3].max() > 110


def test_whole_views_are_fitted_as_in_evaluation():
    picture = noise(1, 20, 70)[0]
    for fit in ("crop", "squash", "pad"):
        plan = plan_for(config.Views(crop="none"), size=24, native=None, fit=fit)
        view = views.frame(plan, picture, views.crop_words(plan, 0, torch.tensor([0]))[0])
        assert torch.equal(view, images.prepare(picture, 24, 1.0, fit))


def test_a_fit_is_part_of_what_determines_views_unless_it_is_as_ever():
    usual = views.view_specification(plan_for(config.Views(), size=24))
    assert "fit" not in usual
    other = plan_for(config.Views(), size=24, fit="pad")
    assert views.view_specification(other) == {**usual, "fit": "pad"}
