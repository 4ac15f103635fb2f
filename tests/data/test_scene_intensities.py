"""Gamma, blur and noise of scenes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from counterpoise.data.scene_intensities import AS_IT_IS, Tone, noisy, toned
from counterpoise.system import torchvision_guard


@pytest.fixture(scope="session", params=[1, 3, 5])
def image(request: pytest.FixtureRequest) -> Tensor:
    """Of some channels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (request.param, 40, 56), generator=generator).to(torch.uint8)


def test_nothing_changes_at_strength_zero(image: Tensor) -> None:
    assert torch.equal(toned(image, AS_IT_IS), image)
    assert torch.equal(noisy(image, AS_IT_IS), image)
    assert torch.equal(noisy(image, Tone(noise=1, key=(1, 2, 3, 4))), image)  # less than half a level


@pytest.mark.parametrize("gamma", [0.5, 1.7])
def test_gamma_is_a_power_of_what_is_between_black_and_white(image: Tensor, gamma: float) -> None:
    expected = (255 * (image.double() / 255) ** gamma).round()
    assert torch.equal(toned(image, Tone(gamma=gamma)).double(), expected)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.3])
def test_blur_is_torchvisions_within_rounding_and_keeps_what_is_flat(image: Tensor, deviation: float) -> None:
    torchvision_guard.ready()
    from torchvision.transforms.v2 import functional

    reach = -(-3 * deviation // 1)
    padded = torch.nn.functional.pad(image[None].double(), [int(reach)] * 4, mode="replicate")[0]
    edge = int(2 * reach + 1)
    blurred = functional.gaussian_blur(padded, [edge, edge], [deviation, deviation])
    inner = slice(int(reach), -int(reach))
    assert (toned(image, Tone(blur=deviation)) - blurred[:, inner, inner]).abs().max() <= 0.52
    flat = torch.full_like(image, 201)
    assert torch.equal(toned(flat, Tone(blur=deviation)), flat)


def test_noise_is_normal_of_its_own_for_each_pixel_and_only_where_it_is_wanted() -> None:
    gray = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    tone = Tone(noise=20 * 256, key=(7, 8, 9, 2**32 - 1))
    moves = noisy(gray, tone).double() - 128
    assert abs(moves.mean()) < 0.3
    assert moves.std() == pytest.approx(20, rel=0.02)
    assert (moves.abs() < 20).double().mean() == pytest.approx(0.6827, abs=0.02)
    assert (moves.abs() > 40).double().mean() == pytest.approx(0.0455, abs=0.01)
    assert abs(torch.corrcoef(moves.flatten(1))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([moves[0, 1:].flatten(), moves[0, :-1].flatten()]))[0, 1]) < 0.02
    assert torch.equal(noisy(gray, tone), noisy(gray, tone))
    assert not torch.equal(noisy(gray, tone), noisy(gray, tone._replace(key=(7, 8, 9, 1))))
    half = torch.arange(200).expand(200, 200) < 100
    some = noisy(gray, tone, half)
    assert torch.equal(some[:, :, 100:], gray[:, :, 100:])
    assert torch.equal(some[:, :, :100], noisy(gray, tone)[:, :, :100])
    assert noisy(gray, tone._replace(noise=255 * 256)).unique().tolist() == [*range(256)]  # cut off at both ends


def test_the_words_of_noise_are_those_of_today() -> None:
    """Students and stores of today count on them."""
    gray = torch.full((1, 2, 4), 128, dtype=torch.uint8)
    assert noisy(gray, Tone(noise=20 * 256, key=(1, 2, 3, 4))).flatten().tolist() == [
        160,
        124,
        148,
        148,
        131,
        162,
        116,
        153,
    ]
