"""Whether the teacher's terms pull against the labels: small terms by hand, and runs with good and wrong teachers."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import counterpoise
from counterpoise.config import Term
from counterpoise.engine import pulling
from counterpoise.engine.pulling import Pull, Sides
from counterpoise.errors import Interrupted
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dense import DenseSum
from counterpoise.objectives.dense_questions import QuestionSum
from counterpoise.outputs import Outputs
from counterpoise.pages.report.reading import read

CLASSES = ("a", "b", "c")
DATA = {"source": "digits", "options": {"train_size": 400}, "views": {"crop": "none", "flip": False}}
TRAIN = {"precision": "fp32", "device": "cpu", "batch_size": 20}


def looked(objective: WeightedSum, student: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Any] | None:
    pull = Pull(objective, 1000, CLASSES)
    pull(Outputs(student), Outputs(teacher), target)
    return pull.line(7)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def test_the_angle_is_that_of_both_gradients_also_of_each_class() -> None:
    student, teacher = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(1))
    target = torch.arange(40) % 3
    target[-3:] = -1
    objective = WeightedSum({"cross_entropy": {"weight": 2}, "forward_kl": {"weight": 3, "temperature": 1}})
    found = looked(objective, student, teacher, target)
    assert found is not None
    given = (student.softmax(1) - torch.nn.functional.one_hot(target.clamp(min=0), 3)) * (target >= 0)[:, None]
    told = student.softmax(1) - teacher.softmax(1)
    assert found["cosine"] == pytest.approx(cosine(given, told), abs=1e-5)
    for index, name in enumerate(CLASSES):
        there = target == index
        assert found["by_class"][name] == pytest.approx(cosine(given[there], told[there]), abs=1e-5)
    sharp = 9.0 * torch.nn.functional.one_hot((target + 1) % 3, 3).float()
    against = looked(objective, torch.zeros(40, 3), sharp, target)
    assert against is not None
    assert against["cosine"] == pytest.approx(-0.5, abs=0.05)
    assert looked(objective, student, student, target) is None  # there the teacher has nothing to teach


def test_of_scenes_classes_are_those_of_the_masks_at_the_logits_places() -> None:
    target = torch.full((8, 6, 6), 255)
    target[:, :, :3], target[:, :2] = 1, 2
    teacher = torch.zeros(8, 3, 3, 3)
    teacher[:, 2, :1] = 9.0  # right at the top, and else of class 0
    teacher[:, 0, 1:] = 9.0
    terms = {name: Term() for name in ("cross_entropy", "forward_kl")}
    found = looked(DenseSum(terms, "logits", 255), torch.zeros(8, 3, 3, 3), teacher, target)
    assert found is not None
    assert found["by_class"].keys() == {"b", "c"}
    assert found["by_class"]["b"] < -0.3
    assert found["by_class"]["c"] > 0.9


def test_of_questions_it_is_told_of_the_places_that_are_a_yes() -> None:
    target = torch.zeros(8, 1, 6, 6, dtype=torch.int8)
    target[:, :, :2], target[:, :, 5] = 1, -1
    terms = {"binary_cross_entropy": Term(), "binary_balance": Term()}
    pull = Pull(QuestionSum(terms, "logits", 255), 1000, ["vessel"], sigmoid=True)
    pull(Outputs(torch.zeros(8, 1, 3, 3)), Outputs(torch.full((8, 1, 3, 3), -5.0)), target)  # which misses all of them
    found = pull.line(1)
    assert found is not None
    assert found["cosine"] > 0
    assert found["by_class"] == {"vessel": pytest.approx(-1)}


LOGITS = sorted(
    name
    for name, entry in entries().items()
    if "teacher" in entry.kind.needs and not {"features", "classifier"} & entry.kind.needs and name != "at"
)


def test_looking_changes_no_objective_and_no_chance() -> None:
    student, teacher = torch.randn(2, 16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 3, (16, 8, 8), generator=torch.Generator().manual_seed(1))
    rules = ("self_tuning", "entropy", "head_tail")
    for name, more in [*((one, {}) for one in LOGITS), *(("balance", {"rule": rule}) for rule in rules)]:
        values = []
        for looking in (False, True):
            torch.manual_seed(3)
            objective = DenseSum({"cross_entropy": {}, name: more})
            objective.prepare(Outputs(student), Outputs(teacher), 16)
            pull = Pull(objective, 1000, CLASSES)
            for step in range(3):
                objective.set_progress(step / 2)
                logits = (student + step).requires_grad_()
                if looking:
                    pull(Outputs(logits), Outputs(teacher), target)
                    assert pull.steps == pulling.MOST, name
                    pull.line(step)
                total = objective(Outputs(logits), Outputs(teacher), target)[0]
                total.backward()
            values.append((total.detach(), logits.grad, torch.get_rng_state()))
        assert all(torch.equal(one, other) for one, other in zip(*values, strict=True)), name


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [([-0.1] * 5, True), ([-0.1] * 4, False), ([-0.1] * 9 + [0.9], True), ([-0.1] * 8 + [0.1] * 2, False), ([], False)],
)
def test_they_pull_apart_where_chance_would_hardly_have_it(cosines: list[float], expected: bool) -> None:
    assert pulling.apart(cosines, 0.05) == expected
    lines = [{"cosine": 0.5, "by_class": {"a": value, "b": 0.9}} for value in cosines]
    found = pulling.remark([{"cosine": value} for value in cosines], Sides(["labels"], ["balance"]))
    assert (found is not None) == expected
    alone = pulling.remark(lines * 2, Sides(["labels"], ["balance"])) if expected else None
    assert (alone is not None) == expected
    assert alone is None or ("1 of the classes" in alone and "a, cosine" in alone)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    train = {**TRAIN, "epochs": 6, "optimizer": {"learning_rate": 0.1}}
    counterpoise.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": out})
    return out


def student(teacher: dict[str, Any], out: Path, stopped: bool = False) -> Path:
    run = {"data": DATA, "student": {"model": "digits/cnn_4_8"}, "train": {**TRAIN, "epochs": 2}}
    run |= {"teacher": {**teacher, "accept_chance": True}, "out": out}
    if stopped:
        with pytest.raises(Interrupted):
            counterpoise.distill(run, deadline=time.monotonic())  # after its first step
    told = counterpoise.distill(run, resume=stopped)
    remarks = read(out).remarks
    assert all(remark in told.note for remark in remarks)
    return out


def test_a_teacher_of_other_classes_is_said_to_pull_and_to_be_worse_and_a_good_one_is_not(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "OF", 4)  # so that runs of 40 steps will do
    good = student({"checkpoint": taught}, tmp_path / "good")
    assert read(good).remarks == []
    assert read(good).missing == []
    lines = pulling.read(good / "metrics.jsonl")
    assert [line["step"] for line in lines] == [*range(1, 11)]
    assert min(line["cosine"] for line in lines) > 0.2
    stopped = student({"checkpoint": taught}, tmp_path / "stopped", stopped=True)
    assert pulling.read(stopped / "metrics.jsonl") == lines
    mapping = tmp_path / "classes.yaml"
    mapping.write_text(yaml.safe_dump({str(digit): (digit + 1) % 10 for digit in range(10)}))
    wrong = student({"checkpoint": taught, "classes": mapping}, tmp_path / "wrong")
    nothing, worse, pulls = read(wrong).remarks
    assert nothing.startswith("The student knows nothing of the validation data: it is right in ")
    assert worse.startswith("The teacher is worse than its student: top1 ")
    assert pulls.startswith("Over the first 10 steps the gradients pull apart, the teacher's terms (balance) against")
    assert "of 10 steps" in pulls
    summary = json.loads((wrong / "summary.json").read_text())
    assert summary["remarks"] == [nothing, worse, pulls]

    monkeypatch.setattr(pulling, "OF", math.inf)  # not looked at
    blind = student({"checkpoint": taught}, tmp_path / "blind")
    assert pulling.read(blind / "metrics.jsonl") == []
    for folder in (blind, stopped):
        one, other = (load_file(each / "student" / "model.safetensors") for each in (good, folder))
        assert all(torch.equal(one[name], other[name]) for name in one)
