"""Who may write a run folder, and when a run may go on there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from counterpoise import config
from counterpoise.engine.run_folder import RunFolder, run_hash
from counterpoise.errors import RunError

RUN = config.resolve({"student": {"model": "digits/cnn_4_8"}, "data": {"source": "digits"}})

HOLD = """
import sys
from pathlib import Path
from counterpoise.engine.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def started(path: Path, run: config.Run = RUN) -> RunFolder:
    folder = RunFolder(path)
    with folder.locked():
        folder.start(run)
    return folder


def test_two_processes_cannot_hold_one_folder_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="Another process is writing"), RunFolder(tmp_path).locked():
        pass
    holder.kill()
    holder.communicate()
    with RunFolder(tmp_path).locked():
        pass


def test_an_existing_run_is_kept_unless_asked(tmp_path: Path) -> None:
    folder = started(tmp_path)
    with pytest.raises(RunError, match=r"--resume.*--overwrite"):
        folder.check_free(overwrite=False)
    folder.check_free(overwrite=True)


def test_a_folder_of_other_things_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"thesis.tex"):
        RunFolder(tmp_path).check_free(overwrite=True)


def test_overwriting_clears_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = started(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    folder.log({"step": 1})
    folder.student.mkdir()
    (tmp_path / "receipt.json").write_text("{}")
    started(tmp_path)
    assert not folder.metrics.exists()
    assert not (tmp_path / "receipt.json").exists()
    assert not folder.student.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resuming_with_other_options_names_them(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.check_same(
        config.resolve(config.merge(RUN.model_dump(), {"data": {"workers": 7}, "train": {"log_every": 3}}))
    )
    with pytest.raises(RunError, match=rf"train.epochs: 30 there, 31 given\n(.*\n)*.*--student.checkpoint {tmp_path}"):
        folder.check_same(config.resolve(config.merge(RUN.model_dump(), {"train": {"epochs": 31}})))
    with pytest.raises(RunError, match="no run to resume"):
        RunFolder(tmp_path / "other").check_same(RUN)


def test_metrics_are_cut_to_the_checkpoint(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.log({"step": 1})
    size = folder.metrics_size()
    folder.log({"step": 2})
    folder.cut_metrics(size)
    assert folder.metrics.read_text() == '{"step": 1}\n'


def test_hash_of_a_run_does_not_depend_on_where_it_is_written() -> None:
    moved = RUN.model_copy(update={"out": Path("elsewhere")})
    other = RUN.model_copy(update={"seed": 1})
    assert run_hash(RUN) == run_hash(moved) != run_hash(other)
