"""Answers averaged over several views of each picture, beside plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.models.several_views import OF_PICTURES, OF_SCENES, SeveralViews, averaged, mean_logit, told


@pytest.fixture(scope="session")
def pixels() -> Tensor:
    """Of a size that the stride of a network does not divide."""
    return torch.rand(2, 3, 22, 30, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def dense() -> nn.Module:
    torch.manual_seed(2)
    net = catalog.build("digits/unet_4_8", num_classes=5).eval()
    for one in net.parameters():
        nn.init.normal_(one, std=0.5)
    return net.net


def reference(net: nn.Module, pixels: Tensor, scales: list[float], flips: list[list[int]], sigmoid: bool) -> Tensor:
    """The mean of probabilities at the size of the answer to the picture as it is."""
    size = net(pixels).shape[2:]
    shares = []
    for scale in scales:
        edges = [round(scale * edge) for edge in pixels.shape[2:]]
        scaled = F.interpolate(pixels, size=edges, mode="bilinear", antialias=True, align_corners=False)
        for flip in flips:
            answer = net(torch.flip(scaled, flip)).flip(flip).double()
            answer = F.interpolate(answer, size=size, mode="bilinear", align_corners=False)
            shares.append(answer.sigmoid() if sigmoid else answer.softmax(1))
    return torch.stack(shares).mean(0)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("views", OF_SCENES)
@torch.no_grad()
def test_a_scenes_answer_is_the_mean_of_probabilities_where_they_are_seen(
    views: int, sigmoid: bool, dense: nn.Module, pixels: Tensor
) -> None:
    scales = [1.0, 0.75, 1.25] if views in (6, 12) else [1.0]
    flips = [[], [3]] if views in (2, 6) else [[], [3], [2], [2, 3]]
    expected = reference(dense, pixels, scales, flips, sigmoid)
    found = SeveralViews(dense, views, sigmoid)(pixels)
    shares = found.sigmoid() if sigmoid else found.softmax(1)
    torch.testing.assert_close(shares.double(), expected, rtol=1e-4, atol=1e-6)
    if not sigmoid:
        assert (found.exp().sum(1) - 1).abs().max() < 1e-5  # logarithms of probabilities
    assert (shares - (dense(pixels).sigmoid() if sigmoid else dense(pixels).softmax(1))).abs().max() > 0.01
    # Of the mirrored scene the mirrored answer, as of no network alone.
    torch.testing.assert_close(SeveralViews(dense, views, sigmoid)(pixels.flip(3)), found.flip(3), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("views", OF_PICTURES)
def test_a_pictures_answer_is_the_mean_of_probabilities(views: int) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    pixels = torch.rand(3, 3, 16, 16)
    corners = [pixels[:, :, top : top + 14, left : left + 14] for top in (0, 2) for left in (0, 2)]
    shown = [pixels, *(F.interpolate(one, (16, 16), mode="bilinear") for one in corners)] if views == 10 else [pixels]
    flips = [[], [3], [2], [2, 3]] if views == 4 else [[], [3]]
    mean = torch.stack([net(one.flip(flip)).softmax(1) for one in shown for flip in flips]).mean(0)
    assert len(shown) * len(flips) == views
    torch.testing.assert_close(SeveralViews(net, views)(pixels).exp(), mean)
    mean = torch.stack([net(one.flip(flip)).sigmoid() for one in shown for flip in flips]).mean(0)
    torch.testing.assert_close(SeveralViews(net, views, sigmoid=True)(pixels).sigmoid(), mean)


def test_probabilities_are_averaged_as_such_and_refused_where_nobody_has_said_so() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Softmax(1))
    model = VisionModel(net, name="soft", num_classes=5, outputs="probabilities")
    images = torch.rand(3, 3, 2, 2)
    pixels = model.normalize(images)
    expected = (net(pixels) + net(pixels.flip(3))) / 2
    torch.testing.assert_close(averaged(model, 2, False, True)(images).exp(), expected)
    with pytest.raises(ModelError, match="answers probabilities"):
        SeveralViews(net, 2)(pixels)


def test_the_mean_of_sure_answers_is_finite() -> None:
    answers = torch.tensor([[60.0, -60.0, 1e4], [70.0, -70.0, -1e4]])
    assert mean_logit(answers).tolist() == pytest.approx([60 + torch.tensor(2.0).log().item(), -60.6931, 0], abs=1e-3)
    net = nn.Identity()
    assert SeveralViews(net, 4, sigmoid=True)(answers.view(1, 2, 3, 1)).isfinite().all()
    wide = SeveralViews(nn.Flatten(), 2, sigmoid=True)(answers.view(1, 2, 1, 3).expand(1, 2, 1, 3))
    assert wide.isfinite().all()


@pytest.mark.parametrize(("views", "whole"), [(6, True), (12, True), (10, False), (3, True), (3, False)])
def test_views_that_there_are_none_of_are_refused(views: int, whole: bool, dense: nn.Module, pixels: Tensor) -> None:
    model = VisionModel(dense, name="mine", num_classes=5)
    assert averaged(model, 1, False, whole) is model
    with pytest.raises(ConfigError, match=f"views: {views} of a .* are none: 2 are it and its mirror image; 4 are"):
        averaged(model, views, False, whole)
    assert told(4, whole).endswith(": it mirrored, upside down, and both")
    other = dense if whole else nn.Sequential(nn.Flatten(), nn.Linear(1980, 5))
    with pytest.raises(ModelError, match=f"{10 if whole else 6} views are none of answers"):
        SeveralViews(other, 10 if whole else 6)(pixels)
