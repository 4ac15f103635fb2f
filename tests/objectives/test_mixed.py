"""Labels that mixup and cutmix mix: learned from beside ignore_index, or refused before the first batch."""

from __future__ import annotations

import pytest
import torch

import counterpoise
from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dkd import DecoupledDistillation
from counterpoise.objectives.mixed import check_mixed

STUDENT, TEACHER = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ALONE = torch.tensor([0, 4, -1, 2, -1, 1])


def probabilities(labels: torch.Tensor) -> torch.Tensor:
    """As the loader gives them where samples are mixed with themselves: rows of zeros where there is no label."""
    return torch.nn.functional.one_hot(labels.clamp(min=0), 5).float() * (labels >= 0)[:, None]


TAKE = [n for n, e in entries().items() if "ignore_index" in e.defaults and not {"features", "maps"} & e.kind.needs]


@pytest.mark.parametrize("ignore", [-1, 255])
@pytest.mark.parametrize("name", [name for name in TAKE if name not in ("binary_cross_entropy", "lovasz_hinge")])
def test_mixed_labels_count_as_the_labels_that_they_are_made_of(name: str, ignore: int) -> None:
    objective = entries()[name].kind(ignore_index=ignore)  # type: ignore[call-arg]
    objective.set_classifier(torch.eye(5) + 0.1)
    labels = ALONE.clamp(min=0) if name == "cross_entropy" and ignore == 255 else ALONE  # else no class at all
    mixed, plain = (objective(STUDENT, TEACHER, target) for target in (probabilities(labels), labels))
    torch.testing.assert_close(mixed, plain, check_dtype=False)


def test_a_class_cannot_be_ignored_among_mixed_labels() -> None:
    with pytest.raises(ObjectiveError, match="ignore_index 3 is a class"):
        BalanceDivergence(ignore_index=3)(STUDENT, TEACHER, probabilities(ALONE))
    labels = torch.tensor([0, 4, 2, 2, 3, 1])
    loss = DecoupledDistillation(ignore_index=2)  # looks at the largest class alone, and so can
    torch.testing.assert_close(loss(STUDENT, TEACHER, probabilities(labels)), loss(STUDENT, TEACHER, labels))


@pytest.mark.parametrize(
    ("term", "unlabeled", "message"),
    [
        (Term(objective="balance", ignore_index=3), False, "objective.term: ignore_index 3 is a class"),
        (Term(objective="cross_entropy", class_weight=[1.0] * 5), False, "class_weight needs a class for each sample"),
        (Term(objective="class_weighted", class_weight=[1.0] * 5), False, "class_weight needs a class for each sample"),
        (Term(objective="binary_cross_entropy"), True, "looks like one of no class"),
        (Term(objective="lovasz_hinge"), True, "looks like one of no class"),
        (Term(objective="dice", sigmoid=True), True, "looks like one of no class"),
    ],
)
def test_what_cannot_learn_from_mixed_labels_is_refused(term: Term, unlabeled: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_mixed(WeightedSum({"term": term}), 5, unlabeled)


def test_what_can_is_not_refused_and_stays_as_it_was() -> None:
    terms = {name: Term() for name in ("cross_entropy", "dkd", "dist", "binary_cross_entropy", "rkd", "cwd", "crd")}
    moving = Term(ignore_index=-1, rule="self_tuning", temperature_rule="per_sample")
    objective = WeightedSum({**terms, "balance": moving})
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    check_mixed(objective, 5, unlabeled=False)
    torch.testing.assert_close(objective.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in objective.modules())


def test_a_run_refuses_before_its_first_batch_and_leaves_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    values = {
        "data": {"source": "digits", "options": {"train_size": 100}, "views": {"mixup": 0.2}},
        "student": {"model": "digits/cnn_4_8"},
        "objective": {"cross_entropy": {"class_weight": [1.0] * 10}},
        "train": {"epochs": 1, "device": "cpu"},
        "out": str(tmp_path / "run"),
    }
    with pytest.raises(ConfigError, match=r"objective.cross_entropy: class_weight .* data.views.mixup"):
        counterpoise.train(values)
    assert not (tmp_path / "run").exists()
    values["objective"] = {"cross_entropy": {}}
    assert counterpoise.train(values).steps > 0
