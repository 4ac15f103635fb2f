"""Channel-wise distillation against its formula in numpy, of logits and of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.cwd import ChannelWiseDistillation, ChannelWiseFeatureDistillation
from counterpoise.outputs import Outputs

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(student: np.ndarray, teacher: np.ndarray, tau: float) -> float:
    """Of one sample, from [C, positions]."""
    log_q, log_p = log_softmax(student / tau, 1), log_softmax(teacher / tau, 1)
    return float(tau**2 / len(student) * (np.exp(log_p) * (log_p - log_q)).sum())


@given(st.integers(0, 2**31), st.floats(0.3, 20))
@settings(max_examples=25)
def test_value_is_that_of_the_formula(seed: int, tau: float) -> None:
    student, teacher = draw(seed, 2, 5, 3, 4), draw(seed + 1, 2, 5, 3, 4)
    values = [expected(s.flatten(1).numpy(), t.flatten(1).numpy(), tau) for s, t in zip(student, teacher, strict=True)]
    loss = ChannelWiseDistillation(tau)(student, teacher)
    assert loss.item() == pytest.approx(np.mean(values), rel=1e-9, abs=1e-12)


def test_void_takes_no_part_and_a_sample_of_void_does_not_count() -> None:
    student, teacher = draw(0, 3, 5, 3, 4), draw(1, 3, 5, 3, 4)
    target = torch.zeros(3, 3, 4, dtype=torch.int64)
    target[0, 1:] = VOID
    target[1] = VOID
    kept = [(0, slice(0, 4)), (2, slice(0, 12))]
    values = [expected(student[n].flatten(1)[:, k].numpy(), teacher[n].flatten(1)[:, k].numpy(), 4.0) for n, k in kept]
    objective = ChannelWiseDistillation(ignore_index=VOID)
    assert objective(student, teacher, target).item() == pytest.approx(np.mean(values), rel=1e-9)
    weight = torch.tensor([3.0, 5.0, 1.0])
    weighted = (3 * values[0] + values[1]) / 4
    assert objective(student, teacher, target, weight).item() == pytest.approx(weighted, rel=1e-9)


def test_what_a_class_adds_everywhere_is_not_felt() -> None:
    student, teacher = draw(0, 2, 5, 3, 4), draw(1, 2, 5, 3, 4)
    objective = ChannelWiseDistillation()
    torch.testing.assert_close(objective(student + draw(2, 2, 5, 1, 1), teacher), objective(student, teacher))
    assert objective(teacher + draw(2, 2, 5, 1, 1), teacher).abs() < 1e-10


def test_gradient_is_that_of_the_loss() -> None:
    student, teacher = draw(0, 2, 3, 2, 2).requires_grad_(), draw(1, 2, 3, 2, 2)
    target = torch.tensor([[[0, VOID], [0, 0]], [[VOID, VOID], [VOID, VOID]]])
    objective = ChannelWiseDistillation(2.0, ignore_index=VOID)
    assert torch.autograd.gradcheck(lambda x: objective(x, teacher, target), student)


def test_a_feature_is_taken_to_the_teachers_channels_and_the_smaller_size() -> None:
    torch.manual_seed(0)
    student, teacher = draw(0, 2, 3, 4, 4), draw(1, 2, 5, 2, 2)
    sides = [Outputs(torch.zeros(2, 10), {"@-1": feature}) for feature in (student, teacher)]
    objective = ChannelWiseFeatureDistillation(temperature=2.0)
    objective.prepare(sides[0], sides[1], 9)
    assert isinstance(objective.adapter, nn.Conv2d)
    kernel = objective.adapter.weight.detach().numpy()[:, :, 0, 0]
    adapted = np.einsum("dc,nchw->ndhw", kernel, student.numpy()).reshape(2, 5, 2, 2, 2, 2).mean((3, 5))
    pairs = zip(adapted.reshape(2, 5, 4), teacher.numpy().reshape(2, 5, 4), strict=True)
    found = means(objective.terms(sides[0], sides[1], None))[""]
    assert found.item() == pytest.approx(np.mean([expected(s, t, 2.0) for s, t in pairs]), rel=1e-9)


def test_equal_channels_need_no_adapter() -> None:
    feature = Outputs(torch.zeros(2, 10), {"@-1": draw(0, 2, 3, 4, 4)})
    objective = ChannelWiseFeatureDistillation()
    objective.prepare(feature, feature, 9)
    assert list(objective.parameters()) == []
    assert means(objective.terms(feature, feature, None))[""].abs() < 1e-12


def test_mistakes_are_named() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ObjectiveError, match=r"logits must be \[N, C, ...\], got \[2, 3\]"):
        ChannelWiseDistillation()(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ObjectiveError, match="target must have shape"):
        ChannelWiseDistillation(ignore_index=VOID)(maps, maps, torch.zeros(2, 8, 8, dtype=torch.int64))
    for kind in (ChannelWiseDistillation, ChannelWiseFeatureDistillation):
        with pytest.raises(ObjectiveError, match="temperature must be above 0"):
            kind(temperature=0.0)
