"""Views of images with their masks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise.data import random, scene_warps, segmentation_views
from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import ConfigError, DataError
from counterpoise.system import torchvision_guard

SIZES = st.integers(1, 70)


def plan_for(**values: object) -> segmentation_views.ScenePlan:
    arguments = {"seed": 3, "count": 100, "size": (24, 32), "scale": (0.5, 2.0), "flip": True, "jitter": 0.5} | values
    height, width = arguments.pop("size")  # type: ignore[misc]
    return segmentation_views.ScenePlan(height=height, width=width, **arguments)  # type: ignore[arg-type]


def view(plan: segmentation_views.ScenePlan, epoch: int, index: int, *scene: Tensor) -> tuple[Tensor, Tensor]:
    return segmentation_views.render(plan, *scene, segmentation_views.draw(plan, epoch, torch.tensor([index]))[0])


def scene(height: int = 40, width: int = 56, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Areas of 8 pixels' edge in 6 colors, and in the mask the number of each color."""
    generator = torch.Generator().manual_seed(seed)
    areas = torch.randint(0, 6, (-(-height // 8), -(-width // 8)), generator=generator)
    mask = areas.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width].to(torch.uint8)
    colors = torch.tensor([[50, 50, 50], [250, 40, 40], [40, 250, 40], [40, 40, 250], [250, 250, 40], [250, 250, 250]])
    return colors[mask.long()].permute(2, 0, 1).to(torch.uint8).contiguous(), mask


@settings(max_examples=40)
@example(2, 1, 1, 1, 1.0, 0, 0, False)
@example(2, 1, 1, 1, 1.0, 0, 0, True)
@given(SIZES, SIZES, SIZES, SIZES, st.floats(0.3, 3.0), st.integers(0, 2**63 - 1), st.integers(0, 1000), st.booleans())
def test_view_has_its_size_and_holds_only_classes_of_the_scene(
    height: int, width: int, down: int, across: int, scale: float, seed: int, epoch: int, more: bool
) -> None:
    plan = plan_for(seed=seed, size=(down, across), scale=(scale / 2, scale), **(WARPED | TONED if more else {}))
    image, mask = scene(height, width)
    pixels, classes = view(plan, epoch, 7, image, mask)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, down, across))
    assert (classes.dtype, classes.shape) == (torch.uint8, (down, across))
    assert set(classes.unique().tolist()) <= {*mask.unique().tolist(), IGNORE}
    assert more or (classes != IGNORE).any()
    assert pixels[:, classes == IGNORE].sum() == 0


def test_view_is_a_function_of_seed_epoch_and_index() -> None:
    plan = plan_for()
    image, mask = scene()
    first = view(plan, 4, 9, image, mask)
    again = segmentation_views.render(plan, image, mask, segmentation_views.draw(plan, 4, torch.tensor([2, 9, 5]))[1])
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    others = [(plan, 5, 9), (plan, 4, 8), (replace(plan, seed=4), 4, 9)]
    assert all(not torch.equal(first[0], view(*other, image, mask)[0]) for other in others)
    for one in (WARPED, TONED):
        plan = plan_for(scale=(1.0, 1.0), flip=False, jitter=0.0, size=(40, 56), **one)  # all else is the same
        views = [view(plan, *sample, image, mask) for sample in ((4, 9), (5, 9), (4, 8), (4, 9))]
        assert all(not torch.equal(views[0][0], other[0]) for other in views[1:3])
        assert all(torch.equal(*both) for both in zip(views[0], views[3], strict=True))
    assert torch.equal(image, scene()[0])
    assert torch.equal(mask, scene()[1])


def test_draws_of_one_augmentation_do_not_depend_on_the_others() -> None:
    indices = torch.arange(50)
    full = segmentation_views.draw(plan_for(), 1, indices)
    still = segmentation_views.draw(plan_for(jitter=0.0, flip=False), 1, indices)
    assert [draw.place for draw in full] == [draw.place for draw in still]
    assert [draw.scale for draw in full] == [draw.scale for draw in still]
    fixed = segmentation_views.draw(plan_for(scale=(1.0, 1.0)), 1, indices)
    assert [draw.flip for draw in full] == [draw.flip for draw in fixed]
    assert [draw.factors for draw in full] == [draw.factors for draw in fixed]
    assert {draw.flip for draw in still} == {False}
    assert {draw.factors for draw in still} == {(1 << 16,) * 3}


def test_draws_fill_their_ranges_evenly() -> None:
    draws = segmentation_views.draw(plan_for(), 0, torch.arange(4000))
    scales = torch.tensor([draw.scale for draw in draws])
    assert 0.5 <= scales.min() < 0.51
    assert 1.99 < scales.max() < 2.0
    assert abs(scales.mean() - 1.25) < 0.03
    factors = torch.tensor([draw.factors for draw in draws]) / (1 << 16)
    more = segmentation_views.draw(plan_for(**TONED, rotate=90.0, flip_vertical=True), 0, torch.arange(4000))
    assert [draw[:4] for draw in more] == [draw[:4] for draw in draws]  # those of others stay as they were
    assert abs(sum(draw.flip_vertical for draw in more) - 2000) < 200
    assert abs(sum(draw.flip_vertical == draw.flip for draw in more) - 2000) < 200
    tones = torch.tensor([[d.tone.gamma, d.tone.blur, d.tone.noise, d.warp.degrees] for d in more if d.warp])
    tones[:, 0].log_()
    low, high = tones.aminmax(dim=0)
    torch.testing.assert_close(high, torch.tensor([math.log(1.5), 1.5, 0.1 * 255 * 256, 90.0]), rtol=0.01, atol=0.0)
    torch.testing.assert_close(low, torch.tensor([-math.log(1.5), 0.0, 0.0, -90.0]), rtol=0.01, atol=30.0)
    middle = torch.tensor([0.0, 0.75, 0.05 * 255 * 256, 0.0])
    assert ((tones.mean(0) - middle).abs() < 0.05 * (high - low)).all()
    assert (factors.mean(0) - 1).abs().max() < 0.03
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() <= 1.5
    assert abs(sum(draw.flip for draw in draws) - 2000) < 200


def test_streams_of_old_draws_kept_their_numbers() -> None:
    assert (random.ORDER, random.CROP, random.FLIP, random.RANDAUGMENT, random.MIX, random.SPLIT) == (0, 1, 2, 3, 4, 5)
    assert len({random.SPLIT, random.SCALE, random.JITTER}) == 3
    later = random.ROTATE, random.ELASTIC, random.FLIP_VERTICAL, random.GAMMA, random.BLUR, random.NOISE
    assert later == (10, 11, 12, 13, 14, 15)


WARPED: dict[str, object] = {"rotate": 180.0, "elastic": (6.0, 16), "flip_vertical": True}
TONED: dict[str, object] = {"gamma": 0.5, "blur": 1.5, "noise": 0.1}


@pytest.mark.parametrize("warped", [{}, WARPED])
def test_image_and_mask_stay_together(warped: dict[str, object]) -> None:
    """The color that each class has in the scene is the one it has in the view, but at borders of areas."""
    plan = plan_for(size=(64, 64), scale=(1.0, 2.0), jitter=0.0, **warped)
    image, mask = scene()
    colors = {int(number): image[:, mask == number][:, 0] for number in mask.unique()}
    for epoch in range(20):
        pixels, classes = view(plan, epoch, 0, image, mask)
        agree = torch.zeros_like(classes, dtype=torch.bool)
        for number, color in colors.items():
            agree |= (classes == number) & ((pixels.int() - color.int().view(3, 1, 1)).abs().amax(0) <= 2)
        inside = classes != IGNORE
        assert agree[inside].float().mean() > 0.65
        near = torch.nn.functional.max_pool2d((agree & inside).float()[None], 5, 1, 2)[0]
        # Nowhere farther off than a border is, but in corners that the border of the scene has cut.
        assert near[inside].mean() > (0.995 if warped else 0.9999)


def test_unscaled_crop_is_cut_out_and_mirrored() -> None:
    plan = plan_for(scale=(1.0, 1.0), jitter=0.0)
    image, mask = scene()
    image = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    seen = set()
    for draw in segmentation_views.draw(plan, 0, torch.arange(300)):
        pixels, classes = segmentation_views.render(plan, image, mask, draw)
        top, left = draw.place[0] * 17 >> 32, draw.place[1] * 25 >> 32
        expected, of_mask = image[:, top : top + 24, left : left + 32], mask[top : top + 24, left : left + 32]
        if draw.flip:
            expected, of_mask = expected.flip(2), of_mask.flip(1)
        assert torch.equal(pixels, expected)
        assert torch.equal(classes, of_mask)
        seen.add((top, left))
    assert {0, 16} <= {top for top, _ in seen}
    assert {0, 24} <= {left for _, left in seen}


def test_view_equals_torchvision_crop_and_resize() -> None:
    torchvision_guard.ready()
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    plan = plan_for(size=(30, 40), scale=(2.0, 2.0), flip=False, jitter=0.0)
    image, mask = scene()
    image = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for epoch in range(5):
        (draw,) = segmentation_views.draw(plan, epoch, torch.tensor([0]))
        box = (draw.place[0] * (40 - 15 + 1) >> 32, draw.place[1] * (56 - 20 + 1) >> 32, 15, 20)
        pixels, classes = segmentation_views.render(plan, image, mask, draw)
        assert torch.equal(pixels, functional.resized_crop(tv_tensors.Image(image), *box, size=[30, 40]))
        exact = functional.InterpolationMode.NEAREST_EXACT
        expected = functional.resize(functional.crop(mask[None], *box), [30, 40], interpolation=exact)[0]
        assert torch.equal(classes, expected)


def test_scene_smaller_than_the_window_lies_anywhere_in_it_on_black_void() -> None:
    plan = plan_for(size=(32, 32), scale=(0.5, 0.5), flip=False, jitter=0.0)
    image, mask = scene(40, 24)
    places = set()
    for draw in segmentation_views.draw(plan, 0, torch.arange(100)):
        pixels, classes = segmentation_views.render(plan, image, mask, draw)
        rows, columns = (torch.nonzero((classes != IGNORE).any(side)).flatten() for side in (1, 0))
        assert (len(rows), len(columns)) == (20, 12)
        assert (pixels[:, classes != IGNORE] > 0).all()
        places.add((int(rows[0]), int(columns[0])))
    assert {0, 12} <= {top for top, _ in places}
    assert {0, 20} <= {left for _, left in places}


def test_jitter_equals_torchvision_within_rounding() -> None:
    torchvision_guard.ready()
    from torchvision.transforms.v2 import functional

    plan = plan_for(size=(40, 56), scale=(1.0, 1.0), flip=False, jitter=0.8)
    image = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    for draw in segmentation_views.draw(plan, 0, torch.arange(20)):
        brightness, contrast, saturation = (factor / (1 << 16) for factor in draw.factors)
        expected = functional.adjust_brightness(image / 255, brightness)  # in floats, where nothing is cut off
        expected = functional.adjust_saturation(functional.adjust_contrast(expected, contrast), saturation)
        found = segmentation_views.render(plan, image, image[0], draw)[0]
        assert (found - 255 * expected).abs().max() <= 3
        assert (found - 255 * expected).abs().mean() < 0.75


def test_jitter_leaves_the_mask_and_padding_alone() -> None:
    image, mask = scene(12, 12)
    plain = view(plan_for(jitter=0.0), 0, 0, image, mask)
    varied = view(plan_for(jitter=1.0), 0, 0, image, mask)
    assert torch.equal(plain[1], varied[1])
    assert not torch.equal(plain[0], varied[0])
    assert varied[0][:, varied[1] == IGNORE].sum() == 0


def test_scene_without_a_mask_is_all_void() -> None:
    image, mask = scene()
    pixels, classes = view(plan_for(), 2, 3, image, torch.full_like(mask, IGNORE))
    assert torch.equal(pixels, view(plan_for(), 2, 3, image, mask)[0])
    assert (classes == IGNORE).all()


def test_window_that_is_turned_and_not_bent_has_what_lies_beside_it() -> None:
    """A window within a scene that is large enough is void nowhere, however it is turned."""
    image, mask = scene(160, 160)
    for place in segmentation_views.draw(plan_for(), 0, torch.arange(9)):
        middle = place._replace(place=(1 << 31, 1 << 31), warp=scene_warps.Warp(40.0 * place.scale), scale=1.0)
        assert (segmentation_views.render(plan_for(), image, mask, middle)[1] != IGNORE).all()


@pytest.mark.parametrize("place", [(0, 0), (39, 55), (3, 30)])
@pytest.mark.parametrize("size", [(24, 24), (16, 40), (64, 64)])
def test_a_view_laid_on_an_object_holds_it_however_it_is_turned(place: tuple[int, int], size: tuple[int, int]) -> None:
    image, mask = scene()
    mask[:] = 0
    mask[max(0, place[0] - 1) : place[0] + 2, max(0, place[1] - 1) : place[1] + 2] = 5
    plan = plan_for(size=size, scale=(0.8, 2.0), rotate=180.0, elastic=(2.0, 12))
    for drawn in segmentation_views.draw(plan, 0, torch.arange(40)):
        assert (segmentation_views.render(plan, image, mask, drawn, place)[1] == 5).any()


def test_grid_of_more_points_than_are_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"makes a grid of 503 x 503 points .* Give a larger spacing"):
        plan_for(size=(2000, 2000), elastic=(1.0, 4))


def test_mask_of_another_size_is_refused() -> None:
    image, mask = scene()
    with pytest.raises(DataError, match="The mask is 55 x 40 pixels and its image 56 x 40"):
        view(plan_for(), 0, 0, image, mask[:, 1:])


def test_plan_is_recorded() -> None:
    specification = segmentation_views.scene_specification(plan_for())
    assert json.loads(json.dumps(specification)) == specification
    assert specification["scale"] == [0.5, 2.0]
    assert not {*WARPED, *TONED} & {*specification}  # those of stores that are there say nothing of what is off
    assert segmentation_views.words(plan_for()) == "windows of 32 x 24 at 0.5 to 2 times their size, mirrored"
    every = plan_for(**WARPED, **TONED)
    specification = segmentation_views.scene_specification(every)
    assert json.loads(json.dumps(specification)) == specification
    assert {key: specification[key] for key in WARPED} == {**WARPED, "elastic": [6.0, 16]}
    assert segmentation_views.words(every).endswith(
        "mirrored, upside down, turned by up to 180 degrees, bent, gamma, blur, noise"
    )


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    image, mask = scene(200, 200)
    plan = plan_for(size=(150, 150), **WARPED, **TONED)
    before = torch.get_num_threads()
    views = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            views.append(view(plan, 0, 0, image, mask)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*views)
