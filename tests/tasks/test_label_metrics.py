"""Metrics of several labels are those of scikit-learn and torchmetrics, ties and unknown labels included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.tasks.label_metrics import auroc, average_precision, best_thresholds, curves


@pytest.fixture(params=["apart", "ties"])
def drawn(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Scores and labels, a third of which is unknown; label 3 is never there, label 4 always."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(120, 5, generator=generator)
    labels = torch.randint(-1, 2, (120, 5), generator=generator).to(torch.int8)
    labels[:, 3] = labels[:, 3].clamp(max=0)
    labels[:, 4] = 1
    return (scores * 3).round() / 3 if request.param == "ties" else scores, labels


def test_they_are_those_of_scikit_learn(drawn: tuple[Tensor, Tensor]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = drawn
    found = curves(scores, labels)
    chosen, best = best_thresholds(found)
    for label in range(3):
        known = (labels[:, label] >= 0).numpy()
        truth, given = labels[:, label].numpy()[known], scores[:, label].numpy()[known]
        assert average_precision(found)[label] == pytest.approx(metrics.average_precision_score(truth, given))
        assert auroc(found)[label] == pytest.approx(metrics.roc_auc_score(truth, given))
        every = [metrics.f1_score(truth, given >= threshold) for threshold in np.unique(given)]
        assert best[label] == pytest.approx(max(every))
        assert metrics.f1_score(truth, given >= chosen[label].item()) == pytest.approx(max(every))


def test_they_are_those_of_torchmetrics(drawn: tuple[Tensor, Tensor]) -> None:
    from counterpoise.system import torchvision_guard

    torchvision_guard.ready()
    from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

    scores, labels = drawn[0][:, :3], drawn[1][:, :3]
    found, asked = curves(scores, labels), (scores.sigmoid(), labels.long(), 3)
    precision = multilabel_average_precision(*asked, average="none", ignore_index=-1)
    torch.testing.assert_close(average_precision(found).float(), precision)
    torch.testing.assert_close(auroc(found).float(), multilabel_auroc(*asked, average="none", ignore_index=-1))


def test_a_label_that_is_never_there_or_always_has_no_score_of_its_own(drawn: tuple[Tensor, Tensor]) -> None:
    found = curves(*drawn)
    assert average_precision(found)[3].isnan()
    assert best_thresholds(found)[0][3].isnan()
    assert auroc(found)[3:].isnan().all()
    assert average_precision(found)[4] == 1
