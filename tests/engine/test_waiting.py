"""Where the time of steps goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from counterpoise.data.stages import Stages
from counterpoise.data.workers import worker_count
from counterpoise.engine.waiting import advice, merged, readers_in_words, shares
from counterpoise.pages.report.page import render
from counterpoise.system import machine

Run = Callable[..., tuple[int, str, str]]


def test_a_stage_within_another_counts_as_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("counterpoise.data.stages.time.perf_counter", lambda: next(clock))
    stages = Stages()
    with stages.timed("views"), stages.timed("reading"):
        pass
    assert stages.drained() == {"reading": 3.0, "views": 7.0}
    assert stages.drained() == {}


def test_waiting_counts_where_a_device_had_nothing_to_do() -> None:
    # 10 s, of which a device worked 7: of the 6 s that the host waited, 3 held the step up
    assert merged(10.0, {"pictures": 4.0, "store": 2.0}, {"student": 7.0}) == pytest.approx(
        {"pictures": 2.0, "store": 1.0, "student": 7.0}
    )
    assert merged(10.0, {"pictures": 1.0}, {"student": 7.0})["pictures"] == 1.0


@pytest.mark.parametrize(
    ("steps", "reading", "workers", "cores", "told"),
    [
        (
            {"pictures": 4, "student": 6},
            {"decoding": 12},
            1,
            8,
            "pictures 40% of the time: data.workers 3, or write",
        ),
        (
            {"pictures": 4, "student": 6},
            {"decoding": 9, "reading": 1},
            2,
            2,
            "40% of the time: write the set once",
        ),
        ({"pictures": 4, "student": 6}, {"decoding": 1, "reading": 9}, 2, 2, "put the files on a faster disk"),
        ({"pictures": 0.3, "store": 4, "student": 6}, {}, 2, 2, "waits for the teacher store 39% of the time"),
        ({"pictures": 0.1, "teacher": 6, "student": 4}, {}, 2, 2, "counterpoise record"),
        ({"pictures": 0.3, "student": 9.7}, {}, 2, 2, "The step waits for pictures 3% of the time."),
    ],
)
def test_advice_names_what_is_waited_for_and_what_would_help(
    steps: dict[str, float], reading: dict[str, float], workers: int, cores: int, told: str
) -> None:
    assert told in advice(steps, reading, workers, cores)


def test_it_is_told_what_those_who_read_did_and_how_long_they_waited_for_steps() -> None:
    steps, reading = {"pictures": 1.0, "student": 9.0}, {"decoding": 8.0, "views": 2.0}
    assert readers_in_words(steps, {"workers": 2, **reading}) == (
        "2 reading processes: 50% waiting, 40% decoding, 10% views"
    )
    assert readers_in_words(steps, {"workers": 0, **reading}) == "pictures: 80% decoding, 20% views"
    assert readers_in_words(steps, {}) == ""  # as runs of earlier versions


def test_workers_are_the_cores_of_this_process_and_no_more_than_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert machine.cores() == 1  # not what the host has
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [worker_count("auto", batches) for batches in (100, 3, 1)] == [8, 3, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert worker_count("auto", 100) == 2
    assert [worker_count(told, 1) for told in (0, 5)] == [0, 5]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_says_where_its_time_went(run: Run, image_folder: Path, tmp_path: Path, workers: str) -> None:
    code, _, error = run(
        *("train", "--data", image_folder, "--student.model", "cifar/resnet8", "--student.input_size", "16"),
        *("--train.epochs", "2", "--train.batch_size", "6", "--train.log_every", "2", "--train.device", "cpu"),
        *("--data.workers", workers, "--data.views.crop", "resized", "--out", "run", "--quiet", "--json"),
    )
    assert code == 0, error
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line["stages"] for line in lines if line["kind"] in ("step", "epoch")]
    assert all({"pictures", "copy", "student", "optimizer", "other"} <= set(stages) for stages in told)
    assert all(value >= 0 for stages in told for value in stages.values())
    assert all("teacher" not in stages for stages in told), "nobody is asked"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "waits for pictures" in summary["advice"] == lines[-1]["advice"]
    assert sum(shares(summary["stages"]).values()) == pytest.approx(100)
    readers = [line["readers"] for line in lines if line["kind"] == "epoch"]
    assert all({"workers", "reading", "decoding", "views"} == set(told) for told in (*readers, summary["readers"]))
    assert {told["workers"] for told in readers} == {float(workers)}
    page = render([tmp_path / "run"])
    assert "Time of the steps: " in page
    assert ("2 reading processes: " if workers == "2" else "Pictures: ") in page
