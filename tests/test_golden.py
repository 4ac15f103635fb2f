"""Files that an earlier version wrote are read as they were: golden/README.md says which version and how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.label_map import read_label_map
from counterpoise.models import checkpoint

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


@pytest.mark.parametrize(
    ("folder", "runtime"),
    [
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("executorch", "executorch"),
        ("litert", "ai_edge_litert"),
    ],
)
def test_an_export_verifies(folder: str, runtime: str, run: Run) -> None:
    if find_spec(runtime) is None:
        pytest.skip(f"needs {runtime}")
    assert run("verify", GOLDEN / folder)[0] == 0


def test_a_pack_of_scenes_is_whole_and_reads_as_it_did(run: Run) -> None:
    assert run("verify", GOLDEN / "pack")[0] == 0
    splits = sources.load(config.Data(path=GOLDEN / "pack"))
    assert splits.train.classes == splits.val.classes == ("cell", "nerve")
    found = [
        [(part.read(index).sum().item(), part.read_mask(index).sum().item()) for index in range(len(part))]
        for part in splits
    ]
    assert found == [[(24687, 5123), (24048, 6144), (23715, 6395)], [(22611, 5631)]]  # as that version read them


def test_a_classes_file_means_what_it_did() -> None:
    found = read_label_map(GOLDEN / "classes.txt", None)
    assert found.classes == ("cell", "nerve")
    assert found.of_values[:3].tolist() == [255, 0, 1]


def test_a_checkpoint_and_metrics_hold_what_they_did() -> None:
    weights = checkpoint.read(GOLDEN / "run" / "checkpoints" / "last.safetensors")
    assert sum(value.numel() for value in weights.state.values()) == 536
    lines = [json.loads(line) for line in (GOLDEN / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("epoch", 4), ("epoch", 8)]


def test_results_of_a_comparison_are_rows() -> None:
    from counterpoise.studies import results

    rows = results.read_csv(GOLDEN / "compare" / "results.csv")
    assert {method: results.by_seed(rows, "all", method).keys() for method in ("kd", "balance")} == {
        "kd": {0, 1},
        "balance": {0, 1},
    }
    assert results.value(rows[0]) == 10.017678255745434


def test_a_search_trains_nothing_that_is_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN / "search", tmp_path / "search")
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    code, out, _ = run("search", "search/search.yaml", "--no-final", "--quiet", "--json")
    assert (code, len(before)) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads(out)["winners"]["alone"] == {
        "trial": 0,
        "score": 10.0,
        "learning_rate": 0.07089,
        "weight_decay": 0.001628,
    }


def test_measurements_of_a_fit_stand() -> None:
    from counterpoise.studies.fitting.costing import Ledger

    entries = Ledger(GOLDEN / "measurements.jsonl").entries
    assert [(entry["name"], entry["cases"][0]["median_ms"]) for entry in entries.values()] == [
        ("digits-cnn_4_8-float32", 0.006680000296910293),
        ("final-digits-cnn_4_8-float32", 0.006649999704677612),
    ]


def test_a_student_keeps_what_it_promised(tmp_path: Path) -> None:
    from counterpoise import load_student

    shutil.copytree(GOLDEN / "run" / "student", tmp_path / "student")
    shutil.copy(GOLDEN / "promised.json", tmp_path / "student" / "student.json")
    promise = load_student(tmp_path / "student").promise
    assert promise is not None
    assert (promise.risk, promise.threshold, promise.least) == (0.95, 0.0, 0.09898269884595981)
