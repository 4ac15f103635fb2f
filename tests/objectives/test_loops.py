"""The losses in loops of others: compiled as a whole, and with what lies on unlike devices refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise import BalanceDivergence, balance_divergence
from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.cross_entropy import CrossEntropy
from counterpoise.objectives.dense import DenseSum
from counterpoise.outputs import Outputs

ALIKE = torch.eye(5).add(0.5).clamp(max=1.0).tolist()
KINDS: dict[str, Any] = {
    name: partial(entry.kind, likeness=ALIKE) if "likeness" in entry.defaults else entry.kind
    for name, entry in entries().items()
    if "features" not in entry.kind.needs
}
RULES = ("entropy", "head_tail", "class_ratio", "self_tuning")
LOSSES: dict[str, Callable[..., Any]] = {
    **KINDS,
    **{f"balance by {rule}": lambda rule=rule: BalanceDivergence(rule=rule) for rule in RULES},
    "balance per sample": lambda: BalanceDivergence(temperature_rule="per_sample"),
    "balance, ignoring": lambda: BalanceDivergence(ignore_index=2),
    "weighted labels": lambda: CrossEntropy(0.1, class_weight=[1.0, 2.0, 3.0, 4.0, 5.0]),
    "adjusted labels": lambda: CrossEntropy(class_prior=[1.0, 2.0, 3.0, 4.0, 5.0]),
    "the function": lambda: balance_divergence,
}


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "boundary"])  # whose distances are scipy's
def test_a_compiled_loop_takes_the_loss_in_whole(name: str) -> None:
    maps = name in KINDS and "maps" in entries()[name].kind.needs
    shape = (4, 5, 3, 2) if maps else (4, 5)
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    target = torch.arange(4 * 6).remainder(5).view(4, 3, 2) if maps else torch.tensor([0, 1, 2, 3])
    # Capturing is what fails where it does; what is made of the graph does not matter here.
    capture = torch.compile(lambda loss, *given: loss(*given), fullgraph=True, backend="eager")
    torch.compiler.reset()
    for out in (False, True):
        if out:
            teacher[0, 4], student[1, 4] = -torch.inf, -torch.inf
        found = []
        for call in (capture, lambda loss, *given: loss(*given)):
            leaf = student.clone().requires_grad_()
            total = call(LOSSES[name](), leaf, teacher, target)
            (gradient,) = torch.autograd.grad(total, leaf)
            found.append((total.detach(), gradient))
        torch.testing.assert_close(found[0], found[1])


def refused(loss: Callable[..., Any], *given: Any) -> str:
    with pytest.raises(ObjectiveError) as error:
        loss(*given)
    return str(error.value)


@pytest.mark.parametrize("name", KINDS)
def test_sides_on_unlike_devices_are_refused_in_words(name: str) -> None:
    shape = (4, 5, 2, 2) if name == "cwd" else (4, 5)
    here, there = torch.zeros(shape), torch.zeros(shape, device="meta")
    target = torch.zeros(4, *shape[2:], dtype=torch.int64)
    needs = entries()[name].kind.needs
    if "teacher" in needs:
        assert "student logits are on cpu and teacher logits on meta" in refused(KINDS[name](), here, there, target)
    if "labels" in needs:
        assert "student logits are on cpu and target on meta" in refused(KINDS[name](), here, here, target.to("meta"))


def test_weights_and_what_is_fused_are_refused_likewise() -> None:
    logits, weight = torch.zeros(4, 5), torch.ones(4, device="meta")
    assert "weight on meta" in refused(BalanceDivergence(), logits, logits, None, weight)
    assert "teacher logits on meta" in refused(balance_divergence, logits, logits.to("meta"))
    ignored = torch.zeros(4, dtype=torch.int64, device="meta")
    assert "target on meta" in refused(BalanceDivergence(ignore_index=1), logits, logits, ignored)
    terms = {"balance": Term()}
    both = Outputs(logits), Outputs(logits.to("meta"))
    assert "teacher logits on meta" in refused(WeightedSum(terms), *both, torch.zeros(4, dtype=torch.int64))
    maps: Tensor = torch.zeros(2, 5, 2, 2)
    masks = torch.zeros(2, 4, 4, dtype=torch.int64)
    assert "teacher logits on meta" in refused(DenseSum(terms), Outputs(maps), Outputs(maps.to("meta")), masks)


def test_features_on_unlike_devices_are_refused_likewise() -> None:
    feature = {"@-1": torch.zeros(2, 3, 4, 4)}
    there = {"@-1": torch.zeros(2, 3, 4, 4, device="meta")}
    skd = entries()["skd"].kind()
    logits = torch.zeros(2, 5)
    said = refused(skd.terms, Outputs(logits, feature), Outputs(logits, there), None)
    assert "student features are on cpu and the teacher's on meta" in said
