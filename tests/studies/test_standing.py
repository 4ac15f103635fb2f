"""What was trained stands for what is asked for where data and teacher are the same, wherever they lie."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data.packs.making import make
from counterpoise.studies.standing import Present

Values = dict[str, Any]
SHAPES = ("circle", "square", "stripes")
Draw = Callable[..., Image.Image]


def photos(draw: Draw, root: Path, first: int) -> Path:
    for half, count in (("train", 6), ("val", 3)):
        for shape in SHAPES:
            (root / half / shape).mkdir(parents=True)
            for number in range(count):
                draw(shape, first + 100 * (half == "val") + number, (16, 16)).save(
                    root / half / shape / f"{number}.png"
                )
    return root


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def one(tmp_path: Path, make_picture: Draw, monkeypatch: pytest.MonkeyPatch) -> Values:
    """A comparison of two methods on photos, whose teacher learned from these; photos2 are others."""
    monkeypatch.chdir(tmp_path)
    photos(make_picture, tmp_path / "photos", 0)
    photos(make_picture, tmp_path / "photos2", 50)
    run: Values = {
        "data": {"path": "photos", "workers": 0},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 1, "batch_size": 6, "precision": "fp32", "device": "cpu"},
    }
    counterpoise.train({**run, "out": "teacher"})
    return {
        "out": "out",
        "run": {**run, "teacher": {"checkpoint": "teacher"}},
        "methods": {
            "alone": {"objective": {"cross_entropy": {}}},
            "kd": {"objective": {"cross_entropy": {}, "forward_kl": {}}},
        },
        "seeds": 1,
        "baseline": "alone",
    }


def test_the_rows_of_other_data_do_not_stand_for_it(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    file = write(one)
    assert run("compare", file, "--quiet")[0] == 0
    first = rows(Path("out"))
    other = write({**one, "run": {**one["run"], "data": {"path": "photos2", "workers": 0}}}, "other.yaml")
    for _ in range(2):
        code, _, err = run("compare", other, "--quiet")
        assert code == 2
        assert "training images: data.path is photos there and photos2 here, which hold others" in err
        assert "validation images" in err
        assert "Give another 'out' (--out), or move that folder away." in err
    shutil.rmtree("out/runs")  # the way out: rows alone do not stand for other data either
    assert run("compare", other, "--quiet")[0] == 0
    everything = rows(Path("out"))
    assert [row["last"] for row in everything if row["data"] == first[0]["data"]] == [row["last"] for row in first]
    assert len(everything) == 4
    assert json.loads(Path("out/runs/all/kd/seed-0/identity.json").read_text())["data"] != first[0]["data"]
    table = rows_of_table(Path("out"))
    assert {row["n"] for row in table} == {"1"}
    shutil.rmtree("out/runs")
    _, out, _ = run("compare", file, "--quiet")  # nothing is trained anew: its rows are there
    assert not Path("out/runs").exists()
    assert "results.csv holds 2 runs" in " ".join(out.split())
    assert [row["last"] for row in rows(Path("out")) if row["data"] == first[0]["data"]] == [r["last"] for r in first]


def test_the_trials_of_other_data_do_not_stand_for_it(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    searched = {
        **{key: one[key] for key in ("out", "run")},
        "methods": {
            "alone": one["methods"]["alone"],
            "kd": {"objective": {"cross_entropy": {}, "forward_kl": {"weight": "$total"}}},
        },
        "ranges": {
            "learning_rate": {"key": "train.optimizer.learning_rate", "low": 0.02, "high": 0.4, "log": True},
            "weight_decay": {"key": "train.optimizer.weight_decay", "low": 1e-5, "high": 1e-2, "log": True},
        },
        "trials": 1,
        "rungs": [1],
        "val_images": 4,
        "final": {"baseline": "alone", "primary": "kd", "seeds": 1},
    }
    code, _, err = run("search", write(searched), "--no-final", "--quiet")
    assert code == 0, err
    other = {**searched, "run": {**one["run"], "data": {"path": "photos2", "workers": 0}}}
    code, _, err = run("search", write(other), "--no-final", "--quiet")
    assert code == 2
    assert "training images: data.path is photos there and photos2 here, which hold others" in err


def rows_of_table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_data_and_teacher_may_move_and_may_not_change(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run("compare", write(one), "--quiet")[0] == 0
    before = rows(Path("out"))
    shutil.copytree("photos", "moved")
    moved = write({**one, "run": {**one["run"], "data": {"path": "moved", "workers": 0}}}, "moved.yaml")
    assert run("compare", moved, "--quiet")[0] == 0
    assert rows(Path("out")) == before
    file = next(Path("photos/train/circle").glob("*.png"))
    whole = file.read_bytes()
    for other in (whole + b" ", whole[:-1] + b"?"):  # of another size, and of the same
        file.write_bytes(other)
        code, _, err = run("compare", write(one), "--quiet")
        assert code == 2
        assert "training images: those in photos are others than they were" in err
    file.write_bytes(whole)
    weights = Path("teacher/student")
    counterpoise.train({**one["run"], "teacher": None, "seed": 9, "out": "second"}, show=False)
    shutil.rmtree(weights)
    shutil.copytree("second/student", weights)
    code, _, err = run("compare", write(one), "--quiet")
    assert code == 2
    assert "kd, seed 0" in err
    assert "teacher, weights: sha256" in err


def test_a_run_by_shards_does_not_stand_for_one_by_others(
    tmp_path: Path, make_picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(make_picture, tmp_path / "photos", 0)
    for shards in (2, 3):
        make(config.Data(path=Path("photos")), Path(f"pack{shards}"), shards=shards)
    run = config.resolve({"data": {"path": "pack2", "shuffle": "blocks"}, "objective": {"cross_entropy": {}}})
    other = run.model_copy(update={"data": run.data.model_copy(update={"path": Path("pack3")})})
    kept = Present().of(run)
    assert kept is not None
    assert Present().differences(run, kept, run) == []
    (said,) = Present().differences(run, kept, other)
    assert said.startswith("shards: data.path is pack2 there and pack3 here, which hold others (sha256 ")
    full, others = (
        one.model_copy(update={"data": one.data.model_copy(update={"shuffle": "full"})}) for one in (run, other)
    )
    same = Present().of(full)
    assert same is not None
    assert Present().differences(full, same, others) == []


def test_a_folder_that_noted_nothing_stands_where_its_path_is_the_same(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run("compare", write(one), "--quiet")[0] == 0
    for folder in Path("out/runs").glob("*/*/seed-0"):
        (folder / "identity.json").unlink()
        shutil.rmtree(folder / "checkpoints")
        shutil.rmtree(folder / "student")
    code, _, err = run("compare", write(one))
    assert code == 0
    assert "did not note their data: their paths are the same" in " ".join(err.split())
    shutil.copytree("photos", "moved")
    moved = write({**one, "run": {**one["run"], "data": {"path": "moved", "workers": 0}}}, "moved.yaml")
    code, _, err = run("compare", moved, "--quiet")
    assert code == 2
    assert "data.path: photos there, moved here, and what lay there was not noted" in err


def test_an_earlier_version_is_read_from_its_student_or_its_checkpoint(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run("compare", write(one), "--quiet")[0] == 0
    for folder in Path("out/runs").glob("*/*/seed-0"):
        (folder / "identity.json").unlink()
        if "kd" in folder.parts:
            shutil.rmtree(folder / "checkpoints")
    other = write({**one, "run": {**one["run"], "data": {"path": "photos2", "workers": 0}}}, "other.yaml")
    for method in ("alone", "kd"):
        code, _, err = run("compare", other, "--quiet")
        assert code == 2
        assert f"{method}/seed-0 holds another run" in err
        assert "photos there and photos2 here, which hold others" in err
        shutil.rmtree(f"out/runs/all/{method}")


def test_what_cannot_be_looked_at_is_said(
    one: Values, write: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    assert run("compare", write(one), "--quiet")[0] == 0
    before = rows(Path("out"))
    shutil.move("photos", "elsewhere")
    code, _, err = run("compare", write(one))
    assert code == 0
    assert rows(Path("out")) == before
    assert "cannot be checked: Folder photos (data.path) does not exist" in " ".join(err.split())
    gone = write({**one, "run": {**one["run"], "data": {"path": "gone", "workers": 0}}}, "gone.yaml")
    code, _, err = run("compare", gone, "--quiet")
    assert code == 2
    assert "data.path: photos there, gone here, and what lies there cannot be read" in err
    assert yaml.safe_load(Path("out/runs/all/kd/seed-0/run.yaml").read_text())["data"]["path"] == "photos"


def test_a_run_of_code_that_was_edited_does_not_stand(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    values = {"data": {"source": "digits"}, "student": {"model": f"{file}:net"}}
    run = config.resolve(values | {"objective": {"mine": {"objective": f"{file}:Mine"}}})
    file.write_text("one = 1\n")
    kept = Present().of(run)
    assert kept is not None
    assert not Present().differences(run, kept, run)
    file.write_text("one = 2\n")
    found = Present().differences(run, kept, run)
    assert [line.partition(":")[0] for line in found] == ["student.model", "objective.mine.objective"]
    assert not Present().differences(run, {key: kept[key] for key in kept if not key.startswith("code")}, run)
