"""Runs as methods."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from counterpoise import config
from counterpoise.pages.report.answer import between
from counterpoise.pages.report.methods import different, group, main
from counterpoise.pages.report.page import render
from counterpoise.pages.report.reading import Reading, find, read
from counterpoise.statistics import paired


def test_seeds_of_one_method_are_together_and_roles_are_known(digit_runs: Path) -> None:
    methods = group([read(folder) for folder in find(digit_runs)])
    assert [(method.name, method.role, len(method.runs)) for method in methods] == [
        ("Teacher", "teacher", 1),
        ("Student alone", "alone", 2),
        ("KD", "kd", 1),
        ("Balance", "student", 2),
    ]
    chosen = main(methods)
    assert chosen.name == "Balance"
    assert [method.color for method in methods] == ["teacher", "alone", "kd", "student"]
    values = [run.scores["top1"] for run in chosen.runs]
    assert chosen.mean("top1") == statistics.fmean(values)
    assert chosen.typical("top1").scores["top1"] == min(values)  # the lower one of two


def test_balance_of_a_softmax_and_of_questions_are_called_otherwise() -> None:
    terms = [{"balance": {}}, {"binary_balance": {}}, {"binary_balance": {"reverse_weight": 0.0}}]
    runs = [Reading(Path(str(n)), str(n), run=config.resolve({"objective": one})) for n, one in enumerate(terms)]
    assert [method.name for method in group(runs)] == ["KD", "Balance", "Binary Balance"]


def test_differences_are_paired_by_seed(digit_runs: Path) -> None:
    methods = group([read(folder) for folder in find(digit_runs)])
    rows = between(methods, main(methods), "top1")
    assert [(row["one"], row["other"]) for row in rows] == [
        ("Balance", "Student alone"),
        ("Balance", "KD"),
        ("KD", "Student alone"),
    ]
    one, other = (method.values("top1") for method in (methods[3], methods[1]))
    assert rows[0]["mean"] == statistics.fmean(one[seed] - other[seed] for seed in (1, 2))
    assert rows[0]["n"] == 2
    assert rows[0]["low"] < rows[0]["mean"] < rows[0]["high"]


def test_runs_that_are_not_finished_are_not_compared(copied: Callable[[str], Path]) -> None:
    balance, alone = copied("balance-1"), copied("alone-1")
    methods = group([read(balance), read(alone)])
    assert len(between(methods, main(methods), "top1")) == 1
    (alone / "summary.json").unlink()
    methods = group([read(balance), read(alone)])
    assert between(methods, main(methods), "top1") == []
    page = render([balance, alone])
    assert "Student alone, so far" in page
    assert "above the same student" not in page
    (balance / "summary.json").unlink()
    methods = group([read(balance), read(alone)])
    assert between(methods, main(methods), "top1") == []


def test_another_network_is_not_the_same_student_alone(digit_runs: Path) -> None:
    methods = group([read(digit_runs / name) for name in ("balance-1", "alone-1")])
    assert [row["other"] for row in between(methods, main(methods), "top1")] == ["Student alone"]
    balance = read(digit_runs / "balance-1")
    assert balance.student is not None
    balance.student["provenance"]["teacher"]["sha256"] = "of other weights"
    methods = group([balance, read(digit_runs / "teacher")])
    assert [method.name for method in methods] == ["digits/cnn_16_32, alone", "Balance"]
    assert between(methods, main(methods), "top1") == []


def test_a_difference_that_was_claimed_beforehand_is_not_corrected(digit_runs: Path, tmp_path: Path) -> None:
    for method in ("alone", "kd", "balance"):
        for seed in (1,) if method == "kd" else (1, 2):
            shutil.copytree(digit_runs / f"{method}-{seed}", tmp_path / "pair" / method / f"seed-{seed}")
    readings = [read(folder) for folder in find(tmp_path)]
    claimed = ("pair", "balance", "alone")
    methods = group(readings, claimed)
    chosen = main(methods, claimed)
    assert chosen.name == "Balance"
    first, second, _ = between(methods, chosen, "top1", claimed)
    assert first["p"] == paired(chosen.values("top1"), methods[0].values("top1")).p
    assert second["p"] is None  # one seed
    assert between(methods, chosen, "top1")[0]["p"] > first["p"]
    assert main(methods, ("pair", "kd", "alone")).name == "KD"


def test_methods_of_one_name_are_told_apart(copied: Callable[[str], Path]) -> None:
    first, second = copied("balance-1"), copied("balance-2")
    text = (second / "run.yaml").read_text()
    (second / "run.yaml").write_text(text.replace("epochs: 3", "epochs: 5"))
    readings = [read(first), read(second)]
    assert [method.color for method in group(readings)] == ["student", "other-1"]
    assert [method.name for method in group(readings)] == ["Balance (epochs 3)", "Balance (epochs 5)"]
    assert different(readings) == [("train.epochs", [3, 5])]


def test_code_in_a_run_file_is_not_run(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("kd-1")
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    text = (folder / "run.yaml").read_text()
    assert "forward_kl:\n    weight: 1.0\n    objective: null" in text
    (folder / "run.yaml").write_text(text.replace("objective: null", f"objective: {tmp_path}/mine.py:Mine"))
    assert group([read(folder)])[0].role == "student"
    assert not (tmp_path / "ran").exists()


def test_seeds_on_other_data_are_another_method(copied: Callable[[str], Path]) -> None:
    one, other = copied("balance-1"), copied("balance-2")
    assert [len(method.runs) for method in group([read(one), read(other)])] == [2]
    student = other / "student" / "student.json"
    described = json.loads(student.read_text())
    described["provenance"]["data_fingerprint"] = "0" * 64
    student.write_text(json.dumps(described))
    assert [len(method.runs) for method in group([read(one), read(other)])] == [1, 1]
    student.unlink()  # one that has not come to its end
    assert [len(method.runs) for method in group([read(one), read(other)])] == [2]
