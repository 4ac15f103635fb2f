"""What runs and studies wrote, read again by them and by pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mutators
from campaign import Format
from making import copied, text

MEASURED = {
    "machine": {"processor": "a processor", "name": "a board"},
    "measured": [
        {
            "name": "model.onnx",
            "runtime": "ONNX Runtime",
            "precision": "float32",
            "bytes": 4000,
            "parameters": 510,
            "cases": [
                {"batch": 1, "threads": 1, "median_ms": 0.5, "low_ms": 0.4, "high_ms": 0.6, "peak_mb": 30.0},
                {"batch": 8, "threads": 2, "median_ms": 1.5},
            ],
        },
    ],
}
FRONTIER = """candidate,status,precision,megabytes,latency_ms,latency_low_ms,latency_high_ms,top1_2_epochs,top1_4_epochs
cnn_4_8-float32,chosen,float32,0.1,0.5,0.4,0.6,50.0,60.0
cnn_8_16-float32,beaten,float32,0.2,0.7,0.6,0.8,55.0,
"""
PHONE = """== device a phone
== model.pte threads=1
Model executed successfully 50 time(s) in 100.5 ms.
== model.pte threads=2
Model executed successfully 50 time(s) in 60.5 ms.
count=50 first=2000 curr=1000 min=900 max=2000 avg=1000.5 std=10 p5=1 median=1000 p95=1
"""
CASES = """case,level,class,dice,iou
p1,case,cell,0.5,0.4
p1,case,nerve,0.7,0.6
p2,case,cell,0.9,0.8
p2,picture,cell,0.9,
"""


def _run_report(folder: Path) -> Any:
    from counterpoise.pages.report import reading, writing

    found = reading.read(folder)
    writing.report(folder, out=folder / "report.html", overwrite=True, predictions=False)
    return found.values


def _watched(folder: Path) -> Any:
    from counterpoise.engine import pulling
    from counterpoise.pages.report import reading
    from counterpoise.pages.watching.following import Follower

    state = Follower(folder).read()
    pulling.read(folder / "metrics.jsonl")
    found = reading.read(folder)
    return state, state.status, state.seconds_left, found.steps, found.epochs


def _results(folder: Path) -> Any:
    from counterpoise.studies import results

    rows = results.read_csv(folder / "results.csv")
    return (
        [results.by_seed(rows, "all", method) for method in ("kd", "balance")],
        results.once(rows),
        results.origins(rows),
    )


def _cases(folder: Path) -> Any:
    from counterpoise.engine import case_files

    return case_files.of_cases(folder, "case dice")


def _shipped(name: str) -> Any:
    """What the page says of it."""

    def read(folder: Path) -> Any:
        from counterpoise.pages.report import deployment

        return deployment.deployment([folder / name], [], (folder, 50.0), {}, "top1")

    return read


def _ledger(folder: Path) -> Any:
    from counterpoise.studies.fitting.costing import Ledger

    return Ledger(folder / "measurements.jsonl").entries


def _phone(folder: Path) -> Any:
    from counterpoise.deploy.measuring import phones

    return phones.read_output(folder / "results.txt")


RESULTS: tuple[Format, ...] = (
    Format(
        "metrics.jsonl",
        copied("run", "metrics.jsonl", "run.yaml", "summary.json"),
        "metrics.jsonl",
        mutators.of_json_lines,
        _watched,
    ),
    Format(
        "run folder on a page",
        copied("run", "run.yaml", "metrics.jsonl", "summary.json", "student/student.json"),
        "summary.json",
        mutators.of_json,
        _run_report,
    ),
    Format("results.csv", copied("compare", "results.csv"), "results.csv", mutators.of_csv, _results),
    Format("cases.csv", text("cases.csv", CASES), "cases.csv", mutators.of_csv, _cases),
    Format(
        "measurements.jsonl",
        text("measurements.jsonl", json.dumps({"key": "a", **MEASURED["measured"][0]}) + "\n"),
        "measurements.jsonl",
        mutators.of_json_lines,
        _ledger,
    ),
    Format("results of a phone", text("results.txt", PHONE), "results.txt", mutators.of_text, _phone),
    Format(
        "export.json on a page",
        copied("onnx", "export.json"),
        "export.json",
        mutators.of_json,
        _shipped("export.json"),
    ),
    Format(
        "measurements on a page",
        text("measure.json", json.dumps(MEASURED)),
        "measure.json",
        mutators.of_json,
        _shipped("measure.json"),
    ),
    Format(
        "candidates on a page",
        text("frontier.csv", FRONTIER),
        "frontier.csv",
        mutators.of_csv,
        _shipped("frontier.csv"),
    ),
)
