from __future__ import annotations

import pytest
import torch

from counterpoise.errors import ConfigError
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.confident import leave_out, left_out
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs


def batch() -> tuple[Outputs, Outputs, torch.Tensor]:
    """Six samples, of which the teacher is sure of the first four."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 3, generator=generator, requires_grad=True)
    teacher = torch.tensor([[4.0, 0, 0]] * 4 + [[0.1, 0, 0]] * 2)
    return Outputs(student), Outputs(teacher), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("kind", ["forward_kl", "balance", "dkd"])
def test_views_of_which_the_teacher_is_not_sure_give_nothing_and_the_others_what_they_gave(kind: str) -> None:
    student, teacher, target = batch()
    plain, objective = (WeightedSum({kind: {"weight": 2.0}, "cross_entropy": {}}) for _ in range(2))
    leave_out(objective, 0.5)
    total, parts = objective(student, teacher, target)
    total.backward()
    few = Outputs(student.logits[:4]), Outputs(teacher.logits[:4]), target[:4]
    for name, value in plain(*few).parts.items():
        if name.startswith(kind):
            torch.testing.assert_close(parts[name], value * 4 / 6)
    torch.testing.assert_close(parts["cross_entropy"], plain(student, teacher, target).parts["cross_entropy"])
    assert student.logits.grad is not None
    own, both = (
        torch.autograd.grad(plain(student, teacher, target).parts["cross_entropy"], student.logits)[0],
        student.logits.grad,
    )
    torch.testing.assert_close(both[4:], own[4:])
    assert left_out(objective) == (6, 2)
    assert objective.moving()[f"{kind}.unsure"] == pytest.approx(1 / 3)


def test_a_batch_in_parts_gives_what_it_gives_whole_and_counts_each_view_once() -> None:
    student, teacher, target = batch()
    whole, parted = (WeightedSum({"balance": {}}) for _ in range(2))
    for objective in (whole, parted):
        leave_out(objective, 0.5)
    pieces = [slice(0, 3), slice(3, 6)]
    plan = InParts([target[pieces[1]]])
    totals = [
        parted(Outputs(student.logits[rows]), Outputs(teacher.logits[rows]), target[rows], batch=plan).total
        for rows in pieces
    ]
    torch.testing.assert_close(sum(totals), whole(student, teacher, target).total)
    assert left_out(parted) == left_out(whole) == (6, 2)


def test_terms_that_are_no_mean_over_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective.dist is no mean over them"):
        leave_out(WeightedSum({"dist": {}}), 0.5)
