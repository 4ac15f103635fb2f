"""The self-tuning weight against gradients taken by autograd."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise import BalanceDivergence
from counterpoise.objectives.weighting.base import Side
from counterpoise.objectives.weighting.self_tuning import SelfTuning

seeds = st.integers(0, 2**31)
FORWARD, REVERSE = Side(1.0, 4.0), Side(1.0, 2.0)


def batch(seed: int, scale: float = 2.0, shape: tuple[int, ...] = (16, 12)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn((2, *shape), generator=generator, dtype=torch.float64) * scale
    return student, teacher * 2


def believed(teacher: Tensor, share: float = 0.9) -> Tensor:
    """The fewest classes of each row that hold `share`, one row after the other."""
    mask = torch.zeros_like(teacher, dtype=torch.bool)
    for row, p in enumerate(teacher.softmax(1)):
        mass = 0.0
        for c in p.argsort(descending=True):
            mask[row, c] = True
            mass += float(p[c])
            if mass >= share:
                break
    return mask


def proportions(student: Tensor, teacher: Tensor, forward: float, reverse: list[float]) -> Tensor:
    """Norm of the loss's gradient on ruled-out classes by that on believed ones, for each reverse weight."""
    student = student.clone().requires_grad_()
    parts = [
        torch.autograd.grad(BalanceDivergence(*weights)(student, teacher), student)[0]
        for weights in ((forward, 0.0), (0.0, 1.0))
    ]
    mask = believed(teacher)
    gradients = [parts[0] + weight * parts[1] for weight in reverse]
    return torch.stack([gradient[~mask].norm() / gradient[mask].norm() for gradient in gradients])


@given(seed=seeds, target=st.floats(0.2, 2.0), forward=st.floats(0.5, 4.0))
@settings(max_examples=40)
def test_the_gradient_is_kept_in_proportion_or_as_near_as_the_range_allows(
    seed: int, target: float, forward: float
) -> None:
    student, teacher = batch(seed)
    rule = SelfTuning(proportion=target, minimum=0.1, maximum=10.0, decay=0.0)
    _, weight = rule(student, teacher, Side(forward, 4.0), REVERSE)
    assert 0.1 <= float(weight) <= 10
    reached = float(proportions(student, teacher, forward, [float(weight)]))
    assert rule.logged() == pytest.approx({"reverse_weight": float(weight), "proportion": reached}, rel=1e-3)
    ratios = proportions(student, teacher, forward, torch.logspace(-1, 1, 200).tolist())
    if ratios.min() <= target <= ratios.max():
        assert reached == pytest.approx(target, rel=1e-3)
    else:
        distances = (ratios / target).log().abs()
        assert abs(torch.tensor(reached / target).log()) <= distances.min() + 1e-3


def test_of_two_weights_in_proportion_the_lesser_is_taken() -> None:
    rule = SelfTuning(decay=0.0)
    # |g| ruled out = |b - 1| + ..., believed = 1: squared norms (b - 3)^2 and 1 are in proportion at b = 2 and 4.
    weight = rule._solve(torch.tensor([1.0, -6.0, 9.0]), torch.tensor([0.0, 0.0, 1.0]), 0.1, 10.0)[0]
    assert float(weight) == pytest.approx(2.0)


def test_a_proportion_out_of_reach_ends_at_the_range_or_at_the_turn() -> None:
    rule, ends = SelfTuning(), (0.5, 3.0)
    one = torch.tensor([0.0, 0.0, 1.0])
    assert float(rule._solve(torch.tensor([0.0, 0.0, 1.0]) * 100 + torch.tensor([1.0, 0, 0]), one, *ends)[0]) == 0.5
    assert float(rule._solve(torch.tensor([0.01, 0.0, 0.0]), one, *ends)[0]) == 3.0
    # (b - 2)^2 + 4 is least, and nearest to 1, at b = 2.
    assert float(rule._solve(torch.tensor([1.0, -4.0, 8.0]), one, *ends)[0]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (torch.zeros(3, 1), torch.ones(3, 1)),  # one class: nothing is ruled out
        (torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 5)),  # all are believed in
        (torch.eye(4) * 5, torch.eye(4) * 5),  # no gradient at all
    ],
)
def test_where_the_groups_tell_nothing_the_given_weight_stays(student: Tensor, teacher: Tensor) -> None:
    rule = SelfTuning(belief=0.95)
    _, weight = rule(student, teacher, FORWARD, Side(3.0, 2.0))
    assert float(weight) == 3.0


def test_the_average_moves_in_training_alone_and_is_kept_in_the_state() -> None:
    first, second = batch(0), batch(1, scale=4.0)
    rule = SelfTuning(decay=0.5)
    alone = float(rule(*first, FORWARD, REVERSE)[1])
    both = float(rule(*second, FORWARD, REVERSE)[1])
    assert both != alone
    assert both != float(SelfTuning(decay=0.5)(*second, FORWARD, REVERSE)[1])
    again = SelfTuning(decay=0.5)
    again.load_state_dict(rule.state_dict())
    assert float(again.eval()(*first, FORWARD, REVERSE)[1]) == both
    assert float(rule(*first, FORWARD, REVERSE)[1]) == float(again.train()(*first, FORWARD, REVERSE)[1])
    assert float(rule.moments.filled) == 0.875


def test_the_size_of_a_batch_does_not_count() -> None:
    student, teacher = batch(3)
    small, large = SelfTuning(decay=0.9), SelfTuning(decay=0.9)
    for _ in range(3):
        small(student, teacher, FORWARD, REVERSE)
        large(student.repeat(4, 1), teacher.repeat(4, 1), FORWARD, REVERSE)
    torch.testing.assert_close(small.moments.values, large.moments.values)


def one_of_two(rank: int, meeting: Path, found: Connection) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    student, teacher = batch(0)
    mine = slice(0, 11) if rank == 0 else slice(11, 16)
    rule = SelfTuning()
    found.send(float(rule(student[mine], teacher[mine], FORWARD, REVERSE)[1]))
    dist.destroy_process_group()


def test_two_processes_find_the_weight_of_the_whole_batch(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")  # torch is imported already
    found = []
    children = []
    for rank in range(2):
        here, there = fork.Pipe(duplex=False)
        children.append(fork.Process(target=one_of_two, args=(rank, tmp_path / "meet", there)))
        children[-1].start()
        found.append(here)
    assert all(pipe.poll(60) for pipe in found)
    weights = [pipe.recv() for pipe in found]
    for child in children:
        child.join(30)
    whole = float(SelfTuning()(*batch(0), FORWARD, REVERSE)[1])
    assert weights == [pytest.approx(whole, rel=1e-4)] * 2
    assert weights[0] == weights[1]
    assert 0.1 < whole < 10


def test_the_weight_does_not_jump_from_end_to_end() -> None:
    rule = SelfTuning(proportion=1.0, decay=0.9)
    weights = [float(rule(*batch(seed, scale=scale), FORWARD, REVERSE)[1]) for seed in range(9) for scale in (0.1, 6.0)]
    steps = torch.tensor(weights).log().diff().abs()
    assert steps[5:].max() < 0.5
    assert steps.max() > 0
