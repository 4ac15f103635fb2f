"""Fits to a phone: the bundle of candidates, and going on from what its benchmark tool printed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from counterpoise.errors import ConfigError, RunError
from counterpoise.studies.fitting import phone
from counterpoise.studies.fitting.options import FitOptions
from counterpoise.studies.fitting.plan import FitPlan, resolve

Run = Callable[..., tuple[int, str, str]]
SMALL, LARGE = "digits-cnn_4_8-float32", "digits-cnn_16_32-float32"
STUDENTS = ("digits/cnn_4_8", "digits/cnn_16_32")
BUDGET = "latency<=5ms, size<=1MB"


def results(folder: Path, latency: Mapping[str, float], rounds: int = 6) -> Path:
    """results.txt as measure.sh would leave it there, where each file takes so many milliseconds."""
    lines = ["== device Pixel 9, Android 16"]
    for number in range(rounds):
        for name, milliseconds in latency.items():
            lines.append(f"== {name}.pte threads=1")
            lines += [f"I/ExecuTorch: Iteration {i + 1} of 10: {milliseconds + number / 100:f} ms" for i in range(10)]
            lines.append(f"I/ExecuTorch: Model executed successfully 10 time(s) in {10 * milliseconds:f} ms.")
    (folder / "results.txt").write_text("\n".join(lines) + "\n")
    return folder / "results.txt"


@pytest.fixture
def plan(run_file: Path) -> FitPlan:
    """As it is asked for."""
    pytest.importorskip("executorch")
    return resolve(run_file, FitOptions(budget=BUDGET, runtime="executorch", students=STUDENTS, out="fit"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle's contents, of two files that are not there."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    facts = {"runtime": "executorch", "versions": {}, "precision": "float32", "size": [8, 8], "bytes": 9000}
    files = {f"{name}.pte": {**facts, "name": name, "parameters": 7, "multiply_adds": 9} for name in (SMALL, LARGE)}
    (folder / "bundle.json").write_text(json.dumps({"files": files, "failed": {}}))
    return folder


def test_what_the_phone_said_stands_for_measurements(plan: FitPlan, bundle: Path) -> None:
    entries, others = phone.read(plan, [results(bundle, {SMALL: 1.0, LARGE: 2.0})])
    assert [entry["cases"][0]["median_ms"] for entry in entries.values()] == pytest.approx([1.025, 2.025])
    assert entries[LARGE]["cases"][0]["high_ms"] == 2.05
    assert entries[SMALL]["bytes"] == 9000
    assert not others


def test_measurements_of_something_else_are_refused(plan: FitPlan, bundle: Path, tmp_path: Path) -> None:
    file = results(bundle, {SMALL: 1.0})
    with pytest.raises(ConfigError, match=f"has no measurement of {LARGE}: write the candidates anew"):
        phone.read(plan, [file])
    (bundle / "results.txt").write_text(file.read_text().replace("threads=1", "threads=4"))
    contents = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**contents, "failed": {LARGE: "no such operator"}}))
    with pytest.raises(ConfigError, match="measured with 4 threads, and --threads is 1"):
        phone.read(plan, [file])
    (tmp_path / "results.txt").write_text(file.read_text())
    with pytest.raises(ConfigError, match=r"does not lie beside the bundle\.json"):
        phone.read(plan, [tmp_path / "results.txt"])


def test_other_files_are_not_taken_for_the_final_export(plan: FitPlan, tmp_path: Path) -> None:
    from counterpoise.deploy.measuring.subjects import Subject

    (tmp_path / "model.pte").write_bytes(b"trained again")
    subject = Subject("final", "executorch", "float32", tmp_path / "model.pte", "", (8, 8), ())
    with pytest.raises(RunError, match="is not the export that is there now"):
        phone.check_same({"file": "final.pte", "sha256": "0" * 64}, subject)


@pytest.mark.slow
def test_a_fit_goes_on_from_the_latencies_of_a_phone(run: Run, run_file: Path) -> None:
    """The phone is played by files with what its tool prints; exports, training and all else are real."""
    asked = ("--budget", BUDGET, "--runtime", "executorch", "--students", *STUDENTS, "--out", "fit", "--quiet")
    asked = (*asked, "--rounds", "6", "--val-images", "30")
    code, out, error = run("fit", run_file, *asked, "--candidates-to", "bundle")
    assert code == 0, error
    assert "--measured bundle/results.txt" in " ".join(out.split())
    names = {path.name for path in Path("bundle").iterdir()}
    assert names == {f"{SMALL}.pte", f"{LARGE}.pte", "bundle.json", "measure.sh"}

    first = results(Path("bundle"), {SMALL: 1.0, LARGE: 5.1})
    code, out, error = run("fit", run_file, *asked, "--measured", first)
    assert code == 0, error
    with Path("fit/frontier.csv").open(newline="") as file:
        assert {row["candidate"]: row["status"] for row in csv.DictReader(file)} == {
            SMALL: "winner",
            LARGE: "over budget",
        }
    assert "The promise rests on the untrained network so far" in out
    told: dict[str, Any] = json.loads(Path("fit/fit.json").read_text())
    assert (told["holds"], told["measured"]) == (None, {})

    final = Path("fit/final", f"final-{SMALL}-bundle")
    second = results(final, {f"final-{SMALL}": 1.2})
    code, out, error = run("fit", run_file, *asked, "--measured", first, second)
    assert code == 0, error
    assert "The export keeps" in out
    second = results(final, {f"final-{SMALL}": 6.0})
    assert run("fit", run_file, *asked, "--measured", first, second)[0] == 2
