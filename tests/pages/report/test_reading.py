"""Run folders in every state that one finds them in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise.pages.report.page import render
from counterpoise.pages.report.reading import find, read

Copy = Callable[[str], Path]


def test_a_finished_run_lacks_nothing(digit_runs: Path) -> None:
    reading = read(digit_runs / "balance-1")
    assert reading.missing == []
    assert (len(reading.epochs), reading.seed, reading.task) == (3, 1, "classification")
    assert reading.scores["top1"] == json.loads((digit_runs / "balance-1" / "summary.json").read_text())["last"]["top1"]
    assert reading.teacher_weights == read(digit_runs / "teacher").weights


def test_a_run_that_is_still_being_written(copied: Copy) -> None:
    folder = copied("balance-1")
    (folder / "summary.json").unlink()
    (folder / "student" / "student.json").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line).get("epoch", 0) < 1]
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n" + lines[-1][:40])
    reading = read(folder)
    assert reading.missing == [
        "The run is not finished: 1 evaluations and 6 steps are logged, of 3 epochs.",
        "The last line of metrics.jsonl is not complete.",
    ]
    page = render([folder])
    assert "The run is not finished" in page
    assert "and is not finished" in page
    assert f"{reading.scores['top1']:.1f}%" in page


def test_a_run_that_has_just_begun(copied: Copy) -> None:
    folder = copied("balance-1")
    (folder / "summary.json").unlink()
    (folder / "student" / "student.json").unlink()
    (folder / "metrics.jsonl").write_text("")
    assert "The student has not been evaluated yet." in read(folder).missing
    assert "no evaluation yet" in render([folder])
    (folder / "metrics.jsonl").unlink()
    assert "There is no metrics.jsonl." in read(folder).missing
    assert "no evaluation yet" in render([folder])


def test_damaged_lines_and_files_are_left_out_and_counted(copied: Copy) -> None:
    folder = copied("balance-1")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe{"kind"\n[1, 2]\n{"kind": "epoch", "epoch": "x", "val": {"top1": "high"}, "terms": 3}\n')
    (folder / "summary.json").write_text('{"last": {"to')
    reading = read(folder)
    assert "2 lines of metrics.jsonl cannot be read, and are left out." in reading.missing
    assert "summary.json is damaged or cut off." in reading.missing
    assert "summary.json is damaged or cut off." in render([folder])


def test_a_run_file_of_another_version_is_shown_as_it_stands(copied: Copy) -> None:
    folder = copied("balance-1")
    (folder / "run.yaml").write_text((folder / "run.yaml").read_text() + "telepathy: {strength: 3}\n")
    reading = read(folder)
    assert reading.run is None
    assert reading.values["telepathy"] == {"strength": 3}
    assert any("another version" in note and "telepathy" in note for note in reading.missing)
    page = render([folder])
    assert "telepathy" in page
    assert f"{reading.scores['top1']:.1f}%" in page


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "", "\x00"])
def test_a_run_file_that_is_none(copied: Copy, text: str) -> None:
    folder = copied("balance-1")
    (folder / "run.yaml").write_text(text)
    assert read(folder).missing
    assert "<h1>" in render([folder])


def damaged(value: Any, chance: random.Random) -> Any:
    """The value with something in it lost, or replaced by what should not be there."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        rest = {name: inner for name, inner in value.items() if name != key}
        return rest if chance.random() < 0.25 else {**rest, key: damaged(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.6:
        place = chance.randrange(len(value))
        return [*value[:place], damaged(value[place], chance), *value[place + 1 :]]
    return chance.choice([None, "x", [], {}, -1, 1e308, float("nan"), True, ["a"], {"a": {"b": 1}}, "<b>", 10**30])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_values_files_hold_there_is_a_page(copied: Copy, seed: int) -> None:
    folder, chance = copied("balance-1"), random.Random(seed)
    for name in ("summary.json", "student/student.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(damaged(damaged(values, chance), chance)))
    run = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump(damaged(run, chance)))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [damaged(line, chance) if chance.random() < 0.2 else line for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert "<h1>" in render([folder])


def test_nothing_outside_the_run_folder_is_read(copied: Copy, tmp_path: Path) -> None:
    folder = copied("balance-1")
    (tmp_path / "secret").write_text(json.dumps({"last": {"top1": 99.87}, "word": "xyzzy"}))
    (folder / "summary.json").unlink()
    (folder / "summary.json").symlink_to(tmp_path / "secret")
    reading = read(folder)
    assert "summary.json leads out of its folder, so it was not read." in reading.missing
    page = render([folder])
    assert "99.87" not in page
    assert "xyzzy" not in page


def test_folders_of_runs_are_searched_without_following_links(digit_runs: Path, tmp_path: Path) -> None:
    assert [folder.name for folder in find(digit_runs)] == sorted(
        ["teacher", "kd-1", *(f"{kind}-{seed}" for kind in ("alone", "balance") for seed in (1, 2))]
    )
    (tmp_path / "runs" / "pair").mkdir(parents=True)
    (tmp_path / "runs" / "pair" / "elsewhere").symlink_to(digit_runs)
    assert find(tmp_path) == []
    assert find(tmp_path / "absent") == []
