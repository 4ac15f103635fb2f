"""Scores of questions, pixel by pixel, against counting pixels one by one and against exact curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.deploy import runner
from counterpoise.errors import DataError
from counterpoise.tasks.confusion import upsample
from counterpoise.tasks.label_metrics import auroc, average_precision, curves
from counterpoise.tasks.question_cases import CaseQuestionScore
from counterpoise.tasks.question_metrics import QuestionReport, QuestionScore, histogram
from counterpoise.tasks.scores.questions import answered
from counterpoise.tasks.scores.surfaces import outline

QUESTIONS = ("vessel", "disc", "nowhere")


def draw(seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    """Logits [N, 3, 5, 6] that know something, and answers [N, 3, 10, 12], some unknown, the third never a yes."""
    generator = torch.Generator().manual_seed(seed)
    answers = (torch.rand(images, 3, 10, 12, generator=generator) < 0.3).to(torch.int8)
    answers[:, 2] = 0
    logits = torch.randn(images, 3, 5, 6, generator=generator)
    logits += 2 * torch.nn.functional.avg_pool2d(answers.float(), 2)
    answers[:, :, 0] = -1
    answers[0, 1, :5] = -1
    return 2 * logits - 1, answers


def flat(logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(each.movedim(1, -1).reshape(-1, 3) for each in (upsample(logits, (10, 12)), answers))  # type: ignore[return-value]


def test_means_are_those_of_exact_curves_to_the_width_of_a_bin() -> None:
    logits, answers = draw(0)
    score = QuestionScore(3)
    score.update(logits, answers)
    exact = curves(*flat(logits, answers))
    assert score.values()["map"] == pytest.approx(100 * average_precision(exact).nanmean().item(), abs=0.3)
    report = QuestionReport(QUESTIONS)
    report.update(logits, answers)
    rows = report.values()["per_class"]
    for row, precision, area in zip(rows, average_precision(exact), auroc(exact), strict=True):
        if row["class"] == "nowhere":
            assert row["average_precision"] is row["dice"] is row["auroc"] is None or row["precision"] == 0
            continue
        assert row["average_precision"] == pytest.approx(100 * precision.item(), abs=0.5)
        assert row["auroc"] == pytest.approx(100 * area.item(), abs=0.2)


def test_batches_and_processes_add_up() -> None:
    logits, answers = draw(1)
    whole = histogram(logits, answers)
    parts = [histogram(logits[part], answers[part]) for part in (slice(0, 1), slice(1, None))]
    assert torch.equal(parts[0] + parts[1], whole)
    assert whole.sum() == (answers >= 0).sum()


def test_thresholds_have_the_highest_dice_and_what_is_never_there_keeps_one_half() -> None:
    logits, answers = draw(2)
    score = QuestionScore(3)
    score.update(logits, answers)
    chosen = score.thresholds()
    assert chosen[2] == 0.5

    def dice(thresholds: list[float]) -> float:
        report = QuestionReport(QUESTIONS, thresholds)
        report.update(logits, answers)
        found: float = report.values()["dice"]
        return found

    best = dice(chosen)
    assert best == pytest.approx(score.values()["max_dice"], abs=1e-9)
    assert all(dice([share] * 3) <= best + 0.2 for share in (0.1, 0.3, 0.5, 0.7, 0.9))


def test_overlaps_are_those_one_counts() -> None:
    logits = torch.tensor([[3.0, 3.0, -3.0, -3.0]]).view(1, 1, 1, 4)
    answers = torch.tensor([1, 0, 1, -1], dtype=torch.int8).view(1, 1, 1, 4)
    report = QuestionReport(["vessel"])
    report.update(logits, answers)
    (row,) = report.values()["per_class"]
    assert (row["dice"], row["precision"], row["recall"]) == (50.0, 50.0, 50.0)
    assert row["iou"] == pytest.approx(100 / 3)
    assert (row["pixels"], row["of"]) == (2, 3)


def test_each_picture_is_scored_by_itself_with_distances_and_ranking_by_question() -> None:
    logits, answers = draw(3)
    report = QuestionReport(QUESTIONS, [0.4, 0.6, 0.5], None, ["hd95", "auroc", "object_f1"])
    report.update(logits, answers)
    values = report.values()
    assert len(values["cases"]) == 3
    for number, case in enumerate(values["cases"]):
        alone = QuestionReport(QUESTIONS, [0.4, 0.6, 0.5])
        alone.update(logits[number : number + 1], answers[number : number + 1])
        for row in alone.values()["per_class"]:
            assert case["scores"]["dice"][row["class"]] == pytest.approx(row["dice"], nan_ok=True)
            if row["auroc"] is not None:
                assert case["scores"]["auroc"][row["class"]] == pytest.approx(row["auroc"], abs=0.3)
        yes = upsample(logits[number : number + 1], (10, 12))[0, 0].sigmoid() >= 0.4
        known = answers[number, 0] >= 0
        counts = hausdorff((answers[number, 0] > 0).numpy(), (yes & known).numpy())
        assert case["scores"]["hd95"]["vessel"] == pytest.approx(counts)
    pooled = {row["score"]: row["pooled"] for row in values["by_case"]["per_class"] if row["class"] == "disc"}
    disc = values["per_class"][1]
    assert pooled["dice"] == pytest.approx(disc["dice"])
    assert pooled["recall"] == pytest.approx(disc["recall"])


def hausdorff(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> float:
    """The larger of both 95th percentiles of distances between outlines, by all pairs."""
    edges = [np.argwhere(outline(mask)) for mask in (truth, answer)]
    apart = np.sqrt(((edges[0][:, None] - edges[1][None]) ** 2).sum(2))
    return float(max(np.percentile(apart.min(0), 95), np.percentile(apart.min(1), 95)))


def test_nothing_and_what_does_not_fit_are_said() -> None:
    assert QuestionScore(2).values() == {}
    assert QuestionScore(2).thresholds() == [0.5, 0.5]
    assert QuestionReport(["a"]).values() == {"images": 0}
    report = QuestionReport(["a"])
    report.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int8))
    with pytest.raises(DataError, match="No pixel in the masks is a yes of a"):
        report.values()
    with pytest.raises(DataError, match=r"Answers must be \[1, 2, H, W\]"):
        QuestionScore(2).update(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int8))


def test_answers_that_know_nothing_and_those_that_are_probabilities_are_told() -> None:
    generator = torch.Generator().manual_seed(4)
    answers = (torch.rand(40, 1, 50, 50, generator=generator) < 0.3).to(torch.int8)
    blind = torch.randn(40, 1, 50, 50, generator=generator)
    for logits, kind, soft in (
        (blind, "chance", False),
        (blind + 2 * answers, "useful", False),
        ((blind + 2 * answers).mul(4).sigmoid(), "useful", True),
        ((blind + 2 * answers).clamp(-3, 3) / 20 + 0.5, "useful", False),
    ):
        score = QuestionScore(1)
        score.update(logits, answers)
        found = score.verdict()
        assert (found.kind, found.soft) == (kind, soft)
    assert QuestionScore(1).verdict().kind == "unknown"


def two_questions() -> tuple[Tensor, Tensor]:
    """Two pictures: the first question is answered rather well, no pixel is answered by yes to the second."""
    answers = torch.zeros(2, 2, 8, 8, dtype=torch.int8)
    answers[:, 0, :4], answers[:, 1, :2] = 1, 1
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + 4 * answers - 2
    logits[:, 1] = -9
    return logits, answers


def test_a_question_that_no_pixel_is_a_yes_of_is_in_no_mean_of_what_is_pooled() -> None:
    logits, answers = two_questions()
    answers[:, 1], logits[:, 1] = 0, 9  # never there, and answered everywhere
    report = QuestionReport(["a", "b"])
    report.update(logits, answers)
    values = report.values()
    by_case = {row["score"]: row for row in values["by_case"]["scores"]}
    own = {row["class"]: row for row in values["per_class"]}
    for name in ("dice", "iou", "precision", "recall"):
        assert values[name] == by_case[name]["pooled"] == pytest.approx(own["a"][name])
    of_cases = [np.mean([case["scores"]["dice"][name] for name in "ab"]) for case in values["cases"]]
    assert by_case["dice"]["mean"] == pytest.approx(np.mean(of_cases))  # in each of them the answer to b is the worst
    quick = CaseQuestionScore(["a", "b"], None, ["dice"])
    quick.update(logits, answers)
    assert quick.values()["dice"] == pytest.approx(quick.values()["max_dice"])


def test_the_mean_precision_is_of_the_questions_that_are_ever_answered_by_yes() -> None:
    report = QuestionReport(["a", "b"])
    report.update(*two_questions())
    values = report.values()
    first, second = values["per_class"]
    assert (second["precision"], second["recall"]) == (None, 0)
    assert values["precision"] == pytest.approx(first["precision"])
    assert values["recall"] == pytest.approx(first["recall"] / 2)


def test_each_logit_from_the_edge_of_a_threshold_on_is_a_yes_here_and_beside_exports() -> None:
    edges = torch.arange(-1023, 1024) / 64
    thresholds = edges.double().sigmoid().tolist()
    below = edges.nextafter(torch.tensor(-torch.inf))
    about = {"thresholds": thresholds, "classes": [*map(str, edges.tolist())]}
    for logits, yes in ((edges, True), (below, False)):
        counted = histogram(logits.view(-1, 1, 1, 1), torch.ones(2047, 1, 1, 1, dtype=torch.int8))[0, 1]
        assert torch.equal(counted, torch.ones(2048).double().index_fill(0, torch.tensor([0 if yes else 2047]), 0))
        assert (answered(logits.view(-1, 1, 1), thresholds) == yes).all()
        assert (runner.yes_of([*logits.view(-1, 1, 1).numpy()], about) == yes).all()


def test_the_dice_that_chose_a_threshold_is_that_of_the_report_on_logits_of_half_precision() -> None:
    for seed in range(8):
        draw = torch.Generator().manual_seed(seed)
        answers = (torch.rand(2, 1, 64, 64, generator=draw) < 0.3).to(torch.int8)
        logits = (torch.randn(2, 1, 64, 64, generator=draw) * 1.2 + 2.5 * answers + 1).bfloat16().float()
        score = QuestionScore(1)
        score.update(logits, answers)
        report = QuestionReport(["a"], score.thresholds())
        report.update(logits, answers)
        assert report.values()["dice"] == pytest.approx(score.values()["max_dice"], abs=1e-9)


def test_where_every_pixel_is_best_a_yes_the_threshold_is_below_all() -> None:
    score = QuestionScore(1)
    score.update(torch.tensor([-40.0, -15.999, 3.0, 5.0]).view(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.int8))
    assert score.thresholds() == [0.0]
    report = QuestionReport(["a"], score.thresholds())
    report.update(torch.full((1, 1, 2, 2), -40.0), torch.ones(1, 1, 2, 2, dtype=torch.int8))
    assert report.values()["dice"] == 100
