"""Scores by picture and by case, their mean and spread, and what a score of nothing is."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest
import torch
from torch import Tensor

from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, ImageSet
from counterpoise.data.sources.memory import in_memory
from counterpoise.errors import ConfigError
from counterpoise.tasks import get
from counterpoise.tasks.scores import Seen, all_scores
from counterpoise.tasks.scores.cases import Counts
from counterpoise.tasks.scores.chosen import kinds_of
from counterpoise.tasks.scores.table import as_csv

CLASSES = ("background", "vessel")


def logits_of(answer: Tensor, classes: int = 2) -> Tensor:
    return 9.0 * torch.nn.functional.one_hot(answer.long(), classes).movedim(-1, -3).float()


def pictures(groups: tuple[int, ...] | None) -> tuple[ArraySet, Tensor, Tensor]:
    """Four pictures: half right, all right, nothing there and nothing answered, missed."""
    truth = torch.zeros(4, 4, 8, dtype=torch.uint8)
    truth[0, 0], truth[1, 1], truth[3, 2] = 1, 1, 1
    answer = truth.clone()
    answer[0, 0, :4] = 0
    answer[3] = 0
    images = ArraySet(torch.zeros(4, 3, 4, 8, dtype=torch.uint8), torch.zeros(4), CLASSES, "eye", masks=truth)
    images.groups = None if groups is None else torch.tensor(groups)
    return images, truth, answer


def counted(images: ImageSet, truth: Tensor, answer: Tensor, *scores: str) -> Counts:
    counts = Counts(kinds_of(scores, 2), CLASSES, images)
    for part in ([2, 3], [0, 1]):  # in any order
        counts.coming(torch.tensor(part))
        counts.update(logits_of(answer[part]), truth[part])
    return counts


def row(counts: Counts, score: str, label: str | None = "vessel") -> dict[str, float]:
    told = counts.told()
    rows = told["per_class"] if label else told["scores"]
    (found,) = (row for row in rows if row["score"] == score and row.get("class") == label)
    return dict(found)


def test_each_picture_is_a_case_and_nothing_to_find_is_no_score() -> None:
    counts = counted(*pictures(None), "hd95")
    dice = row(counts, "dice")
    each = [100 * 2 * 4 / 12, 100.0, 0.0]
    assert dice["cases"] == 3
    assert dice["mean"] == pytest.approx(statistics.fmean(each))
    assert dice["std"] == pytest.approx(statistics.stdev(each))
    assert dice["pooled"] == pytest.approx(100 * 2 * 12 / (24 + 12))
    assert row(counts, "recall")["cases"] == 3
    assert row(counts, "precision")["cases"] == 2  # of nothing answered there is none
    assert row(counts, "specificity")["mean"] == 100
    farthest = (4**2 + 8**2) ** 0.5
    assert row(counts, "hd95")["mean"] == pytest.approx(row(counts, "hd95", None)["mean"])
    assert counts.cases()[1].values["hd95"][1] == pytest.approx(farthest)  # one of both is empty
    assert {case.pictures[0] for case in counts.cases()} == {0, 1, 2, 3}


def test_a_case_is_its_pictures_together() -> None:
    counts = counted(*pictures((7, 7, 3, 3)))
    assert (counts.told()["case"], counts.told()["cases"], counts.told()["pictures"]) == ("group", 2, 4)
    dice = row(counts, "dice")
    assert dice["mean"] == pytest.approx((100 * 2 * 12 / (16 + 12) + 0.0) / 2)
    cases = counts.listed()
    assert [case["case"] for case in cases] == ["eye #2", "eye #0"]
    assert [one["picture"] for one in cases[1]["pictures"]] == ["eye #0", "eye #1"]
    assert cases[0]["pictures"][0]["scores"]["dice"]["vessel"] is None
    rows = list(csv.DictReader(io.StringIO(as_csv(cases))))
    assert [(one["level"], one["case"], one["picture"], one["class"]) for one in rows[-2:]] == [
        ("picture", "eye #0", "eye #1", "background"),
        ("picture", "eye #0", "eye #1", "vessel"),
    ]
    assert float(rows[-1]["dice"]) == 100
    assert len(rows) == 2 * (2 + 4)
    images, *masks = pictures((1, 1, 0, 2))
    images.group_names = ("anna", "bert")
    part = counted(in_memory(images.subset(torch.arange(4)), 1e9), *masks)
    assert [case["case"] for case in part.listed()] == ["anna", "eye #3", "bert"]
    alone = counted(*pictures((5, -1, -1, 5)))  # without a group, a case of its own
    assert sorted(len(case.pictures) for case in alone.cases()) == [1, 1, 2]


def test_scores_of_objects_leave_out_the_background_and_say_so() -> None:
    counts = counted(*pictures(None), "hd95", "object_f1", "auroc")
    assert row(counts, "dice", None)["of"] == list(CLASSES)
    for score in ("hd95", "assd", "object_f1", "pq", "auroc"):
        assert row(counts, score, None)["of"] == ["vessel"]


def test_counts_of_processes_join_to_the_same() -> None:
    images, truth, answer = pictures((0, 1, 0, 1))
    whole = counted(images, truth, answer, "pq")
    halves = [Counts(whole.kinds, CLASSES, images) for _ in range(2)]
    for half, part in zip(halves, ([0, 2], [1, 3]), strict=True):
        half.coming(torch.tensor(part))
        half.update(logits_of(answer[part]), truth[part])
    halves[0].state = torch.cat([half.state for half in halves])
    assert halves[0].told() == whole.told()


def test_the_report_has_all_of_it_as_json_and_its_figures_of_all_pictures_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (5, 8, 8), generator=generator)
    truth[:, 0] = IGNORE
    report = get("segmentation").report(("road", "tree", "sky"))
    for part in truth.split(2):
        report.update(torch.randn(len(part), 3, 4, 4, generator=generator), part)
    values = json.loads(json.dumps(report.values()))
    pooled = {one["score"]: one["pooled"] for one in values["by_case"]["scores"]}
    assert pooled["dice"] == pytest.approx(values["dice"])
    assert pooled["iou"] == pytest.approx(values["miou"])
    assert pooled["recall"] == pytest.approx(values["mean_class_accuracy"])
    for one in values["by_case"]["per_class"]:
        if one["score"] != "specificity":
            (same,) = (other for other in values["per_class"] if other["class"] == one["class"])
            assert one["pooled"] == pytest.approx(same[one["score"]])
    assert len(values["cases"]) == 5


def test_distances_are_in_millimeters_where_the_pictures_say_how_far_pixels_are_apart() -> None:
    truth, answer = torch.zeros(2, 9, 9, dtype=torch.uint8)
    truth[2], answer[6] = 1, 1
    (kind,) = kinds_of(["hd95"], 2)[1:]
    found = {
        spacing: kind.values(kind.count(Seen(logits_of(answer), truth, spacing), [1]))["assd"].item()
        for spacing in (None, (0.5, 2.0))
    }
    assert found == {None: 4.0, (0.5, 2.0): 2.0}


def test_the_unit_of_distances_is_one_for_all_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[int, tuple[float, float] | None] = dict.fromkeys(range(4), (0.5, 0.5))
    monkeypatch.setattr(ArraySet, "spacing", lambda self, index: known[index], raising=False)
    told = counted(*pictures(None), "hd95").told()
    assert told["unit"] == "millimeters"
    assert told["notes"] == [
        "1 times a class is in the truth or in the answer of a picture and not in the other: its hd95 and assd are "
        "then the diagonal of the picture."
    ]
    half = row(counted(*pictures(None), "hd95"), "assd")["mean"]
    known[2] = None
    counts = counted(*pictures(None), "hd95")
    assert counts.told()["unit"] == "pixels"
    assert "1 of 4 pictures do not say how far theirs are apart" in counts.told()["notes"][0]
    assert row(counts, "assd")["mean"] == pytest.approx(2 * half)


def test_every_score_is_described_and_an_unknown_one_is_refused() -> None:
    assert {"dice", "iou", "precision", "recall", "specificity", "hd95", "assd", "cldice", "auroc", "auprc",
            "object_f1", "pq"} <= set(all_scores())  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'hd95'"):
        kinds_of(["hd96"], 2)
    with pytest.raises(ConfigError, match="auroc is for two classes, and there are 3"):
        kinds_of(["auroc"], 3)
