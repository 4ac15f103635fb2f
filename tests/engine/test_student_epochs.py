"""The students of a run's last and best epochs, by every command that takes one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise.commands import app
from counterpoise.deploy.measuring import measure
from counterpoise.deploy.options import Try
from counterpoise.deploy.site import making
from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import folder

Run = Callable[..., tuple[int, str, str]]
NAMES = ("top1", "top5", "loss")


def trained(out: Path, ship: str) -> Path:
    """A run whose best epoch is not its last."""
    train = {"epochs": 5, "batch_size": 50, "precision": "bf16", "device": "cpu", "ship": ship}
    data = {"source": "digits", "options": {"train_size": 150}}
    train["optimizer"] = {"learning_rate": 0.6}
    counterpoise.train({"data": data, "student": {"model": "digits/cnn_8_16"}, "seed": 3, "train": train, "out": out})
    return out


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, which ships its last student."""
    return trained(tmp_path_factory.mktemp("epochs") / "run", "last")


def summary(place: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((place / "summary.json").read_text())
    assert values["best"]["epoch"] < values["last"]["epoch"]
    return values


def test_evaluate_gives_the_score_of_the_epoch_that_is_named(run: Run, run_folder: Path, tmp_path: Path) -> None:
    ships_best = trained(tmp_path / "other", "best")
    for place, own in ((run_folder, "last"), (ships_best, "best")):
        told = summary(place)
        for flags, epoch in ([], own), (["--epoch", "last"], "last"), (["--epoch", "best"], "best"):
            code, out, _ = run("evaluate", place, *flags, "--json")
            assert code == 0
            assert {name: json.loads(out)[name] for name in NAMES} == {name: told[epoch][name] for name in NAMES}


def test_export_and_verify_take_the_best_student(run: Run, run_folder: Path) -> None:
    code, out, error = run("export", run_folder, "--to", "onnx", "--epoch", "best", "--json")
    assert code == 0, error
    made = json.loads(out)
    assert Path(made["folder"]) == run_folder / "exports" / "onnx-float32-best"
    assert made["agreement"]["images"] == 1797 - 150  # all that there are
    assert made["agreement"]["student"] == pytest.approx(summary(run_folder)["best"]["top1"])
    assert run("verify", made["folder"], "--student", run_folder)[0] == 0
    with pytest.raises(ConfigError, match="there is no run here"):
        measure.find([made["folder"]], None, None, "best")


def test_gauge_predict_measure_and_try_take_the_best_student(run: Run, run_folder: Path, tmp_path: Path) -> None:
    shipped = counterpoise.load_student(run_folder)
    other = counterpoise.load_student(run_folder, epoch="best")
    Image.fromarray((np.arange(64).reshape(8, 8) * 4 % 251).astype(np.uint8)).save("digit.png")
    answers = {}
    for flags in ([], ["--epoch", "best"]):
        code, out, error = run("predict", "digit.png", "--student", run_folder, *flags, "--json")
        assert code == 0, error
        answers[bool(flags)] = json.loads(out)[0]["top"]
    assert answers[True] == other.predict(["digit.png"])[0]["top"]
    assert answers[False] == shipped.predict(["digit.png"])[0]["top"] != answers[True]
    code, out, error = run("gauge", run_folder, "--teacher", run_folder, "--epoch", "best", "--json")
    assert (code, json.loads(out)["forward_kl"] > 0) == (0, True), error
    Path("notes.json").write_text("mine")
    code, _, error = run("gauge", run_folder, "--teacher", run_folder, "--out", "notes.json")
    assert (code, "give --overwrite" in error, Path("notes.json").read_text()) == (2, True, "mine")
    assert run("gauge", run_folder, "--teacher", run_folder, "--out", "notes.json", "--overwrite")[0] == 0
    assert json.loads(Path("notes.json").read_text())["forward_kl"] == 0  # the student itself
    (subject,) = measure.find([run_folder], (8, 8), None, "best")
    code, _, error = run("measure", "--from", "digit.png", "--epoch", "best")
    assert (code, "--epoch is of what is measured here" in error) == (2, True)
    space: dict[str, Any] = {}
    exec(subject.source, space)
    pixels = np.arange(192, dtype=np.uint8).reshape(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(
            torch.from_numpy(space["load"](str(subject.path), None)(pixels)), other(torch.from_numpy(pixels))
        )
    made = making._exported(run_folder, "float32", tmp_path / "site", Try(epoch="best"))
    assert made["student_sha256"] == other.weights_hash() != shipped.weights_hash()


def test_push_puts_the_best_student_with_a_card_of_its_own(run: Run, run_folder: Path) -> None:
    code, _, error = run("push", run_folder, "--out", "hub", "--epoch", "best")
    assert code == 0, error
    pushed = counterpoise.load_student("hub")
    assert pushed.weights_hash() == counterpoise.load_student(run_folder, epoch="best").weights_hash()
    assert pushed.weights_hash() != counterpoise.load_student(run_folder).weights_hash()
    best = summary(run_folder)["best"]
    card = Path("hub", "README.md").read_text()
    assert f"The weights are those of the best epoch, {best['epoch']} of 5." in card
    assert "those of the last epoch" not in card
    assert folder.read(Path("hub"))[0].provenance["epoch"]["number"] == best["epoch"]
    code, out, _ = run("evaluate", "hub", "--data", run_folder / "run.yaml", "--batch_size", "50", "--json")
    assert json.loads(out)["top1"] == best["top1"]


def test_a_promise_is_of_the_weights_that_chose_it(run_folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(run_folder, tmp_path / "run"))
    shares = dict.fromkeys(("risk", "confidence", "threshold", "coverage", "least", "answered", "wrong", "bound"), 0.5)
    chosen = {**shares, "temperature": 1.0, "pictures": 100, "set_size": 2.0, "data": "0"}
    described = json.loads((place / "student" / "student.json").read_text())
    (place / "student" / "student.json").write_text(json.dumps({**described, "promise": chosen}))
    assert counterpoise.load_student(place).promise is not None
    assert counterpoise.load_student(place, epoch="last").promise is not None
    assert counterpoise.load_student(place, epoch="best").promise is None


def test_report_is_about_the_best_student(run: Run, run_folder: Path) -> None:
    code, _, error = run("report", run_folder, "--epoch", "best", "--out", "page.html")
    assert code == 0, error
    page = Path("page.html").read_text()
    told = summary(run_folder)
    assert f"<strong>{told['best']['top1']:.1f}%</strong>" in page
    assert "of the best epoch" in page
    assert "--epoch best" in page
    assert app.run(["report", str(run_folder), "--out", "last.html", "--no-predictions"]) == 0
    assert f"<strong>{told['last']['top1']:.1f}%</strong>" in Path("last.html").read_text()


def test_weights_that_are_not_there_are_named(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(ModelError, match=r"best epoch are gone.*best\.safetensors"):
        counterpoise.load_student(tmp_path / "run", epoch="best")
    shutil.copytree(run_folder / "student", tmp_path / "alone")
    with pytest.raises(ModelError, match="does not lie in its run"):
        counterpoise.load_student(tmp_path / "alone", epoch="best")
    assert counterpoise.load_student(tmp_path / "alone", epoch="last").description.task == "classification"
    with pytest.raises(ConfigError, match="Did you mean 'best'"):
        counterpoise.evaluate(run_folder, epoch="bst")  # type: ignore[arg-type]
