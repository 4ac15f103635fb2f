"""Objectives on features from the command line: adapters learn, are resumed to the bit, and stay behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.objectives.wkd import cosines

DATA = ["--data.source", "digits", "--data.options.train_size", "300", "--train.device", "cpu", "--quiet"]
LAST_TWO = {"student_features": ["@-2", "@-1"], "teacher_features": ["@-2", "@-1"]}
# The student's stages are 8x8 and 4x4, the teacher's last two 4x4 and 2x2, with other numbers of channels.
TERMS: dict[str, dict[str, object]] = {
    "at": {"weight": 100, **LAST_TWO},
    "cirkd": {"pixel_memory": 64, "region_memory": 16, "pixel_contrast": 100, "region_contrast": 40},
    "crd": {"weight": 0.8, "negatives": 50, "dimension": 16},
    "cwd_feature": {"weight": 50},
    "fitnet": {"weight": 10},
    "reviewkd": LAST_TWO,
    "rkd": {},
    "wkd": {},
}


@pytest.fixture(scope="session")
def teacher(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    host.run(["train", *DATA, "--student.model", "digits/cnn_4_8_16", "--train.epochs", "1", "--out", str(out)])
    return out


def arguments(folder: Path, terms: dict[str, dict[str, object]], teacher: Path, *more: str) -> list[str]:
    run_file = folder / "run.yaml"
    # 300 samples in batches of 23 end with a batch of one, whose pooled features have no batch statistics.
    training = {"epochs": 2, "batch_size": 23, "log_every": 1, "checkpoint_minutes": 0, "precision": "fp32"}
    run_file.write_text(json.dumps({"objective": terms, "train": training}))
    models = ["--student.model", "digits/cnn_4_8", "--teacher.checkpoint", str(teacher), "--teacher.accept_chance"]
    return ["distill", str(run_file), *DATA, *models, *more]


def step_terms(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["terms"] for line in lines if line["kind"] == "step"]


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes_and_ships_the_student_alone(
    host: Any, teacher: Path, tmp_path: Path
) -> None:
    command = arguments(tmp_path, {"cross_entropy": {}, **TERMS}, teacher)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    host.run([*command, "--out", str(whole)])

    metrics = killed / "metrics.jsonl"
    assert host.kill([*command, "--out", str(killed)], lambda: metrics.exists() and metrics.read_text().count("\n") > 3)
    assert not (killed / "student").exists()
    early = load_file(killed / "checkpoints" / "last.safetensors")
    host.run([*command, "--out", str(killed), "--resume"])
    for file in ("student/model.safetensors", "checkpoints/best.safetensors"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    ended, expected = (load_file(folder / "checkpoints" / "last.safetensors") for folder in (killed, whole))
    torch.testing.assert_close(ended, expected, rtol=0, atol=0)
    assert step_terms(killed) == step_terms(whole)
    assert {term.split("/")[0] for term in step_terms(whole)[0]} == {"cross_entropy", *TERMS}

    likeness = ended["objective.terms.wkd.likeness"]
    rows = load_file(teacher / "student" / "model.safetensors")["classifier.weight"]
    torch.testing.assert_close(likeness, torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2))
    adapters = [name for name in ended if name.startswith("objective.") and name.endswith("weight")]
    assert {name.split(".")[2] for name in adapters} == {"cirkd", "crd", "cwd_feature", "fitnet", "reviewkd"}
    for name in adapters:
        assert (ended[name] - early[name]).abs().max() > 1e-4, f"{name} does not learn"

    plain = catalog.build("digits/cnn_4_8", num_classes=10).net
    assert load_file(whole / "student" / "model.safetensors").keys() == plain.state_dict().keys()
    student = counterpoise.load_student(whole / "student")
    assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in plain.parameters())


def test_two_processes_share_one_memory_and_one_network(host: Any, teacher: Path, tmp_path: Path) -> None:
    """Each sees 10 or 11 of a batch; yet the memory of the first holds all samples, of unit length, with labels.

    Of features alone, on which the classifier's parameters have no influence, so that its answers are not scored.
    """
    out = tmp_path / "two"
    terms = {**{name: TERMS[name] for name in ("crd", "fitnet")}, "features": {}}
    more = ("--train.batch_size", "21", "--train.epochs", "1", "--train.ema", "0.5", "--out", str(out))
    host.together(arguments(tmp_path, terms, teacher, *more))
    state = load_file(out / "checkpoints" / "last.safetensors")
    assert (state["objective.terms.crd.labels"] >= 0).all()
    for side in ("student", "teacher"):
        length = state[f"objective.terms.crd.{side}_memory"].norm(dim=1)
        torch.testing.assert_close(length, torch.ones(300))
    told = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = next(line["val"] for line in told if line["kind"] == "epoch")
    summary = json.loads((out / "summary.json").read_text())
    assert scores.keys() == {"explained"}
    assert 0 < scores["explained"] < 100
    for found in (summary["last"], summary["best"]):
        assert found["explained"] == pytest.approx(scores["explained"], rel=1e-6)
    with pytest.raises(ModelError, match="its classifier is untrained"):
        counterpoise.evaluate(out)


def test_beside_a_store_its_teacher_says_how_alike_classes_are_and_else_a_file_does(
    host: Any, teacher: Path, tmp_path: Path
) -> None:
    once = ["--train.epochs", "1", "--train.batch_size", "100"]
    command = arguments(tmp_path, {"wkd": {}}, teacher, *once)
    store, likeness = tmp_path / "store", tmp_path / "likeness.safetensors"
    host.run(["record", *command[1:], "--views", "epochs", "--out", str(store)])
    rows = load_file(teacher / "student" / "model.safetensors")["classifier.weight"]
    save_file({"rows": rows}, likeness)
    live, beside, by_file = (tmp_path / name for name in ("live", "beside", "by_file"))
    alone = [*command[: command.index("--teacher.checkpoint")], *once, "--teacher.store", str(store)]
    host.run([*alone, "--out", str(tmp_path / "no")], code=2)
    assert "objective.wkd looks at the last layer of the teacher" in host.said()
    host.run([*command, "--out", str(live)])
    host.run([*command, "--teacher.store", str(store), "--out", str(beside)])
    host.run([*alone, "--objective.wkd.likeness", str(likeness), "--out", str(by_file)])
    found = [load_file(folder / "checkpoints" / "last.safetensors") for folder in (live, beside, by_file)]
    assert all(torch.equal(one["objective.terms.wkd.likeness"], cosines(rows)) for one in found)
    # Whoever says what is alike, from the same store it is the same student.
    assert (beside / "student/model.safetensors").read_bytes() == (by_file / "student/model.safetensors").read_bytes()


def test_a_stage_that_is_not_there_is_named(host: Any, teacher: Path, tmp_path: Path) -> None:
    host.run([*arguments(tmp_path, {"at": {}}, teacher), "--out", str(tmp_path / "no")], code=2)
    assert "has no stage '@-3': it has 2" in host.said()
    assert "Traceback" not in host.said()
