"""AKL against the paper's formula in numpy float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise import BalanceDivergence
from counterpoise.objectives.weighting.base import Side
from counterpoise.objectives.weighting.head_tail import HeadTail


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


@given(seed=st.integers(0, 2**31), head=st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_value_is_the_papers_formula(seed: int, head: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 4, 9)) * 2
    expected = []
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax(t), softmax(s)
        mass, in_head = 0.0, np.zeros(9, dtype=bool)
        for rank, c in enumerate(np.argsort(-p)):
            mass += p[c]
            in_head[c] = rank == 0 or mass <= head
        gaps = np.abs(p - q)
        share = gaps[in_head].sum() / gaps.sum()
        expected.append(share * (p * np.log(p / q)).sum() + (1 - share) * (q * np.log(q / p)).sum())
    objective = BalanceDivergence(1, 1, 1, 1, rule="head_tail", rule_arguments={"head": head}, reduction="none")
    loss = objective(torch.from_numpy(student), torch.from_numpy(teacher))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("student", "forward"),
    [
        ([0.3, 0.2, 0.25, 0.25], 0.5),  # what the head lacks, the tail has too much of
        ([0.7, 0.2, 0.05, 0.05], 0.5),  # no gap at all
        ([0.6, 0.1, 0.25, 0.05], 0.25),  # three quarters of the gap in the tail
    ],
)
def test_forward_counts_by_the_share_of_the_gap_in_the_head(student: list[float], forward: float) -> None:
    teacher = torch.tensor([[0.7, 0.2, 0.05, 0.05]]).log()
    weights = HeadTail()(torch.tensor([student]).log(), teacher, Side(1.0, 4.0), Side(1.0, 4.0))
    assert float(weights[0]) == pytest.approx(forward, abs=1e-4)
    assert float(weights[1]) == pytest.approx(1 - forward, abs=1e-4)
