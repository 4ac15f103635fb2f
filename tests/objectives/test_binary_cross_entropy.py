"""Cross-entropy by sigmoids, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.binary_cross_entropy import BinaryCrossEntropy
from counterpoise.outputs import Outputs


def draw(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_classes_are_questions_of_their_own() -> None:
    logits, target = draw(0, 4, 3, 2, 5), torch.randint(0, 3, (4, 2, 5), generator=torch.Generator().manual_seed(1))
    truth = F.one_hot(target, 3).movedim(-1, 1).float()
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1)
    for given in (target, truth):
        torch.testing.assert_close(BinaryCrossEntropy(reduction="none")(logits, None, given), expected)
        torch.testing.assert_close(BinaryCrossEntropy()(logits, None, given), expected.mean())
        torch.testing.assert_close(BinaryCrossEntropy(reduction="sum")(logits, None, given), expected.sum())
        torch.testing.assert_close(means(BinaryCrossEntropy().terms(Outputs(logits), None, given))[""], expected.mean())


def test_one_logit_is_a_softmax_over_it_and_zero() -> None:
    logits, target = draw(0, 3, 1, 4, 4), torch.randint(0, 2, (3, 4, 4), generator=torch.Generator().manual_seed(1))
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(BinaryCrossEntropy()(logits, None, target), F.cross_entropy(pair, target))
    with pytest.raises(ObjectiveError, match="label 2 is beyond"):
        BinaryCrossEntropy()(logits, None, target + 1)


def test_several_labels_at_once_and_none() -> None:
    logits = draw(0, 2, 3).requires_grad_()
    truth = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    loss = BinaryCrossEntropy(reduction="sum")(logits, None, truth)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, truth, reduction="sum"))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, (logits.sigmoid() - truth).detach())


@pytest.mark.parametrize("classes", [1, 3])
def test_void_is_not_counted(classes: int) -> None:
    logits = draw(0, 2, classes, 3).requires_grad_()
    target = torch.tensor([[0, 255, 1], [255, 255, 255]])
    loss = BinaryCrossEntropy(ignore_index=255)(logits, None, target)
    kept = logits[0][:, [0, 2]].T
    torch.testing.assert_close(loss, BinaryCrossEntropy()(kept, None, torch.tensor([0, 1])))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1] == 0).all()
    assert BinaryCrossEntropy(ignore_index=255)(logits, None, torch.full_like(target, 255)) == 0


def test_weights_of_samples() -> None:
    logits, weight = draw(0, 3, 2), torch.tensor([1.0, 0.0, 3.0])
    for target in (torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 1.0]])):
        values = BinaryCrossEntropy(reduction="none")(logits, None, target)
        expected = (values[0] + 3 * values[2]) / 4
        torch.testing.assert_close(BinaryCrossEntropy()(logits, None, target, weight), expected)


def test_half_precision_and_large_logits_are_finite() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        logits = torch.tensor([[6e4, -6e4]], dtype=dtype)
        for target in (torch.tensor([1]), torch.tensor([[0.0, 1.0]], dtype=dtype)):
            loss = BinaryCrossEntropy()(logits, None, target)
            assert loss.dtype == torch.float32
            assert loss == pytest.approx(1.2e5, rel=0.01)


def test_what_does_not_fit_is_refused() -> None:
    logits = draw(0, 2, 3, 4)
    for target, message in (
        (None, "needs a target, got none"),
        (torch.zeros(2, 3), r"a target of floats must have the logits' shape \[2, 3, 4\], got \[2, 3\]"),
        (torch.zeros(2, dtype=torch.int64), r"target must have shape \[2, 4\], got \[2\]"),
        (torch.full((2, 4), 3), "label 3 is beyond the 3 classes"),
        (torch.full((2, 4), -7), "label -7 is below 0"),
        (torch.full((2, 3, 4), 1.5), "a target of floats must be 0 to 1, or -1 where unknown, got 1.5"),
    ):
        with pytest.raises(ObjectiveError, match=message):
            BinaryCrossEntropy()(logits, None, target)
