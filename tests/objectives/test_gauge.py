"""The balance gauge against numpy, torchmetrics and cases whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import counterpoise
from counterpoise import config, distill, tasks, train
from counterpoise.commands import app
from counterpoise.engine import gauging
from counterpoise.engine.gauging import EvaluationGauge
from counterpoise.engine.processes import Processes
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.composite import answers_by_sigmoid
from counterpoise.objectives.gauge import Gauge

ONE = Processes(0, 1, torch.device("cpu"))


def logits(seed: int, *shape: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn((2, *shape), generator=torch.Generator().manual_seed(seed)) * scale
    return student, teacher


def measured(student: Tensor, teacher: Tensor, target: Tensor | None = None, **arguments: Any) -> dict[str, Any]:
    gauge = Gauge(student.shape[1], **arguments)
    gauge.update(student, teacher, target)
    return gauge.compute()


def flat(values: dict[str, Any]) -> dict[str, float]:
    """All numbers by dotted name."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": number for inner, number in flat(value).items()}
        elif isinstance(value, int | float):
            found[name] = value
    return found


def short(result: dict[str, Any]) -> dict[str, float]:
    names = ("forward_kl", "reverse_kl", "missed", "excess")
    return {**{name: result[name] for name in names}, "agreement": result["agreement"]["top1"]}


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 4))
@settings(max_examples=25)
def test_bands_share_out_both_divergences_as_numpy_says(seed: int, temperature: float) -> None:
    student, teacher = logits(seed, 20, 30)
    result = measured(student, teacher, temperature=temperature)
    s, t = (side.double().numpy() / temperature for side in (student, teacher))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (t, s))
    forward, reverse = p * np.log(p / q), q * np.log(q / p)
    assert result["forward_kl"] == pytest.approx(forward.sum(1).mean(), rel=1e-4)
    assert result["reverse_kl"] == pytest.approx(reverse.sum(1).mean(), rel=1e-4)
    parts = {"forward_kl": forward - p + q, "reverse_kl": reverse - q + p, "teacher_mass": 100 * p}
    parts["student_mass"] = 100 * q
    order = np.argsort(-p, axis=1)
    for band, (first, last) in zip(result["bands"], ((0, 1), (1, 5), (5, 20), (20, 30)), strict=True):
        for name, part in parts.items():
            expected = np.take_along_axis(part, order, 1)[:, first:last].sum(1).mean()
            assert band[name] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert result["missed"] == pytest.approx(parts["forward_kl"][p > q].sum() / 20, rel=1e-3)
    assert result["excess"] == pytest.approx(parts["reverse_kl"][q > p].sum() / 20, rel=1e-3)
    for name in ("forward_share", "reverse_share"):
        assert sum(band[name] for band in result["bands"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("classes", "ranks"),
    [
        (1, ["1"]),
        (2, ["1", "2"]),
        (10, ["1", "2-5", "6-10"]),
        (100, ["1", "2-5", "6-20", "21-100"]),
        (1000, ["1", "2-5", "6-20", "21-100", "101-500", "501-1000"]),
        (21_841, ["1", "2-5", "6-20", "21-100", "101-500", "501-2000", "2001-10000", "10001-21841"]),
    ],
)
def test_bands_end_at_the_last_class(classes: int, ranks: list[str]) -> None:
    result = measured(*logits(0, 2, classes))
    assert [band["ranks"] for band in result["bands"]] == ranks
    assert sum(band["student_mass"] for band in result["bands"]) == pytest.approx(100, rel=1e-4)


def test_batches_blocks_and_processes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = logits(0, 50, 12)
    target = torch.randint(-1, 12, (50,), generator=torch.Generator().manual_seed(1))
    whole = measured(student, teacher, target)
    monkeypatch.setattr("counterpoise.objectives.gauge.BLOCK", 100)
    first, second = Gauge(12), Gauge(12)
    first.update(student[:20], teacher[:20], target[:20])
    second.update(student[20:], teacher[20:], target[20:])
    first.state += second.state
    assert flat(first.compute()) == pytest.approx(flat(whole), rel=1e-5)


def test_agreement_counts_the_teachers_first_class() -> None:
    teacher = torch.eye(8)[:4] * 9
    student = torch.zeros(4, 8)
    student[0, 0] = 5  # agrees
    student[1, [4, 5, 6]], student[1, 1] = 5, 4  # among five
    student[2, 3:] = 5  # not among five
    student[3, 3] = 1  # agrees
    assert measured(student, teacher)["agreement"] == {"top1": 50.0, "top5": 75.0}


@pytest.mark.parametrize("step", [2.0, 0.0])
def test_a_student_that_is_its_teacher_agrees_where_logits_are_equal(step: float) -> None:
    same = torch.randn(300, 100, generator=torch.Generator().manual_seed(0)).mul(step).round()
    target = torch.randint(100, (300,), generator=torch.Generator().manual_seed(1))
    found = measured(same, same.clone(), target)
    assert found["agreement"] == {"top1": 100.0, "top5": 100.0}
    right = 100 * (same.argmax(1) == target).double().mean().item()
    assert [side["top1"] for side in found["calibration"].values()] == pytest.approx([right, right])


def test_agreement_of_equal_logits_is_that_of_argmax() -> None:
    student, teacher = (side.round() for side in logits(5, 400, 12, scale=1.0))
    agreed = 100 * (student.argmax(1) == teacher.argmax(1)).double().mean().item()
    assert measured(student, teacher)["agreement"]["top1"] == pytest.approx(agreed)


def test_calibration_error_is_torchmetrics() -> None:
    from counterpoise.system import torchvision_guard

    torchvision_guard.ready()
    from torchmetrics.functional.classification import multiclass_calibration_error

    student, teacher = logits(3, 300, 6, scale=2.0)
    target = torch.randint(0, 6, (300,), generator=torch.Generator().manual_seed(2))
    unlabeled = torch.cat([target, torch.full((30,), -1)])
    result = measured(*(torch.cat([side, side[:30]]) for side in (student, teacher)), unlabeled)["calibration"]
    for name, side in {"student": student, "teacher": teacher}.items():
        expected = multiclass_calibration_error(side.softmax(1), target, 6, n_bins=15)
        assert result[name]["calibration_error"] == pytest.approx(float(expected), abs=1e-6)
        assert result[name]["top1"] == pytest.approx(100 * (side.argmax(1) == target).float().mean().item())


def test_without_labels_there_is_no_calibration_and_without_positions_nothing() -> None:
    assert "calibration" not in measured(*logits(0, 3, 4))
    assert "calibration" not in measured(*logits(0, 3, 4), torch.full((3,), -1))
    assert Gauge(4).compute() == {"positions": 0}
    assert Gauge(4).short() == {}


def test_dense_logits_count_by_pixel_and_ignored_ones_not_at_all() -> None:
    student, teacher = logits(0, 2, 5, 3, 4)
    target = torch.zeros(2, 3, 4, dtype=torch.int64)
    target[:, 0] = 255
    gauge = Gauge(5)
    student[:, :, 0] = float("nan")
    gauge.update(student, teacher, target, ignore_index=255)
    pixels = [side[:, :, 1:].permute(0, 2, 3, 1).reshape(-1, 5) for side in (student, teacher)]
    assert json.dumps(gauge.compute()) == json.dumps(measured(*pixels, torch.zeros(16, dtype=torch.int64)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [3.0, 1.0, 2.0]], dtype=dtype)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1.0, 3.0, 2.0]], dtype=dtype)
    result = measured(student, teacher, torch.tensor([0, 1]), temperature=0.05)
    numbers = [value for band in result["bands"] for key, value in band.items() if key != "ranks"]
    assert np.isfinite([*numbers, result["missed"], result["excess"]]).all()
    assert result["missed"] > 1000


def test_in_one_glance_positives_or_negatives() -> None:
    # The teacher believes in two classes; the first student in one of them, the second also in one that is ruled out.
    teacher = torch.tensor([[0.5, 0.48, 0.01, 0.01]]).log()
    misses = measured(torch.tensor([[0.97, 0.01, 0.01, 0.01]]).log(), teacher)
    assert misses["missed"] > 2 * misses["excess"]
    assert "mainly misses what the teacher believes" in misses["summary"]
    assert "ranked 2-4 by it, where it gives 3.0% and the teacher 50.0%" in misses["summary"]
    believes = measured(torch.tensor([[0.30, 0.29, 0.01, 0.40]]).log(), teacher)
    assert believes["excess"] > 2 * believes["missed"]
    assert "mainly believes what the teacher rules out" in believes["summary"]
    turned = measured(teacher, torch.tensor([[0.30, 0.29, 0.01, 0.40]]).log())
    assert turned["missed"] == pytest.approx(believes["excess"])
    assert "says what the teacher says" in measured(teacher, teacher)["summary"]


def test_the_sentence_never_names_numbers_that_speak_against_it() -> None:
    # At one position the student misses the teacher's first class; at all others it gives more to it than the teacher.
    teacher = torch.tensor([[0.92, 0.04, 0.04]] * 40).log()
    student = torch.tensor([[0.02, 0.49, 0.49]] + [[0.96, 0.02, 0.02]] * 39).log()
    result = measured(student, teacher)
    first = result["bands"][0]
    assert first["student_mass"] > first["teacher_mass"]
    assert "mainly misses what the teacher believes" in result["summary"]
    assert "most of all on the teacher's first class;" in result["summary"]
    assert sum(band["missed"] for band in result["bands"]) == pytest.approx(result["missed"])
    assert sum(band["excess"] for band in result["bands"]) == pytest.approx(result["excess"])


def test_networks_of_sigmoids_are_gauged_by_sigmoids() -> None:
    rng = np.random.default_rng(0)
    s, t = (rng.normal(size=(7, 4)) for _ in range(2))
    q, p = (1 / (1 + np.exp(-side / 2)) for side in (s, t))
    forward = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    reverse = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    result = measured(torch.tensor(s), torch.tensor(t), temperature=2.0, sigmoid=True)
    assert result["forward_kl"] == pytest.approx(forward.sum(1).mean(), rel=1e-5)
    assert result["reverse_kl"] == pytest.approx(reverse.sum(1).mean(), rel=1e-5)
    assert sum(band["teacher_mass"] for band in result["bands"]) == pytest.approx(100 * p.sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "sigmoids"),
    [
        ({"balance": {}}, False),
        ({"cross_entropy": {}, "binary_balance": {}}, True),
        ({"mine": {"objective": "binary_cross_entropy"}}, True),
        ({"dice": {"sigmoid": True}}, True),
        ({"dice": {}}, False),
        ({"standardized": {"of": "binary_balance"}}, True),
        ({"mine": {"objective": "nowhere.py:Mine"}}, False),
    ],
)
def test_the_objective_says_whether_a_network_answers_by_sigmoids(objective: dict[str, Any], sigmoids: bool) -> None:
    run = config.resolve({"objective": objective})
    assert answers_by_sigmoid(run.objective) == sigmoids


@pytest.mark.parametrize("sigmoid", [False, True])
def test_classes_that_both_rule_out_leave_the_gauge_finite(sigmoid: bool) -> None:
    student, teacher = torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([[2.0, 1.0, -torch.inf]])
    whole, part = measured(student, teacher, sigmoid=sigmoid), measured(student[:, :2], teacher[:, :2], sigmoid=sigmoid)
    assert whole["forward_kl"] == pytest.approx(part["forward_kl"])
    assert whole["missed"] == pytest.approx(part["missed"])


def test_of_five_classes_or_fewer_none_is_among_five() -> None:
    assert "top5" not in measured(torch.randn(3, 5), torch.randn(3, 5))["agreement"]
    assert "top5" in measured(torch.randn(3, 6), torch.randn(3, 6))["agreement"]


@pytest.mark.parametrize(
    ("student", "teacher", "target", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), None, "one shape"),
        (torch.zeros(2, 4), torch.zeros(2, 4), None, "expected 3 classes, got 4"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3), "target must have shape"),
    ],
)
def test_what_does_not_fit_is_named(student: Tensor, teacher: Tensor, target: Tensor | None, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Gauge(3).update(student, teacher, target)
    with pytest.raises(ObjectiveError, match="temperature"):
        Gauge(3, temperature=0.0)


def test_answers_that_are_too_many_to_keep_leave_the_gauge_out(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = logits(0, 6, 5)
    small = EvaluationGauge(6, 5, tasks.get("classification"), ONE)
    for part in teacher.split(4):
        small.remember(part)
    for _ in range(2):  # each evaluation starts afresh, in batches of its own
        for part in student.split(3):
            small.compare(part)
        assert small.values() == pytest.approx(short(measured(student, teacher)))
    monkeypatch.setattr(gauging, "KEPT_BYTES", 6 * 5 * 4 - 1)
    large = EvaluationGauge(6, 5, tasks.get("classification"), ONE)
    large.remember(teacher)
    large.compare(student)
    assert large.teacher == []
    assert large.values() == {}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's run and a student's, teacher/ and student/."""
    folder = tmp_path_factory.mktemp("runs")
    common: dict[str, Any] = {
        "data": {"source": "digits", "options": {"train_size": 100}},
        "train": {"epochs": 2, "device": "cpu", "precision": "fp32"},
    }
    train({**common, "student": {"model": "digits/cnn_8_16"}, "out": str(folder / "teacher")})
    teacher = {"checkpoint": str(folder / "teacher"), "accept_chance": True}
    student = {"model": "digits/cnn_4_8"}
    distill({**common, "student": student, "teacher": teacher, "out": str(folder / "student")})
    return folder


def test_training_logs_the_gauge_that_the_command_gives(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    epochs = [json.loads(line) for line in (runs / "student" / "metrics.jsonl").read_text().splitlines()]
    logged = [line["gauge"] for line in epochs if line["kind"] == "epoch"]
    assert len(logged) == 2
    assert app.run(["gauge", str(runs / "student"), "--json", "--out", str(tmp_path / "gauge.json")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "gauge.json").read_text()) == result
    assert logged[-1] == pytest.approx(short(result))
    assert result["positions"] == 1697
    assert set(result["calibration"]) == {"student", "teacher"}


def test_a_student_folder_alone_takes_data_and_teacher_by_flags(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    (runs / "student" / "student").rename(alone)
    try:
        assert app.run(["gauge", str(alone)]) == 2
        assert "--data" in capsys.readouterr().err
        run_file = str(runs / "student" / "run.yaml")
        assert app.run(["gauge", str(alone), "--data", run_file]) == 2
        assert "--teacher.checkpoint" in capsys.readouterr().err
        flags = ["--data", run_file, "--teacher.checkpoint", str(runs / "teacher"), "--temperature", "4"]
        assert app.run(["gauge", str(alone), *flags]) == 0
        assert "The student" in capsys.readouterr().out
    finally:
        alone.rename(runs / "student" / "student")
    with pytest.raises(ConfigError, match="had no teacher"):
        counterpoise.gauge(runs / "teacher")


def test_a_student_beside_itself_says_what_it_says(runs: Path) -> None:
    same = counterpoise.gauge(runs / "student", teacher=runs / "student")
    assert same["forward_kl"] < 1e-6
    assert same["agreement"] == {"top1": 100.0, "top5": 100.0}


def test_the_teacher_may_be_a_module(runs: Path) -> None:
    class Flat(nn.Module):
        num_classes = 10

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(10))

        def forward(self, images: Tensor) -> Tensor:
            return self.scale.expand(len(images), 10)

    result = counterpoise.gauge(runs / "student", teacher=Flat())
    assert [band["teacher_mass"] for band in result["bands"]] == pytest.approx([10, 40, 50])


def test_answers_that_are_not_finite_are_not_called_perfect() -> None:
    gauge = Gauge(10)
    gauge.update(torch.full((3, 10), float("nan")), torch.zeros(3, 10))
    assert "not finite" in gauge.compute()["summary"]


def test_labels_beyond_the_classes_are_no_labels() -> None:
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    void, unlabeled = Gauge(10), Gauge(10)
    void.update(logits, logits, torch.full((20,), 255))
    unlabeled.update(logits, logits)
    torch.testing.assert_close(void.state, unlabeled.state)
