"""A teacher that knows nothing of the pictures stops a run, with what is likely wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise import tasks
from counterpoise.data.sources import ArraySet
from counterpoise.engine.chance import Tally, of_student
from counterpoise.tasks import Score
from counterpoise.tasks.scores.metrics import CaseScore

Run = Callable[..., tuple[int, str, str]]
RANDOM = torch.Generator().manual_seed(0)


def tally(answers: torch.Tensor, labels: torch.Tensor, classes: int) -> Tally:
    found = Tally(classes, tasks.get("classification"))
    logits = torch.nn.functional.one_hot(answers, classes).float()
    for start in range(0, len(labels), 7):
        found.update(logits[start : start + 7], labels[start : start + 7])
    return found


def drawn(classes: int, count: int) -> torch.Tensor:
    return torch.randint(classes, (count,), generator=RANDOM)


@pytest.mark.parametrize("classes", [2, 3, 12, 100])
def test_answers_that_have_nothing_to_do_with_the_labels_are_chance(classes: int) -> None:
    labels = drawn(classes, 300)
    assert tally(drawn(classes, 300), labels, classes).answered().verdict() == "chance"
    assert tally(torch.full((300,), 1), labels, classes).answered().verdict() == "chance"


@pytest.mark.parametrize(("classes", "right"), [(2, 0.7), (3, 0.55), (12, 0.35), (100, 0.1)])
def test_a_poor_teacher_is_none_by_chance(classes: int, right: float) -> None:
    labels = drawn(classes, 600)
    answers = torch.where(torch.rand(600, generator=RANDOM) < right, labels, drawn(classes, 600))
    assert tally(answers, labels, classes).answered().verdict() == "useful"


def test_the_best_constant_answer_is_chance_however_often_it_is_right() -> None:
    labels = (torch.arange(2000) % 20 == 0).long()
    assert tally(torch.zeros(2000, dtype=torch.int64), labels, 2).answered().verdict() == "chance"
    some = torch.where(torch.arange(2000) % 40 == 0, labels, 0)
    assert tally(some, labels, 2).answered().verdict() == "useful"


def test_few_images_do_not_stop_a_teacher_that_is_mostly_better_than_chance() -> None:
    labels = torch.arange(20) % 10
    answers = torch.where(torch.arange(20) < 8, labels, (labels + 1) % 10)
    assert tally(answers, labels, 10).answered().verdict() == "unsure"


def test_few_images_prove_nothing() -> None:
    labels = torch.arange(6) % 3
    assert tally(labels.roll(1), labels, 3).answered().verdict() == "unsure"
    assert tally(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]), 3).answered().verdict() == "unknown"
    assert tally(torch.tensor([0]), torch.tensor([-1]), 3).answered().verdict() == "unknown"


def test_numbers_sorted_as_text_are_found_out() -> None:
    labels = torch.arange(60) % 12
    as_text = torch.tensor(sorted(range(12), key=str))
    found = tally(as_text[labels], labels, 12)
    assert found.answered().verdict() == "chance"
    order, best = found.best_order()
    assert best == 1
    assert order == as_text.tolist()


def test_masks_of_one_answer_are_chance() -> None:
    found = Tally(3, tasks.get("segmentation"))
    target = torch.zeros(40, 8, 8, dtype=torch.int64)
    target[:, 2:6, 2:5], target[:, 7] = 1, 2
    found.update(torch.tensor([5.0, 1, 1]).view(1, 3, 1, 1).expand(40, 3, 4, 4), target)
    assert found.answered().verdict() == "chance"
    few = Tally(3, tasks.get("segmentation"))
    few.update(torch.tensor([5.0, 1, 1]).view(1, 3, 1, 1).expand(2, 3, 4, 4), target[:2])
    assert few.answered().verdict() == "unsure"
    found = Tally(3, tasks.get("segmentation"))
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    found.update(right, target)
    assert found.answered().verdict() == "useful"


def test_one_class_throughout_is_chance_where_others_are_there() -> None:
    """Too few images to tell answers that are a little better than that from it."""
    for others, verdict in ((6, "unsure"), (7, "chance")):
        labels = (torch.arange(60) < others).long()
        found = tally(torch.zeros(60, dtype=torch.int64), labels, 2).answered()
        assert (found.verdict(), found.throughout()) == (verdict, 0)
    assert tally(labels, labels, 2).answered().throughout() is None


def test_a_student_that_is_a_little_better_than_chance_knows_something() -> None:
    labels = torch.arange(600) % 10
    for right, knows in ((0.0, False), (0.1, True)):
        found = tally(
            torch.where(torch.rand(600, generator=RANDOM) < right, labels, drawn(10, 600)), labels, 10
        ).answered()
        assert (found.verdict(), found.knows_nothing()) == ("chance", not knows)


def masks(score: Score, answers: torch.Tensor, target: torch.Tensor) -> Score:
    score.coming(torch.arange(len(target)))
    score.update(torch.nn.functional.one_hot(answers, 3).movedim(-1, 1).float(), target)
    return score


def test_a_student_that_knows_nothing_is_said_to() -> None:
    task, classes = tasks.get("segmentation"), ["street", "pole", "sky"]
    target = torch.zeros(40, 8, 8, dtype=torch.int64)
    target[:, 2:6, 2:5], target[:, 7] = 1, 2
    further = CaseScore(
        classes, ArraySet(torch.zeros(40, 3, 8, 8, dtype=torch.uint8), torch.zeros(40), classes), ["case_dice"]
    )
    for score in (task.score(3), further):
        said = of_student(masks(score, torch.zeros_like(target), target), Tally(3, task), 40, classes)
        assert said is not None
        assert (
            "it is right in 68.8%, where answers that know nothing would be in 68.8%. It answers 'street' throughout"
            in said
        )
        assert "data.scenes.foreground" in said
    assert of_student(masks(task.score(3), target, target), Tally(3, task), 40, classes) is None


@pytest.mark.parametrize(
    ("task", "options", "model"),
    [
        ("classification", {"train_size": 20}, "digits/cnn_4_8"),
        ("segmentation", {"train_size": 20, "val_size": 100, "edge": 16}, "digits/unet_16_16_16"),
    ],
)
def test_it_is_said_at_the_end_of_its_run_and_in_the_summary(
    tmp_path: Path, task: str, options: dict[str, int], model: str, run: Run
) -> None:
    source = "digits" if task == "classification" else "digit_scenes"
    data = ["--task", task, "--data.source", source, "--data.options", json.dumps(options)]
    learns_nothing = ["--train.epochs", 1, "--train.precision", "fp32", "--train.optimizer.learning_rate", "1e-12"]
    code, told, _ = run("train", *data, "--student.model", model, *learns_nothing, "--out", tmp_path / "run")
    assert code == 0
    assert "The student knows nothing of the validation data: it is right in" in " ".join(told.split())
    remarks = json.loads((tmp_path / "run" / "summary.json").read_text())["remarks"]
    assert [remark.partition(":")[0] for remark in remarks] == ["The student knows nothing of the validation data"]


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """colors/{train,val}/{blue,green,red}, and teacher.pt for teacher.py:brightest, whose outputs are in that order."""
    rng = np.random.default_rng(0)
    for half, count in (("train", 6), ("val", 10)):
        for place, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "colors" / half / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3), dtype=np.uint8)
                pixels[..., 2 - place] += 130
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "teacher.py").write_text(
        "from torch import nn\n\n\ndef brightest(num_classes=3):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))\n"
    )
    weights = {"2.weight": 9 * torch.eye(3).flip(0), "2.bias": torch.zeros(3)}
    torch.save(weights, tmp_path / "teacher.pt")
    (tmp_path / "turned.yaml").write_text("blue: 1\ngreen: 2\nred: 0\n")
    return tmp_path / "colors"


def test_a_teacher_in_another_order_stops_the_run_before_anything_is_written(colors: Path, run: Run) -> None:
    teacher = ["--teacher.model", "teacher.py:brightest", "--teacher.checkpoint", "teacher.pt"]
    common = ["--data", colors, *teacher, "--student.model", "cifar/resnet8", "--train.epochs", 1]
    turned = ["--teacher.classes", "turned.yaml"]
    for verb in ("distill", "record"):
        code, _, told = run(verb, *common, *turned, "--out", "runs/turned")
        assert code == 2
        assert "is right in 0.0% of the validation data" in told
        assert "in another order it would be right in 100.0%: give teacher.classes" in told
        assert "--teacher.accept_chance" in told
        assert not Path("runs/turned").exists()
    code, _, told = run("distill", *common, *turned, "--out", "runs/turned", "--teacher.accept_chance")
    assert code == 0
    assert "teacher  top1 0.00" in told
    assert "hardly better than answers that know nothing" in told
    code, _, told = run("distill", *common, "--out", "runs/right")
    assert code == 0
    assert "outputs 0 to 2 are taken for blue, green, red, in this order" in told
    assert "teacher  top1 100.00" in told
    assert "hardly" not in told
