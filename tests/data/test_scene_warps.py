"""Views that are turned and bent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from counterpoise.data import scene_warps
from counterpoise.data.scene_warps import Warp
from counterpoise.data.sources.base import IGNORE
from counterpoise.system import torchvision_guard


def picture(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    image = torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)
    return image, image[0] % 7


def warped(warp: Warp, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return scene_warps.shown(image, mask, (0, 0), scene_warps.sources(warp, *mask.shape))[:2]


def bent(strength: float, spacing: int, height: int = 60, width: int = 90, index: int = 0) -> Warp:
    (warp,) = scene_warps.draw(3, 1, torch.tensor([index]), (height, width), rotate=0.0, elastic=(strength, spacing))
    assert warp is not None
    return warp


@pytest.mark.parametrize("size", [(1, 1), (13, 13), (16, 16)])
def test_a_quarter_turn_is_exact_and_four_are_the_picture(size: tuple[int, int]) -> None:
    image, mask = picture(*size)
    found = image, mask
    for turn in range(1, 5):
        found = warped(Warp(90.0), *found)
        assert torch.equal(found[0], image.rot90(turn, (1, 2)))
        assert torch.equal(found[1], mask.rot90(turn, (0, 1)))
    assert torch.equal(warped(Warp(180.0), image, mask)[0], image.flip(1, 2))


def test_nothing_moves_by_no_degrees_and_a_still_grid() -> None:
    image, mask = picture(21, 34)
    for warp in (Warp(0.0), Warp(0.0, torch.zeros(2, *scene_warps.points(21, 34, 8), dtype=torch.int64), 8)):
        assert torch.equal(warped(warp, image, mask)[0], image)
        assert torch.equal(warped(warp, image, mask)[1], mask)


@pytest.mark.parametrize("degrees", [-170.0, -33.0, 12.5, 77.0])
def test_a_turn_is_torchvisions(degrees: float) -> None:
    torchvision_guard.ready()
    from torchvision.transforms.v2 import functional

    image, mask = picture(40, 57)
    bilinear = functional.InterpolationMode.BILINEAR
    expected = functional.rotate(image[None].double(), degrees, bilinear)[0]
    nearest = functional.rotate(mask[None], degrees, fill=[float(IGNORE)])[0]
    pixels, classes = warped(Warp(degrees), image, mask)
    away = functional.rotate(torch.ones(1, 40, 57).double(), degrees, bilinear)[0] > 1 - 1e-9  # from the border
    assert (pixels - expected).abs()[:, away].max() <= 3
    assert (pixels - expected).abs()[:, away].mean() < 0.6
    assert (classes == nearest).float().mean() > 0.995  # but where two pixels are as near


def test_a_point_moves_what_is_around_it_and_nothing_farther_than_it_moves() -> None:
    spacing, edge = 16, 80
    moves = torch.zeros(2, *scene_warps.points(edge, edge, spacing), dtype=torch.int64)
    moves[1, 3, 3] = 5 << 16  # at pixel 32, 32
    away = (
        scene_warps.sources(Warp(0.0, moves, spacing), edge, edge) - scene_warps.sources(Warp(), edge, edge)
    ) / 65536
    assert (away[0] == 0).all()
    assert away[1].max() == away[1, 32, 32]
    assert away[1, 32, 32] == pytest.approx(5 * (4 / 6) ** 2, abs=0.01)
    assert torch.equal(away[1], away[1].T)
    assert (away[1, :, 64:] == 0).all()
    steps = away[1].diff(dim=1).diff(dim=1).abs()
    assert steps.max() < 6 * 5 / spacing**2  # smooth: its curvature is that of a spline
    for strength in (0.5, 3.0, 8.0):
        warp = bent(strength, 16)
        field = (scene_warps.sources(warp, 60, 90) - scene_warps.sources(Warp(), 60, 90)) / 65536
        assert 0.3 * strength < field.abs().max() <= strength
        assert abs(field.mean()) < strength / 4
    assert not torch.equal(bent(3.0, 16, index=1).moves, bent(3.0, 16).moves)  # type: ignore[arg-type]


def test_no_view_of_the_strongest_bend_folds_over() -> None:
    for index in range(8):
        rows, columns = scene_warps.sources(bent(8.0, 16, index=index), 60, 90) / 65536
        down, across = rows.diff(dim=0)[:, :-1], columns.diff(dim=1)[:-1]
        assert (down * across - rows.diff(dim=1)[:-1] * columns.diff(dim=0)[:, :-1] > 0).all()


@pytest.mark.parametrize("warp", [Warp(45.0), Warp(-90.0), bent(8.0, 16), Warp(200.0, bent(8.0, 16).moves, 16)])
def test_margins_hold_all_that_a_view_comes_from(warp: Warp) -> None:
    down, across = scene_warps.margins(warp, 60, 90)
    rows, columns = scene_warps.sources(warp, 60, 90) / 65536
    assert -down <= rows.min()
    assert rows.max() <= 59 + down
    assert -across <= columns.min()
    assert columns.max() <= 89 + across
