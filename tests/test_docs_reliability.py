"""The figures of docs/reliability.md are those of the benchmark, and nothing was lost in it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from counterpoise.__main__ import INTERRUPTED
from counterpoise.commands.compare import LEFT

TARGETS = ("files", "checkpoints", "store")
ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_crashes_and_failures_is_that_of_its_csv() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([^|]+) \| (\d*) \| (\d+) \| (\d*) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    with (ROOT / "benchmarks" / "results" / "power.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = ("case", "changes", "states_tried", "calls", "failures_tried")
    assert shown == [(*(row[key] for key in keys), "0") for row in rows]
    assert all((row["states_lost"], row["failures_lost"]) == ("0", "0") for row in rows)


def test_the_faults_that_were_found_are_those_of_their_csv() -> None:
    with (ROOT / "benchmarks" / "results" / "mutants.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {target: [row["outcome"] != "not found" for row in rows if row["target"] == target] for target in TARGETS}
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\w+) \(`[^|]+\) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert shown == [(target, str(len(each)), str(sum(each))) for target, each in found.items()]
    assert all(sum(each) >= 0.9 * len(each) for each in found.values())


def test_the_hours_of_the_soak_are_those_of_its_csv() -> None:
    with (ROOT / "benchmarks" / "results" / "soak.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert rows[-1]["lost"] == "0"
    for row in rows:
        count = {key: f"{int(row[key]):,}" for key in row if key.endswith("s") and row[key].isdigit()}
        said = (
            f"in {float(row['hours']):.2g} hours {count['jobs']} jobs were started {count['commands']} times, "
            f"with {count['kills']} kills, {count['stops']} other stops, {count['pauses']} pauses, "
            f"{count['full_disks']} full disks, {count['resumes']} resumes and {count['moves']} changes of the number "
            f"of processes; lost: {row['lost']}."
        )
        assert said in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
        assert len(row["commit"]) == 40


def test_exit_codes_are_those_of_the_commands() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = page[page.index("## Exit codes") :].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == ["0", "2", str(LEFT), str(INTERRUPTED)]
