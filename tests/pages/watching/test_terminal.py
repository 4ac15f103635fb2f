"""A run in a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from counterpoise import config
from counterpoise.pages.watching.following import Follower, Point, State
from counterpoise.pages.watching.terminal import follow, picture, sparkline

NASTY = "[bold]x[/] <script> :smile: \u202e"


def shown(state: State, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(picture(state, "runs/mine", width))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_sparkline_has_a_block_a_stretch_of_steps() -> None:
    rising = [Point(step, float(step)) for step in range(1, 9)]
    assert sparkline(rising, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(rising, 4) == "▁▃▆█"
    assert sparkline([Point(1, 3.0)], 10) == "▄"
    assert sparkline([Point(1, 1.0), Point(2, float("nan")), Point(3, 2.0)], 3) == "▁ █"
    assert sparkline([], 5) == ""
    assert len(sparkline([Point(step, 0.5) for step in range(1000)], 40)) == 40


def test_terms_scores_and_the_best_are_in_the_table() -> None:
    run = config.resolve({"data": {"source": "digits"}, "student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 5}})
    points = [Point(10, 2.0), Point(20, 1.5)]
    series = {
        "loss": points,
        "balance/forward": points,
        "balance/reverse": points,
        "learning_rate": points,
        NASTY: points,
    }
    scores = {"top1": [Point(1, 50.0), Point(2, 60.25), Point(3, 60.0)]}
    text = shown(State(run=run, series=series, scores=scores, step=20, epoch=3, steps_per_epoch=8))
    assert "digits/cnn_4_8, labels alone" in text
    assert "epoch 3/5  step 20/40" in text
    assert "balance/reverse" in text
    assert "60.25, epoch 2" in text
    assert "[bold]x[/] <script>" in text
    assert all(len(line) <= 60 for line in shown(State(run=run, series=series, step=20, epoch=3), 60).splitlines())


def test_without_a_terminal_it_is_printed_once(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(config.dump(config.resolve({"data": {"source": "digits"}})))
    console = Console(file=io.StringIO(), width=80)
    assert not follow(Follower(tmp_path), console).finished


def watching(program: list[str], run: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`counterpoise watch RUN` on a terminal of its own, and that terminal."""
    ours, theirs = pty.openpty()
    command = [*program, "watch", str(run), "--terminal"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours


def read_until(terminal: int, text: str, seconds: float = 30) -> str:
    """What a terminal shows until a text comes."""
    seen, until = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < until, f"'{text}' did not come: {seen[-2000:]}"
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.05)
    return seen


def test_it_follows_a_run_to_its_end_and_may_be_stopped_before(program: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(config.dump(config.resolve({"data": {"source": "digits"}, "train": {"epochs": 2}})))
    numbers = {"learning_rate": 0.1, "images_per_second": 100.0}
    line = {"kind": "step", "step": 10, "epoch": 0, "loss": 1.0, "terms": {"cross_entropy": 1.0}, **numbers}
    first, one = watching(program, run)
    second, other = watching(program, run)
    read_until(one, "running")
    read_until(other, "running")
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    read_until(one, "step 10")
    first.send_signal(signal.SIGINT)
    read_until(one, "the run goes on")
    assert first.wait(10) == 0
    (run / "summary.json").write_text("{}")
    read_until(other, "finished")
    assert second.wait(10) == 0
    assert sorted(entry.name for entry in run.iterdir()) == ["metrics.jsonl", "run.yaml", "summary.json"]


@pytest.mark.parametrize("given", ["nothing-here/run", "file"])
def test_what_is_no_run_ends_in_a_sentence(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, given: str
) -> None:
    (tmp_path / "file").write_text("")
    code, _, said = run("watch", given, "--terminal")
    assert code == 2
    assert "no run folder" in said or "expected a run folder" in said
