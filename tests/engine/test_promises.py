"""A student that says when it is not sure: in its folder, where it answers, and in its exports."""

from __future__ import annotations

import contextlib
import io
import json
import re
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
from counterpoise import config
from counterpoise.commands.promise import _lines
from counterpoise.commands.tables import print_all, report_tables
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.deploy import folder
from counterpoise.deploy.promised import differs
from counterpoise.engine import inputs, promises
from counterpoise.engine.student import load_student, save_student
from counterpoise.engine.trained_on import looked_up
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
    other = sources.load(inputs.data_section(trained, None))
    other.val.groups = torch.arange(len(other.val)) // 2
    found = counterpoise.export(trained, to="onnx", precision="int8", min_same=50, data_set=other, out=trained / "some")
    assert found["promise"] is None
    assert (
        "was chosen on no groups, and these data have 449 groups, so run.py answers every picture. Say"
        in found["notes"]["promise"]
    )


def test_an_export_of_before_is_said_to_promise_otherwise_and_is_not_published(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    student, export = tmp_path / "student", tmp_path / "exports" / "old"
    shutil.copytree(trained / "student", student)
    counterpoise.export(student, to="onnx", out=export, images=20, data={"data": TRAIN["data"]})
    assert run("verify", str(export), "--student", str(student))[0] == 0
    counterpoise.promise(student, {"data": TRAIN["data"]}, risk=0.2)
    code, out, _ = run("verify", str(export), "--student", str(student))
    assert (code, "it promises otherwise than its student. Export it again." in " ".join(out.split())) == (0, True)
    code, _, err = run("push", str(student), "--out", str(tmp_path / "hub"))
    assert (code, "it promises otherwise than its student. Export it again." in err) == (2, True)
    description = folder.read(export)
    none = description.model_copy(update={"promise": None})
    assert differs(description.promise, description) is None
    assert differs(description.promise, none) == "it makes no promise, and its student does"
    assert differs(None, description) == "it makes a promise, and its student makes none"
    told = {"precision": "int8", "notes": {"promise": "The student's promise is not kept"}}
    assert differs(description.promise, none.model_copy(update=told)) is None


def test_what_cannot_be_looked_up_is_said_and_copies_of_training_pictures_are_found(
    image_folder: Path, tmp_path: Path
) -> None:
    own = {"path": str(image_folder / "train"), "val_fraction": 0.25, "size": 16, "workers": 0}
    values = {"data": own, "student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 1, "device": "cpu"}}
    counterpoise.train({**values, "out": str(tmp_path / "run")})
    images = sources.load(config.Data(**own)).train
    copied = tmp_path / "copied"
    shutil.copytree(image_folder / "train", copied)
    there = config.Data(path=copied, size=16)
    assert looked_up(tmp_path / "run", sources.load(there).train, there)[0] > 0
    new = config.Data(path=image_folder / "val", size=16)
    whole = inputs.evaluated(tmp_path / "run", {"data": {"path": str(image_folder / "val"), "size": 16}}, None, None)[0]
    assert looked_up(tmp_path / "run", whole, new) == (0, [])
    later = {**values, "data": {"path": str(image_folder / "val"), "val_fraction": 0.25, "size": 16, "workers": 0}}
    later["student"] = {**values["student"], "checkpoint": str(tmp_path / "run")}
    counterpoise.train({**later, "out": str(tmp_path / "later")})
    assert looked_up(tmp_path / "later", images, there)[0] == len(images)  # of the run that it started from
    student = tmp_path / "alone"
    shutil.copytree(tmp_path / "run" / "student", student)
    count, notes = looked_up(student, whole, new)
    assert (count, len(notes)) == (0, 1)
    assert "alone does not lie in its run's folder, so that nothing tells what it was trained on." in notes[0]
    assert looked_up(student, images, None) == (len(images), [])  # by what student.json says
    shutil.move(image_folder, tmp_path / "moved")
    assert "were trained on" not in str(notes)
    _, notes = looked_up(tmp_path / "run", whole, None)
    assert "run was trained on" in notes[0]
    assert "are not there." in notes[0]


def test_groups_of_the_run_are_found_in_other_data_or_said_to_be_missing(image_folder: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("own", "alike", "other")}
    for name, there in folders.items():
        for number, path in enumerate(sorted((image_folder / "train").rglob("*.png"))):
            (there / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there / path.parent.name / f"{'p' if name != 'other' else 'x'}{number % 8}_{number}.png")
    data = {"path": str(folders["own"]), "options": {"group": "(p[0-9]+)_"}, "val_fraction": 0.3, "size": 16}
    values = {"data": {**data, "workers": 0}, "student": {"model": "digits/cnn_4_8"}}
    counterpoise.train({**values, "train": {"epochs": 1, "device": "cpu"}, "out": str(tmp_path / "run")})
    images = inputs.evaluated(tmp_path / "run", folders["alike"], None, None)[0]
    assert images.groups is not None
    assert len(images.groups.unique()) == 8
    assert inputs.without_groups(tmp_path / "run", images) == []
    images = inputs.evaluated(tmp_path / "run", folders["other"], None, None)[0]
    assert images.groups is None
    assert "these data name none: each picture counts alone" in inputs.without_groups(tmp_path / "run", images)[0]


def test_what_can_promise_nothing_is_refused_with_the_reason(run: Run, trained: Path, tmp_path: Path) -> None:
    code, _, err = run("promise", str(trained), "--risk", "0.001")
    assert code == 2
    assert "are needed at least" in err
    assert "student promised before stays: at most 10.00% wrong, at 95.0% confidence." in err
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


def test_of_pictures_that_may_have_chosen_the_epoch_a_note_tells(trained: Path) -> None:
    images, student = held_out(trained), load_student(trained)
    own = {**student.description.provenance, "epoch": {"ships": "best", "by": "top1"}}
    assert own["val_fingerprint"] == images.fingerprint()
    found = student.description.promise
    assert found is not None
    best = student.description.model_copy(update={"provenance": own})
    assert "may have chosen the student's epoch, by top1" in promises._notes(best, images, found, trained)[0]
    assert promises._notes(best, images.subset(torch.arange(9)), found, trained) == []
    own.pop("val_fingerprint")  # of an earlier version: the run knows
    older = student.description.model_copy(update={"provenance": own})
    assert len(promises._notes(older, images, found, trained)) == 1
    assert promises._notes(older, images.subset(torch.arange(9)), found, trained) == []


def test_nothing_is_wrong_of_no_answers(trained: Path) -> None:
    promise = load_student(trained).description.promise
    assert promise is not None
    report = ClassificationReport("abc", promise.model_copy(update={"threshold": 1.0}))
    report.update(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    values = report.values()
    assert (values["answered"], values["wrong_of_answered"]) == (0.0, None)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        print_all(report_tables(values))
    assert re.search(r"wrong_of_answered +-\n", shown.getvalue())


def test_a_promise_says_that_groups_counted(trained: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(trained / "student", student)
    given = {"data": TRAIN["data"]}
    images = held_out(trained)
    images.groups = torch.arange(len(images)) // 3
    found = counterpoise.promise(student, given, data_set=Splits(images, images), risk=0.2)
    assert found["groups"] == json.loads((student / "student.json").read_text())["promise"]["groups"] == 300
    assert "each of the 300 groups counted once" in found["notes"][0]
    assert "does not lie in its run's folder" in found["notes"][-1]
    assert f"of {len(images)} pictures of 300 groups." in _lines(found)[0]
    assert "each group counting alike; of groups like these" in _lines(found)[1]
    report = counterpoise.evaluate(student, given, data_set=Splits(images, images))
    assert counterpoise.evaluate(student, data_set=Splits(images, images)) == report  # no folder need say which data
    assert report["answered"] == pytest.approx(100 * found["answered"])
    assert report["wrong_of_answered"] == pytest.approx(100 * found["wrong"])
    images.groups = None
    alone = counterpoise.evaluate(student, data_set=Splits(images, images))
    assert "promise counts groups, and these data name none" in alone["notes"][0]
