"""Whole runs through the Python functions, on the embedded digits and on generated photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import counterpoise
from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.engine import remarks
from counterpoise.errors import ConfigError, CounterpoiseError, RunError
from counterpoise.models import catalog, checkpoint

DIGITS: dict[str, Any] = {"source": "digits", "options": {"train_size": 200}}
TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 50, "precision": "fp32", "device": "cpu", "log_every": 1}


WEAK = {"teacher": {"accept_chance": True}}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained a teacher of digits."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    values = {"data": DIGITS, "student": {"model": "digits/cnn_8_16"}, "train": {**TRAIN, "epochs": 8}, "out": str(out)}
    counterpoise.train(values)
    return out


def run(out: Path, teacher: Path | None = None, **sections: Any) -> dict[str, Any]:
    """The values of a short run."""
    values: dict[str, Any] = {"data": DIGITS, "student": {"model": "digits/cnn_4_8"}, "train": TRAIN, "out": str(out)}
    if teacher is not None:
        values["teacher"] = {"checkpoint": str(teacher), "accept_chance": True}
    return config.merge(values, sections)


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def test_a_run_leaves_what_public_tools_read_and_reports_last_and_best(teacher: Path, tmp_path: Path) -> None:
    result = counterpoise.distill(run(tmp_path / "run", teacher))
    folder = tmp_path / "run"
    assert result.steps == 8
    assert {"top1", "top5", "loss", "epoch"} == set(result.last) == set(result.best)
    assert result.best["top1"] >= result.last["top1"]
    assert config.resolve(config.read(folder / "run.yaml")).train.epochs == 2
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["last"] == result.last
    assert summary["compile_seconds"] == 0  # small logits are not worth it
    steps = lines(folder, "step")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert list(steps[0]["terms"]) == ["cross_entropy", "balance/forward", "balance/reverse"]
    assert steps[0]["loss"] == pytest.approx(sum(steps[0]["terms"].values()))
    assert [line["val"]["top1"] for line in lines(folder, "epoch")][-1] == result.last["top1"]
    description = json.loads((folder / "student" / "student.json").read_text())
    assert description["provenance"]["teacher"]["sha256"]
    assert description["provenance"]["data_fingerprint"]
    assert description["metrics"]["last"]["top1"] == result.last["top1"]


def test_the_teacher_is_neither_trained_nor_saved(teacher: Path, tmp_path: Path) -> None:
    module = counterpoise.load_student(teacher)
    module.train()
    before = module.weights_hash()
    result = counterpoise.distill({**run(tmp_path / "run"), **WEAK}, teacher=module)
    assert module.weights_hash() == before
    assert not module.net.training
    assert result.parameters == 510
    kept = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert {name.partition(".")[0] for name in kept} == {"student", "optimizer"}
    assert set(load_file(tmp_path / "run" / "student" / "model.safetensors")) == set(
        catalog.build("digits/cnn_4_8", num_classes=10).weights()
    )


def test_modules_and_data_of_ones_own(teacher: Path, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    data = sources.load(config.Data(**DIGITS))
    values = {"train": {**TRAIN, "epochs": 1}, "out": str(tmp_path / "run"), **WEAK}
    before = net[1].weight.detach().clone()
    result = counterpoise.distill(values, student=net, teacher=counterpoise.load_student(teacher), data=data)
    assert result.parameters == 1930
    assert not torch.equal(net[1].weight, before)


def test_a_seed_decides_everything(teacher: Path, tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        counterpoise.distill(run(tmp_path / name, teacher, seed=seed))
        weights[name] = (tmp_path / name / "student" / "model.safetensors").read_bytes()
    assert weights["one"] == weights["again"] != weights["two"]


def test_a_loss_that_is_not_finite_names_step_term_and_checkpoint(teacher: Path, tmp_path: Path) -> None:
    wild = {"optimizer": {"learning_rate": 1e30}, "schedule": {"name": "constant"}, "checkpoint_minutes": 0.0}
    with pytest.raises(RunError) as error:
        counterpoise.distill(run(tmp_path / "run", teacher, train=wild))
    message = str(error.value)
    assert "step" in message
    assert "checkpoint" in message
    if (tmp_path / "run" / "checkpoints" / "last.safetensors").exists():
        kept = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
        assert all(value.isfinite().all() for value in kept.values() if value.is_floating_point())
        assert "last good checkpoint" in message


def test_the_moving_average_is_what_is_shipped(teacher: Path, tmp_path: Path) -> None:
    counterpoise.distill(run(tmp_path / "run", teacher, train={"ema": 0.9}))
    kept = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    shipped = load_file(tmp_path / "run" / "student" / "model.safetensors")
    for name, value in shipped.items():
        torch.testing.assert_close(value, kept[f"average.module.{name}"], rtol=0, atol=0)
    assert any(not torch.equal(value, kept[f"student.{name}"]) for name, value in shipped.items())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_checkpoint_of_a_run_is_read_as_the_student_it_would_ship(
    teacher: Path, tmp_path: Path, ema: float | None
) -> None:
    counterpoise.distill(run(tmp_path / "run", teacher, train={"ema": ema}))
    shipped = load_file(tmp_path / "run" / "student" / "model.safetensors")
    read = checkpoint.read(tmp_path / "run" / "checkpoints" / "last.safetensors")
    torch.testing.assert_close(read.state, shipped, rtol=0, atol=0)


def test_weights_that_move_are_logged(teacher: Path, tmp_path: Path) -> None:
    moving = {"balance": {"weight": {"shape": "linear", "start": 0.0, "end": 7.0}}}
    counterpoise.distill(run(tmp_path / "run", teacher, objective=moving))
    values = [line["moving"]["balance.weight"] for line in lines(tmp_path / "run", "step")]
    assert values == pytest.approx(list(range(8)))


def test_only_the_epochs_asked_for_are_evaluated_and_always_the_last(tmp_path: Path) -> None:
    counterpoise.train(run(tmp_path / "run", train={"epochs": 5, "evaluate_every": 3}))
    assert [line["epoch"] for line in lines(tmp_path / "run", "epoch")] == [2, 4]


def test_bf16_and_channels_last_train_as_well(teacher: Path, tmp_path: Path) -> None:
    half = {"precision": "bf16", "channels_last": True, "clip_gradient": 1.0, "epochs": 6}
    result = counterpoise.distill(run(tmp_path / "run", teacher, train=half))
    losses = [line["loss"] for line in lines(tmp_path / "run", "step")]
    assert losses[-1] < losses[0]
    weights = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())
    assert result.last["top1"] > 10


def photos(folder: Path, make_picture: Callable[..., Image.Image], count: int = 8) -> Path:
    folder.mkdir()
    for number in range(count):
        make_picture(("circle", "square")[number % 2], 50 + number, (40, 32)).save(folder / f"{number}.jpg")
    return folder


def test_photos_without_labels_teach_beside_labeled_ones(
    image_folder: Path, make_picture: Callable[..., Image.Image], tmp_path: Path
) -> None:
    more = photos(tmp_path / "more", make_picture)
    data = {"path": str(image_folder), "size": 16, "workers": 0}
    values = {
        "data": data,
        "student": {"model": "digits/cnn_4_8", "input_size": 16},
        "train": {**TRAIN, "batch_size": 16},
    }
    counterpoise.train({**values, "out": str(tmp_path / "teacher")})
    values["data"] = {**data, "unlabeled": str(more)}
    values["teacher"] = {"checkpoint": str(tmp_path / "teacher"), "accept_chance": True}
    result = counterpoise.distill({**values, "out": str(tmp_path / "student")})
    assert result.steps == 2 * 2  # 24 labeled and 8 unlabeled photos in batches of 16
    assert 0 <= result.last["top1"] <= 100
    resolved = config.resolve(values)
    assert [len(list(remarks.of_photos_without_labels(resolved, taught))) for taught in (True, False)] == [0, 1]


def test_photos_alone_teach_what_the_teacher_says_and_labels_alone_are_refused(
    image_folder: Path, make_picture: Callable[..., Image.Image], tmp_path: Path
) -> None:
    data = {"path": str(image_folder), "size": 16, "workers": 0}
    student = {"model": "digits/cnn_4_8", "input_size": 16}
    train = {**TRAIN, "batch_size": 8}
    counterpoise.train({"data": data, "student": student, "train": train, "out": str(tmp_path / "teacher")})
    alone: dict[str, Any] = {"data": {**data, "path": str(photos(tmp_path / "alone", make_picture, 20))}}
    alone |= {"student": student, "train": train}
    result = counterpoise.distill(
        {**alone, "teacher": {"checkpoint": str(tmp_path / "teacher")}, "out": str(tmp_path / "student")}
    )
    assert counterpoise.load_student(tmp_path / "student").classes == ("circle", "square", "stripes")
    assert 0 <= result.last["agreement_top1"] <= 100  # agreement with the teacher
    assert all(line["terms"]["cross_entropy"] == 0 for line in lines(tmp_path / "student", "step"))
    with pytest.raises(ConfigError, match="no labels"):
        counterpoise.train({**alone, "out": str(tmp_path / "refused")})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"batch_size": 500, "drop_last": True}}, "drop_last"),
        ({"train": {"device": "tpu"}}, "tpu"),
        ({"teacher": {"checkpoint": None, "model": None}}, "teacher.model is missing"),
        ({"student": {"model": None}}, "student.model is missing"),
        ({"objective": {"cross_entropy": {}}}, "no term of the objective listens"),
    ],
)
def test_runs_that_cannot_be_leave_no_folder(
    teacher: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.distill(config.merge(run(tmp_path / "runs" / "run", teacher), sections))
    assert not (tmp_path / "runs").exists()


def test_a_run_does_not_go_on_with_another_teacher_or_other_data(teacher: Path, tmp_path: Path) -> None:
    counterpoise.distill(run(tmp_path / "run", teacher))
    other = counterpoise.train(run(tmp_path / "other", student={"model": "digits/cnn_8_16"}, seed=5)).folder
    values = run(tmp_path / "run", other)
    with pytest.raises(RunError, match="another teacher"):
        counterpoise.distill(values, resume=True)
    digits = sources.load(config.Data(**DIGITS))
    fewer = digits._replace(train=digits.train.subset(torch.arange(199)))
    with pytest.raises(RunError, match="another data"):
        counterpoise.distill(run(tmp_path / "run", teacher), resume=True, data=fewer)


def test_a_last_batch_of_one_that_batch_norm_cannot_take_is_explained(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10), torch.nn.BatchNorm1d(10))
    values = {"data": DIGITS, "train": {**TRAIN, "batch_size": 199}, "out": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match=r"train.drop_last"):
        counterpoise.train(values, student=net)


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 10), torch.nn.Linear(10, 10), torch.nn.Linear(10, 10)
    )
    net[3].weight = net[2].weight
    counterpoise.train({"data": DIGITS, "train": {**TRAIN, "epochs": 1}, "out": str(tmp_path / "run")}, student=net)
    kept = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    torch.testing.assert_close(kept["student.2.weight"], kept["student.3.weight"])


def test_another_folder_is_evaluated_whole_and_the_runs_own_as_it_was_divided(
    image_folder: Path, tmp_path: Path
) -> None:
    student = {"model": "digits/cnn_4_8", "input_size": 16}
    values = {"student": student, "train": {**TRAIN, "epochs": 1, "batch_size": 8}, "out": str(tmp_path / "run")}
    data = {"path": str(image_folder / "train"), "size": 16, "workers": 0, "val_fraction": 0.25, "split_seed": 3}
    counterpoise.train({**values, "data": data})
    assert counterpoise.evaluate(tmp_path / "run")["images"] == 6
    assert counterpoise.evaluate(tmp_path / "run", image_folder / "train")["images"] == 6
    assert counterpoise.evaluate(tmp_path / "run", image_folder / "val")["images"] == 12
    with pytest.raises(ConfigError, match="at least 1"):
        counterpoise.evaluate(tmp_path / "run", batch_size=0)


def test_balanced_accuracy_is_over_the_classes_that_the_images_hold() -> None:
    report = tasks.get("classification").report(["a", "b", "c"])
    answers = torch.tensor([0, 0, 1, 2])
    report.update(torch.nn.functional.one_hot(answers, 3).float() * 9, torch.tensor([0, 0, 1, 1]))
    assert report.values()["balanced_accuracy"] == pytest.approx(75.0)


@pytest.mark.slow
def test_compiled_networks_train_to_the_same_result(teacher: Path, tmp_path: Path) -> None:
    plain = counterpoise.distill(run(tmp_path / "plain", teacher))
    compiled = counterpoise.distill(run(tmp_path / "compiled", teacher, train={"compile": True}))
    assert compiled.last["loss"] == pytest.approx(plain.last["loss"], rel=1e-2)
