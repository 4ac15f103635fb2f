"""Which terms of a run are computed together, and that their names and values stay what they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from counterpoise.config import Term
from counterpoise.objectives import composite
from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.kernels import blocks, fused_terms
from counterpoise.objectives.kernels.mixture import Mixture
from counterpoise.outputs import Outputs

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 9, 6, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 3, 4, 5, -1, -1, 0])
PROBABILITIES = torch.rand(9, 6, generator=GENERATOR)

# Terms, and how many are computed together beside labels and beside probabilities.
RUNS: dict[str, tuple[dict[str, Term], int, int]] = {
    "labels and balance": ({"cross_entropy": Term(weight=0.3), "balance": Term(weight=2)}, 3, 2),
    "single divergences": ({"forward_kl": Term(weight=2), "reverse_kl": Term(), "cross_entropy": Term()}, 3, 2),
    "two of a kind": ({"soft": Term(objective="forward_kl"), "forward_kl": Term(temperature=1)}, 1, 1),
    "balance and one more": ({"balance": Term(), "reverse_kl": Term(temperature=1), "cross_entropy": Term()}, 3, 2),
    "counted differently": ({"forward_kl": Term(ignore_index=-1), "reverse_kl": Term(), "cross_entropy": Term()}, 2, 0),
    "summed and averaged": ({"forward_kl": Term(reduction="sum"), "cross_entropy": Term()}, 1, 1),
    "a rule": ({"balance": Term(rule="entropy"), "cross_entropy": Term()}, 1, 0),
    "smoothed": ({"cross_entropy": Term(label_smoothing=0.1)}, 1, 0),
    "labels that none ignore": ({"cross_entropy": Term(ignore_index=None)}, 0, 0),
}


@pytest.fixture(scope="module", autouse=True)
def small_logits_too() -> Iterator[None]:
    """Fast forms at any size: else small logits are left to the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WORTHWHILE_FROM", 0)
        yield


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("target", [LABELS, PROBABILITIES], ids=["labels", "probabilities"])
@pytest.mark.parametrize("weight", [None, torch.arange(9.0)], ids=["alike", "weighted"])
def test_fused_terms_have_the_names_values_and_gradient_of_single_terms(
    name: str, target: Tensor, weight: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, *expected_sizes = RUNS[name]
    if name == "labels that none ignore":
        target = target.clamp(min=0)
    if name == "counted differently" and target.is_floating_point():
        return  # an ignore index beside probabilities is an error of the user's
    student = STUDENT.clone().requires_grad_()
    sizes = []
    plain = fused_terms.fused

    def spy(mixture: Mixture, *arguments: Tensor) -> tuple[Tensor, Tensor] | None:
        result = plain(mixture, *arguments)
        sizes.append(0 if result is None else mixture.size)
        return result

    monkeypatch.setattr(fused_terms, "fused", spy)
    fast = WeightedSum(terms)(Outputs(student), Outputs(TEACHER), target, weight)
    (gradient,) = torch.autograd.grad(fast.total, student)
    assert sum(sizes) == expected_sizes[target.is_floating_point()]

    monkeypatch.setattr(composite, "fuse", lambda *_: None)
    slow = WeightedSum(terms)(Outputs(student), Outputs(TEACHER), target, weight)
    (expected,) = torch.autograd.grad(slow.total, student)
    assert list(fast.parts) == list(slow.parts)
    torch.testing.assert_close(fast.parts, slow.parts)
    torch.testing.assert_close(fast.total, slow.total)
    torch.testing.assert_close(gradient, expected)


def test_a_subclass_that_computes_otherwise_is_not_mistaken_for_its_parent() -> None:
    class Doubled(BalanceDivergence):
        def values(self, *arguments: Tensor | None) -> dict[str, Tensor]:
            return {name: 2 * value for name, value in super().values(*arguments).items()}  # type: ignore[arg-type]

    torch.testing.assert_close(Doubled()(STUDENT, TEACHER), 2 * BalanceDivergence()(STUDENT, TEACHER))
    assert fused_terms.mixture_of(Doubled()) is None
