"""Whether a teacher is any better than its student, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from counterpoise import tasks
from counterpoise.engine.beside import Beside
from counterpoise.engine.gauging import EvaluationGauge
from counterpoise.engine.processes import Processes
from counterpoise.tasks import paired

ALONE = Processes(0, 1, torch.device("cpu"))


def answers(truth: Tensor, share: float, seed: int) -> Tensor:
    """Logits of 5 classes that are right in this share of the places."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(truth.shape, generator=generator) < share
    said = torch.where(right, truth, (truth + 1) % 5)
    return 4.0 * torch.nn.functional.one_hot(said, 5).movedim(-1, 1).float()


def counted(kind: str, shares: tuple[float, float], images: int = 400, seeds: tuple[int, int] = (1, 2)) -> Beside:
    task = tasks.get(kind)
    places = (images, 6, 6) if kind == "segmentation" else (images,)
    truth = torch.randint(0, 5, places, generator=torch.Generator().manual_seed(0))
    target = torch.nn.functional.one_hot(truth, 5) if kind == "multilabel" else truth
    teacher, student = (answers(truth, share, seed) for seed, share in zip(seeds, shares, strict=True))
    gauge = EvaluationGauge(images, 5, task, ALONE)
    gauge.remember(teacher)
    beside = Beside(gauge, task, 5)
    for first in range(0, images, 64):
        beside.update(student[first : first + 64], target[first : first + 64])
    beside.gather(ALONE)
    return beside


@pytest.mark.parametrize("kind", ["classification", "segmentation", "multilabel"])
def test_a_teacher_is_said_to_be_hardly_better_or_worse_where_it_is(kind: str) -> None:
    assert counted(kind, (0.9, 0.7)).remark() is None
    worse = counted(kind, (0.6, 0.8)).remark()
    assert worse is not None
    assert worse.startswith("The teacher is worse than its student: ")
    assert f"{tasks.get(kind).headline} " in worse
    alike = counted(kind, (0.8, 0.8)).remark()
    assert alike is not None
    assert alike.startswith("The teacher is hardly better than its student: ")
    assert "on 400 val images" in alike


def test_a_lead_that_images_drawn_again_have_too_is_no_small_one() -> None:
    assert counted("classification", (0.81, 0.80), seeds=(1, 1)).remark() is None  # the teacher is right wherever it is


def test_of_many_images_some_are_compared_and_of_none_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterpoise.engine.beside.MOST_IMAGES", 100)
    found = counted("classification", (0.7, 0.8), images=401)
    assert "on 81 val images" in str(found.remark())  # every fifth
    task = tasks.get("classification")
    for gauge in (None, EvaluationGauge(10, 5, task, ALONE)):
        beside = Beside(gauge, task, 5)
        beside.update(torch.zeros(10, 5), torch.zeros(10, dtype=torch.int64))
        beside.gather(ALONE)
        assert beside.remark() is None


def test_states_of_single_images_are_those_of_one_after_the_other() -> None:
    task = tasks.get("classification")
    logits, target = torch.randn(30, 7), torch.randint(-1, 7, (30,))
    together = paired.states(task, 7, logits, target)
    for row, state in enumerate(together):
        score = task.score(7)
        score.update(logits[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(score.state, state)
    score = task.score(7)
    score.update(logits, target)
    assert paired.metric(task, 7, together) == pytest.approx(score.values()["top1"])
