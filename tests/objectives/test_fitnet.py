"""FitNet against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterpoise.objectives.base import means
from counterpoise.objectives.fitnet import FitNet
from counterpoise.outputs import Outputs

LOGITS = torch.zeros(4, 10)


def outputs(shape: tuple[int, ...], seed: int) -> Outputs:
    feature = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Outputs(LOGITS, {"@-2": feature})


@pytest.mark.parametrize("relu", [True, False])
def test_value_is_that_of_the_formula(relu: bool) -> None:
    student, teacher = outputs((4, 3, 5, 5), 0), outputs((4, 6, 5, 5), 1)
    objective = FitNet(relu=relu)
    objective.prepare(student, teacher, 100)
    assert isinstance(objective.regressor, nn.Sequential)
    convolution, norm = objective.regressor[:2]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-1.0, 1.0)
    s, t = (o.features["@-2"].numpy() for o in (student, teacher))
    weight, bias, gamma, beta = (
        p.detach().numpy() for p in (convolution.weight, convolution.bias, norm.weight, norm.bias)
    )
    hint = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], s) + bias[:, None, None]
    mean, variance = hint.mean((0, 2, 3), keepdims=True), hint.var((0, 2, 3), keepdims=True)
    hint = (hint - mean) / np.sqrt(variance + 1e-5) * gamma[:, None, None] + beta[:, None, None]
    hint = np.maximum(hint, 0) if relu else hint
    loss = means(objective.terms(student, teacher, None))[""]
    assert loss.item() == pytest.approx(((hint - t) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4)), ((12, 6), (4, 2)), ((4, 4), (8, 8)), ((2, 3), (6, 9))], ids=str)
def test_the_regressor_itself_bridges_whole_ratios(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    student, teacher = outputs((4, 3, *sizes[0]), 0), outputs((4, 6, *sizes[1]), 1)
    objective = FitNet()
    objective.prepare(student, teacher, 100)
    assert objective.regressor is not None
    predicted = objective.regressor(student.features["@-2"])
    assert predicted.shape == teacher.features["@-2"].shape
    perfect = Outputs(LOGITS, {"@-2": predicted})
    assert means(objective.terms(student, perfect, None))[""] == 0


def test_the_kernels_of_the_literature_for_a_ratio_of_two() -> None:
    for sizes, kind, kernel in (((8, 4), nn.Conv2d, 3), ((4, 8), nn.ConvTranspose2d, 4), ((4, 4), nn.Conv2d, 1)):
        objective = FitNet()
        objective.prepare(outputs((4, 3, sizes[0], sizes[0]), 0), outputs((4, 6, sizes[1], sizes[1]), 1), 100)
        assert isinstance(objective.regressor, nn.Sequential)
        assert type(objective.regressor[0]) is kind
        assert objective.regressor[0].kernel_size == (kernel, kernel)


def test_the_regressor_learns() -> None:
    torch.manual_seed(0)
    student, teacher = outputs((4, 3, 4, 4), 0), outputs((4, 6, 4, 4), 1)
    objective = FitNet(relu=False)
    objective.prepare(student, teacher, 100)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5)
    losses = []
    for _ in range(20):
        loss = means(objective.terms(student, teacher, None))[""]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
