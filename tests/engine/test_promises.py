"""A student that says when it is not sure: in its folder, where it answers, and in its exports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import counterpoise
from counterpoise.commands.promise import _lines
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs, promises
from counterpoise.engine.student import save_student
from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.tasks.classification import ClassificationReport

Run = Callable[..., tuple[int, str, str]]
TRAIN: dict[str, Any] = {
    "data": {"source": "digits", "val_fraction": 0.5, "workers": 0},
    "student": {"model": "digits/cnn_16_32"},
    "train": {
        "epochs": 20,
        "batch_size": 16,
        "device": "cpu",
        "precision": "fp32",
        "optimizer": {"learning_rate": 0.2},
    },
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student has made a promise."""
    folder = tmp_path_factory.mktemp("promises")
    counterpoise.train({**TRAIN, "out": str(folder / "run")})
    counterpoise.promise(folder / "run", risk=0.1)
    return folder / "run"


def held_out(run: Path) -> Any:
    return inputs.evaluated(run, None, None, None)[0]


@pytest.fixture
def asked(trained: Path, tmp_path: Path) -> dict[bool, Path]:
    """A picture that the student answers, and one that it does not."""
    images, student = held_out(trained), counterpoise.load_student(trained)
    found: dict[bool, Path] = {}
    for index in range(len(images)):
        pixels = images.read(index).permute(1, 2, 0).numpy()
        answer = student.predict([pixels])[0]
        if answer["sure"] not in found:
            found[answer["sure"]] = tmp_path / f"{'sure' if answer['sure'] else 'unsure'}.png"
            Image.fromarray(pixels).save(found[answer["sure"]])
        if len(found) == 2:
            return found
    raise AssertionError(found)


def test_what_is_promised_is_kept_in_the_folder_and_is_what_evaluate_finds(trained: Path) -> None:
    said = json.loads((trained / "student" / "student.json").read_text())["promise"]
    report = counterpoise.evaluate(trained)
    assert report["answered"] == pytest.approx(100 * said["answered"])
    assert report["wrong_of_answered"] == pytest.approx(100 * said["wrong"])
    assert report["in_set"] == pytest.approx(90, abs=3)
    assert 100 * said["wrong"] < 10 < 100 - report["top1"]
    assert said["pictures"] == len(held_out(trained))


def test_a_picture_below_the_threshold_is_answered_by_the_classes_it_may_be(
    run: Run, trained: Path, asked: dict[bool, Path]
) -> None:
    code, out, _ = run("predict", str(asked[True]), str(asked[False]), "--student", str(trained))
    assert code == 0
    assert out.count("not sure: ") == 1
    answer = counterpoise.load_student(trained).predict([asked[False]])[0]
    assert answer["class"] == answer["set"][0]
    averaged = counterpoise.predict([asked[False]], student=trained, views=2)[0]
    assert "sure" not in averaged  # the promise is of one view


def test_an_export_says_so_too_and_one_of_8_bits_by_its_own_answers(trained: Path, asked: dict[bool, Path]) -> None:
    whole = counterpoise.export(trained, to="onnx", out=trained / "onnx")
    own = json.loads((trained / "student" / "student.json").read_text())["promise"]
    assert whole["promise"] == own
    eight = counterpoise.export(trained, to="onnx", precision="int8", min_same=50, out=trained / "int8")
    assert eight["promise"]["temperature"] != own["temperature"]
    assert eight["promise"]["bound"] <= 0.1
    command = [sys.executable, str(trained / "onnx" / "run.py"), str(asked[True]), str(asked[False])]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.count("not sure: ") == 1
    expected = counterpoise.load_student(trained).predict([asked[False]])[0]
    assert f"{asked[False]}\nnot sure: {', '.join(expected['set'])}?\n" in told
    assert f"{expected['probability']:8.4f}  {expected['class']}" in told


def test_8_bits_that_are_compared_on_other_pictures_promise_nothing_and_say_so(trained: Path) -> None:
    other = sources.load(inputs.data_section(trained, None))
    other = other._replace(val=other.val.subset(torch.arange(0, 400)))
    found = counterpoise.export(
        trained, to="onnx", precision="int8", min_same=50, data_set=other, out=trained / "other"
    )
    assert found["promise"] is None
    assert "was chosen on other pictures" in found["notes"]["promise"]


def test_what_can_promise_nothing_is_refused_with_the_reason(run: Run, trained: Path, tmp_path: Path) -> None:
    code, _, err = run("promise", str(trained), "--risk", "0.001")
    assert code == 2
    assert "are needed at least" in err
    code, _, err = run("promise", str(trained), "--risk", "1.5")
    assert code == 2
    assert "risk" in err
    assert "less than 1" in err
    whole = tmp_path / "whole.yaml"
    whole.write_text(json.dumps({"data": {**TRAIN["data"], "val_fraction": 0.9}}))
    code, _, err = run("promise", str(trained), "--data", str(whole), "--risk", "0.1")
    assert code == 2
    assert "was trained on, where it errs less" in err


def probable(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes), nn.Softmax(1))


def test_a_network_that_answers_probabilities_promises_nothing(tmp_path: Path) -> None:
    network = catalog.build(probable, num_classes=10, input_size=8)
    save_student(network, tmp_path / "student", classes=[*map(str, range(10))], metrics={}, provenance={})
    with pytest.raises(
        ModelError, match=r"Leave the softmax out of the network\. Then its answers tell how sure it is"
    ):
        counterpoise.promise(tmp_path / "student", {"data": TRAIN["data"]}, model=probable, risk=0.1)


def test_pictures_without_a_label_do_not_count() -> None:
    logits = 9 * np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    labels = torch.arange(300) % 3
    labels[::5] = -1
    answered = promises.Answered(torch.from_numpy(logits), labels, torch.arange(300))
    images = ArraySet(torch.zeros(300, 3, 1, 1, dtype=torch.uint8), labels, list("abc"))
    found = promises.chosen([answered], images, 0.1, 0.95, 0.9)
    assert (found.pictures, found.wrong) == (240, 0)


def test_what_groups_are_promised_is_what_evaluate_finds() -> None:
    draw = torch.Generator().manual_seed(0)
    groups = (torch.rand(900, generator=draw).square() * 150).long()  # some of many pictures, some of few
    labels = torch.randint(3, (900,), generator=draw)
    logits = torch.randn(900, 3, generator=draw) + 4 * torch.eye(3)[labels]
    images = ArraySet(torch.zeros(900, 3, 1, 1, dtype=torch.uint8), labels, list("abc"))
    images.groups = groups
    order = torch.randperm(900, generator=draw)  # as if some came later
    answered = [promises.Answered(logits[part], labels[part], part) for part in order.split(400)]
    found = promises.chosen(answered, images, 0.1, 0.95, 0.9)
    report = ClassificationReport("abc", found, images)
    for part in order.split(250):
        report.coming(part)
        report.update(logits[part], labels[part])
    values = report.values()
    assert (found.groups, found.pictures) == (len(groups.unique()), 900)
    assert values["answered"] == pytest.approx(100 * found.answered)
    assert values["wrong_of_answered"] == pytest.approx(100 * found.wrong)
    by_group = [groups == group for group in groups.unique()]
    right, sure = logits.argmax(1) == labels, (logits / found.temperature).softmax(1).amax(1) >= found.threshold
    shares = torch.tensor([[(sure & ~right)[own].double().mean(), sure[own].double().mean()] for own in by_group])
    assert found.wrong == pytest.approx((shares[:, 0].mean() / shares[:, 1].mean()).item())


def test_a_promise_says_that_groups_counted(trained: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(trained / "student", student)
    given = {"data": TRAIN["data"]}
    images = held_out(trained)
    images.groups = torch.arange(len(images)) // 3
    found = counterpoise.promise(student, given, data_set=Splits(images, images), risk=0.2)
    assert found["groups"] == json.loads((student / "student.json").read_text())["promise"]["groups"] == 300
    assert "each of the 300 groups counted once" in found["notes"][0]
    assert f"of {len(images)} pictures of 300 groups." in _lines(found)[0]
    assert "each group counting alike; of groups like these" in _lines(found)[1]
    report = counterpoise.evaluate(student, given, data_set=Splits(images, images))
    assert counterpoise.evaluate(student, data_set=Splits(images, images)) == report  # no folder need say which data
    assert report["answered"] == pytest.approx(100 * found["answered"])
    assert report["wrong_of_answered"] == pytest.approx(100 * found["wrong"])
