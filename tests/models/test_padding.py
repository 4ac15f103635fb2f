from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.models.padding import Padded


class Means(Padded):
    """Answers each cell of `cell` pixels with the mean of its pixels, and refuses edges that do not divide."""

    def __init__(self, stride: int, cell: int) -> None:
        super().__init__(stride)
        self.cell = cell

    def answer(self, images: Tensor) -> Tensor:
        assert all(edge % self.stride == 0 for edge in images.shape[-2:])
        return F.avg_pool2d(images, self.cell)


def ramp(height: int, width: int) -> Tensor:
    """Channels: row, column and sum, at the centers of pixels."""
    rows = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None].expand(height, width)
    columns = (torch.arange(width, dtype=torch.float64) + 0.5)[None, :].expand(height, width)
    return torch.stack([rows, columns, rows + columns])[None]


def test_images_that_divide_go_through_untouched() -> None:
    images = ramp(16, 24)
    assert torch.equal(Means(8, 4)(images), F.avg_pool2d(images, 4))


@pytest.mark.parametrize(("height", "width"), [(20, 28), (12, 8), (4, 36)])
def test_whole_cells_of_the_image_are_cut_out(height: int, width: int) -> None:
    images = ramp(height, width)
    assert torch.equal(Means(16, 4)(images), F.avg_pool2d(images, 4))


def test_answers_at_full_resolution_are_those_of_the_pixels() -> None:
    images = ramp(13, 21)
    assert torch.equal(Means(32, 1)(images), images)


@pytest.mark.parametrize(("height", "width"), [(61, 90), (58, 33), (50, 64)])
def test_resized_answers_lie_where_their_pixels_are(height: int, width: int) -> None:
    images = ramp(height, width)
    logits = Means(16, 8)(images)
    assert logits.shape[-2:] == (-(-height // 8), -(-width // 8))
    resized = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    inner = (..., slice(16, height - 16), slice(16, width - 16))  # at the edges there is nothing to interpolate
    assert (resized - images)[inner].abs().max() < 1e-9


def test_gradient_reaches_every_pixel_of_the_image() -> None:
    images = ramp(21, 30).requires_grad_()
    Means(16, 8)(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
