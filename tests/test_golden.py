"""Files that an earlier version wrote are read as they were: golden/README.md says which version and how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
Run = Callable[..., tuple[int, str, str]]


def test_a_student_folder_loads_and_scores_as_it_did() -> None:
    from counterpoise import evaluate, load_student

    student = load_student(GOLDEN / "run" / "student")
    assert sum(weight.numel() for weight in student.parameters()) == 510
    was = json.loads((GOLDEN / "run" / "summary.json").read_text())["last"]
    score = evaluate(GOLDEN / "run", epoch="last", device="cpu")
    assert score["top1"] == was["top1"]
    assert score["loss"] == pytest.approx(was["loss"], rel=1e-6)


def test_a_store_is_whole_and_answers_as_it_did(run: Run) -> None:
    from counterpoise.teachers.store.reader import Store

    assert run("store", "verify", GOLDEN / "store")[0] == 0
    with Store.open(GOLDEN / "store") as store:
        logits = store.logits(torch.arange(100), torch.arange(100) % 9)
    assert logits.shape == (100, 10)
    assert logits.double().sum().item() == 8.735869348049164  # as that version read it


def test_a_run_goes_on_from_its_checkpoint(run: Run, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    code, out, _ = run("train", tmp_path / "run" / "run.yaml", "--out", tmp_path / "run", "--resume", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 8)


def test_an_export_verifies(run: Run) -> None:
    pytest.importorskip("onnxruntime")
    assert run("verify", GOLDEN / "onnx")[0] == 0


def test_results_of_a_comparison_are_rows() -> None:
    from counterpoise.studies import results

    rows = results.read_csv(GOLDEN / "compare" / "results.csv")
    assert {method: results.by_seed(rows, "all", method).keys() for method in ("kd", "balance")} == {
        "kd": {0, 1},
        "balance": {0, 1},
    }
    assert results.value(rows[0]) == 10.017678255745434
