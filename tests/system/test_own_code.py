"""Code of one's own runs where one names it, and never because a folder does, whatever the command and the key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import counterpoise
from counterpoise import config
from counterpoise.commands import app
from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import catalog
from counterpoise.system import own_code

Command = Callable[..., tuple[int, str, str]]
FAST = ["--train.epochs", "1", "--train.precision", "fp32", "--train.device", "cpu", "--quiet"]
DIGITS = ["--data.source", "digits", "--data.options.train_size", "60"]
NET = """
from pathlib import Path
from counterpoise.models.digits import create
from counterpoise.objectives.base import LogitObjective

Path(__file__).with_name("ran").touch()


def net(num_classes=10):
    return create("cnn_4_8", num_classes)


class Distance(LogitObjective):
    def values(self, student_logits, teacher_logits, target):
        return {"": (student_logits - teacher_logits).square().mean(1)}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert app.run(["train", *DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--out", str(out)]) == 0
    return out


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A run folder that names code by every key of its run file."""
    folder = tmp_path / "given"
    shutil.copytree(trained, folder)
    (folder / "net.py").write_text(NET)
    code = f"{folder}/net.py"
    values = yaml.safe_load((folder / "run.yaml").read_text())
    values["student"]["model"] = f"{code}:net"
    values["teacher"] = {"model": f"{code}:net", "checkpoint": str(folder / "student" / "model.safetensors")}
    values["teacher"]["accept_chance"] = True
    values["objective"] = {
        "mine": {"objective": f"{code}:Distance"},
        "standardized": {"of": f"{code}:Distance"},
        "class_weighted": {"of": f"{code}:Distance"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder


def in_student_json(folder: Path) -> None:
    path = folder / "student" / "student.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "architecture": f"{folder}/net.py:net"}))


def compare_file(folder: Path, **run: Any) -> Path:
    path = folder.parent / "compare.yaml"
    common = {"data": {"source": "digits", "options": {"train_size": 60}}, "student": {"model": "digits/cnn_4_8"}}
    values = {
        "out": str(folder.parent / "compared"),
        "run": {**common, "train": {"epochs": 1, "precision": "fp32", "device": "cpu"}, **run},
        "methods": {
            "alone": {"objective": {"cross_entropy": {"weight": 1.0}}},
            "other": {"objective": {"cross_entropy": {"weight": 0.5}}},
        },
        "baseline": "alone",
        "seeds": 1,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def commands(folder: Path, students: bool) -> list[list[str]]:
    own = str(folder)
    out = str(folder.parent / "out")
    picture = str(folder.parent / "picture.png")
    distil = [*DIGITS, *FAST, "--out", out]
    return [
        ["evaluate", own],
        ["evaluate", own, "--data", f"{own}/run.yaml"],
        ["gauge", own],
        ["gauge", own, "--data", f"{own}/run.yaml"],
        ["gauge", own, "--teacher.checkpoint", own],
        ["predict", picture, "--student", own],
        ["predict", picture, "--student", own, "--out", out, "--beside.other", own],
        ["export", own, "--to", "onnx", "--out", out, "--images", "4"],
        ["finetune", own, "--out", out, "--epochs", "1", "--quiet"],
        ["finetune", own, "--out", out, "--epochs", "1", "--quiet", "--teacher", own, "--overwrite"],
        ["verify", own],
        ["push", own, "--out", out],
        ["report", own, "--out", out + ".html"],
        ["watch", own, "--terminal"],
        ["train", "--out", own, "--resume", "--quiet"],
        ["distill", "--out", own, "--resume", "--quiet"],
        ["distill", *distil, "--student.model", "digits/cnn_4_8", "--teacher.checkpoint", own, "--overwrite"],
        ["distill", *distil, "--student.checkpoint", own, "--teacher.checkpoint", own, "--overwrite"],
        ["train", *distil, "--student.checkpoint", own, "--overwrite"],
        ["record", *DIGITS, "--student.model", "digits/cnn_4_8", "--teacher.checkpoint", own, "--out", out + "-store"],
        ["compare", str(compare_file(folder, student={"checkpoint": own}, teacher={"checkpoint": own})), "--quiet"],
        ["fit", str(compare_file(folder)), "--budget", "size=1", "--runtime", "onnx", "--out", own],
        ["store", "info", own],
        ["store", "verify", own],
        *([["try", own, "--out", out], ["measure", own]] if students else []),  # they look at nothing else
    ]


@pytest.mark.parametrize("also_the_student", [False, True])
def test_no_command_runs_code_that_a_folder_names(
    run: Command, folder: Path, make_picture: Callable[..., Any], also_the_student: bool
) -> None:
    make_picture("circle", 0).save(folder.parent / "picture.png")
    if also_the_student:
        in_student_json(folder)
    for command in commands(folder, also_the_student):
        code, _, err = run(*command)
        assert code in (0, 2), (command, err)
        assert "Traceback" not in err, command
        assert not (folder / "ran").exists(), command
        if command == ["gauge", str(folder)] or "--resume" in command:
            assert code == 2, command
            assert f"{folder}/net.py:net" in err, (command, err)
        for made in folder.parent.glob("out*"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()


def test_a_run_folder_that_compare_finds_runs_no_code(run: Command, folder: Path) -> None:
    file = compare_file(folder)
    place = folder.parent / "compared" / "runs" / "all" / "alone" / "seed-0"
    shutil.copytree(folder, place)
    code, _, err = run("compare", str(file), "--quiet")
    assert (code, "Traceback" in err) == (2, False)
    assert "holds another run" in err
    assert not (folder / "ran").exists()
    assert not (place / "ran").exists()


def test_the_way_out_works_as_it_is_told(run: Command, folder: Path) -> None:
    net, distance = f"{folder}/net.py:net", f"{folder}/net.py:Distance"
    code, _, err = run("gauge", folder)
    assert code == 2
    assert net in err
    assert "--teacher.model" in err
    assert run("gauge", folder, "--teacher.model", net, "--json")[0] == 0
    assert (folder / "ran").exists()
    in_student_json(folder)
    assert run("evaluate", folder, "--model", net)[0] == 0
    assert counterpoise.evaluate(folder, model=net)["top1"] >= 0
    code, _, err = run("distill", "--out", folder, "--resume", "--objective.mine.objective", distance, "--quiet")
    assert "Traceback" not in err  # another run than was begun, and what it names may be run


def test_a_resume_wants_the_code_named_again_and_says_how(run: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    arguments = [*DIGITS, *FAST, "--out", "mine"]
    assert run("train", *arguments, "--student.model", "net.py:net")[0] == 0
    own_code._named.clear()  # as in another process
    (tmp_path / "ran").unlink()
    code, _, err = run("train", "--out", "mine", "--resume", "--quiet")
    assert (code, "--student.model net.py:net" in err, (tmp_path / "ran").exists()) == (2, True, False)
    again = ["train", "--out", "mine", "--resume", "--quiet", "--student.model", "net.py:net"]
    code, _, err = run(*again)
    assert (code, (tmp_path / "ran").exists(), "has changed" in err) == (0, True, False)
    with (tmp_path / "net.py").open("a") as file:
        file.write("# edited\n")
    (tmp_path / "mine" / "summary.json").unlink()  # as where it had been killed shortly before its end
    assert "The code that student.model names has changed since the run was started" in run(*again)[2]
    assert "has changed" not in run(*again)[2]
    kept = json.loads((tmp_path / "mine" / "identity.json").read_text())["code.student.model"]
    assert len(kept.split("+")) == 2


def test_a_run_file_that_is_given_names_code(run: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "mine.yaml").write_text('student: {model: "net.py:net"}\n')
    assert run("train", "mine.yaml", *DIGITS, *FAST, "--out", "mine")[0] == 0
    assert (tmp_path / "ran").exists()


def test_values_in_python_name_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    with pytest.raises(ModelError, match="is code that a folder names"):
        catalog.build("net.py:net", num_classes=10)
    counterpoise.train(
        {
            "data": {"source": "digits", "options": {"train_size": 60}},
            "student": {"model": "net.py:net"},
            "train": {"epochs": 1, "precision": "fp32", "device": "cpu"},
            "out": "mine",
        }
    )
    assert Path("ran").exists()


def test_what_names_code_is_found_at_any_depth() -> None:
    values = {"a": [{"of": "x.py:Y"}], "objective": {"mine": {"objective": "b/mine.py:Mine"}}, "c": "plain"}
    assert own_code.flags(values) == "--a.of x.py:Y --objective.mine.objective b/mine.py:Mine"
    with pytest.raises(ConfigError, match=r"run\.yaml names code, x\.py:Y"):
        own_code.require(values, "run.yaml")


def test_a_name_that_no_file_can_have_is_left_to_the_check_of_the_run_file() -> None:
    own_code.name({"student": {"model": "a\0b.py:f"}})
    with pytest.raises(ConfigError, match=r"null character in student\.model"):
        config.resolve({"student": {"model": "a\0b.py:f"}})


def test_files_of_two_folders_have_each_their_own_helpers(tmp_path: Path) -> None:
    names = []
    for folder, width in (("t", 16), ("s", 4)):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "layers.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "parts" / "deep.py").write_text(f"DEPTH = {2 * width}\n")
        (tmp_path / folder / "net.py").write_text("from layers import WIDTH\nfrom parts.deep import DEPTH\n")
        names.append(f"{tmp_path / folder}/net.py:build")
    own_code.name(names)
    one, other, again = (own_code.load(each, ModelError) for each in (*names, names[0]))
    assert [(each.WIDTH, each.DEPTH) for each in (one, other, again)] == [(16, 32), (4, 8), (16, 32)]
    assert one.__name__ != other.__name__
