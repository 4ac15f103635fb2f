"""Cross-entropy with weights of classes, against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.cross_entropy import CrossEntropy
from counterpoise.outputs import Outputs

WEIGHTS = [0.5, 1.0, 0.0, 3.0]


def sample(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, *shape, generator=generator)
    target = torch.randint(0, 4, (6, *shape), generator=generator)
    target[1] = 255
    return logits, target


@pytest.mark.parametrize("shape", [(), (3, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weight_is_that_of_torch(shape: tuple[int, ...], smoothing: float) -> None:
    logits, target = sample(*shape)
    weights = torch.tensor(WEIGHTS)
    for reduction in ("mean", "sum", "none"):
        mine = CrossEntropy(ignore_index=255, class_weight=WEIGHTS, reduction=reduction)(logits, None, target)
        torch.testing.assert_close(
            mine, F.cross_entropy(logits, target, weight=weights, ignore_index=255, reduction=reduction)
        )
    # Of a smoothed target the position counts by the class that it is of.
    loss = CrossEntropy(smoothing, 255, WEIGHTS)
    values = CrossEntropy(smoothing, 255, reduction="none")(logits, None, target)
    by_class = weights[target.clamp(max=3)] * (target != 255)
    torch.testing.assert_close(loss(logits, None, target), (values * by_class).sum() / by_class.sum())
    torch.testing.assert_close(means(loss.terms(Outputs(logits), None, target))[""], loss(logits, None, target))


def test_weights_of_samples_and_of_classes_are_multiplied() -> None:
    logits, target = sample(2, 2)
    weight = torch.tensor([1.0, 1.0, 0.0, 2.0, 0.5, 1.0])
    by_class = torch.tensor(WEIGHTS)[target.clamp(max=3)] * (target != 255) * weight.view(6, 1, 1)
    values = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    loss = CrossEntropy(ignore_index=255, class_weight=WEIGHTS)
    expected = (values * by_class).sum() / by_class.sum()
    torch.testing.assert_close(loss(logits, None, target, weight), expected)
    torch.testing.assert_close(loss(logits, None, target, weight.view(6, 1, 1).expand(6, 2, 2)), expected)


def test_positions_of_weight_zero_alone_are_worth_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = CrossEntropy(class_weight=WEIGHTS)(logits, None, torch.tensor([2, -1, 2]))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("weights", [WEIGHTS, [1, 1, 1, 1]])
def test_within_a_sum_that_has_a_fast_form_it_keeps_its_weights(weights: list[float]) -> None:
    logits, target = sample(3, 5)
    teacher = logits.roll(1, 0)
    terms = {"cross_entropy": Term(class_weight=weights, ignore_index=255, weight=0.5), "balance": Term(weight=2)}  # type: ignore[call-arg]
    total, parts = WeightedSum(terms)(Outputs(logits), Outputs(teacher), target)
    expected = F.cross_entropy(logits, target, weight=torch.tensor(weights).float(), ignore_index=255)
    torch.testing.assert_close(parts["cross_entropy"], 0.5 * expected)
    torch.testing.assert_close(total, sum(parts.values(), start=torch.tensor(0.0)))


@pytest.mark.parametrize("weights", [[1.0, -1.0], [float("inf")], "frequency", [float("nan")], ["heavy", 1.0], 3.0])
def test_class_weight_must_be_numbers(weights: object) -> None:
    with pytest.raises(ObjectiveError, match="class_weight must be numbers from 0 on, one a class"):
        CrossEntropy(class_weight=weights)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"objective\.cross_entropy: class_weight must be numbers from 0 on"):
        WeightedSum({"cross_entropy": Term(class_weight=weights)})  # type: ignore[call-arg]


def test_class_weight_must_fit_the_logits_and_a_target_of_classes() -> None:
    logits, target = sample()
    with pytest.raises(ObjectiveError, match="class_weight has 3 numbers, and the logits 4 classes"):
        CrossEntropy(ignore_index=255, class_weight=[1, 2, 3])(logits, None, target)
    mixed = torch.full((6, 4), 0.25)
    loss = CrossEntropy(class_weight=WEIGHTS)
    for call in (lambda: loss(logits, None, mixed), lambda: means(loss.terms(Outputs(logits), None, mixed))):
        with pytest.raises(ObjectiveError, match="class_weight needs a class for each sample"):
            call()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_leaves_something_of_the_label(smoothing: float) -> None:
    with pytest.raises(ObjectiveError, match=r"label_smoothing must be in \[0, 1\)"):
        CrossEntropy(label_smoothing=smoothing)


def test_rows_of_zeros_among_probabilities_have_no_label_whatever_index_is_ignored() -> None:
    logits, _ = sample()
    probabilities = torch.softmax(logits.flip(0), 1).double()
    probabilities[2] = 0.0
    labeled = torch.arange(6) != 2
    expected = F.cross_entropy(logits[labeled], probabilities[labeled].float())
    for ignore_index in (-100, 255):
        torch.testing.assert_close(CrossEntropy(ignore_index=ignore_index)(logits, None, probabilities), expected)


PRIOR = [0.6, 0.3, 0.09, 0.01]


@pytest.mark.parametrize("shape", [(), (3, 5)])
@pytest.mark.parametrize("adjustment", [0.0, 1.0, 1.5])
def test_logits_are_adjusted_by_the_prior(shape: tuple[int, ...], adjustment: float) -> None:
    logits, target = sample(*shape)
    by_class = torch.tensor(PRIOR).log().view(1, 4, *(1,) * len(shape))
    expected = F.cross_entropy(logits + adjustment * by_class, target, ignore_index=255)
    loss = CrossEntropy(ignore_index=255, class_prior=PRIOR, adjustment=adjustment)
    torch.testing.assert_close(loss(logits, None, target), expected)
    counts = [60, 30, 9, 1]  # only their proportions count
    other = CrossEntropy(ignore_index=255, class_prior=counts, adjustment=adjustment)
    torch.testing.assert_close(other(logits, None, target), expected)
    plain = CrossEntropy(ignore_index=255)(logits, None, target)
    assert (adjustment == 0) == bool(torch.isclose(plain, expected))
    # In a run, where plain cross-entropy goes through the fast form with its neighbors.
    terms = {"cross_entropy": Term(ignore_index=255, class_prior=PRIOR, adjustment=adjustment), "balance": Term()}
    parts = WeightedSum(terms)(Outputs(logits), Outputs(logits), target).parts
    torch.testing.assert_close(parts["cross_entropy"], expected)


def test_what_the_adjusted_loss_is_least_at_is_the_posterior_of_classes_that_are_alike() -> None:
    """Labels drawn by the prior at a point that tells nothing: the student's own logits become all alike."""
    target = torch.arange(4).repeat_interleave(torch.tensor([60, 30, 9, 1]))
    logits = torch.zeros(4, requires_grad=True)
    loss = CrossEntropy(class_prior=PRIOR)(logits.expand(100, 4), None, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros(4))


@pytest.mark.parametrize("prior", [[0.5, 0.5, 0.0, 0.0], [1.0, -1.0], [], "frequently", [True, 1.0, 1.0, 1.0]])
def test_priors_that_mean_nothing_are_refused(prior: object) -> None:
    with pytest.raises(ConfigError, match="class_prior must be numbers above 0, one a class, or in a run file"):
        WeightedSum({"cross_entropy": Term.model_validate({"class_prior": prior})})


def test_a_prior_for_other_classes_is_refused() -> None:
    logits, target = sample()
    with pytest.raises(ObjectiveError, match="class_prior has 3 numbers, and the logits 4 classes"):
        CrossEntropy(class_prior=[1, 2, 3], ignore_index=255)(logits, None, target)


def test_the_prior_is_not_kept_in_checkpoints_nor_does_it_leave_the_softmax_of_mixed_labels() -> None:
    loss = CrossEntropy(class_prior=PRIOR)
    assert not loss.state_dict()
    logits, _ = sample()
    mixed = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    expected = F.cross_entropy(logits + torch.tensor(PRIOR).log(), mixed)
    torch.testing.assert_close(loss(logits, None, mixed), expected)


def test_labels_that_are_no_class_are_told() -> None:
    logits = torch.zeros(2, 4)
    for labels, options, said in (
        ([0, 4], {}, "label 4 is beyond the 4 classes"),
        ([0, -1], {"ignore_index": 255}, "label -1 is below 0"),
        ([0, -100], {"ignore_index": None}, "label -100 is below 0"),
        ([[0], [1]], {}, r"target must have shape \[2\], got \[2, 1\]"),
    ):
        with pytest.raises(ObjectiveError, match=said):
            CrossEntropy(**options)(logits, None, torch.tensor(labels))  # type: ignore[arg-type]
    narrow = torch.tensor([0, 255], dtype=torch.uint8)
    assert CrossEntropy(ignore_index=255)(logits, None, narrow) == pytest.approx(math.log(4))
    assert CrossEntropy()(logits, None, torch.tensor([0, 3], dtype=torch.int32)) == pytest.approx(math.log(4))
