"""Who may write a run folder, and when a run may go on there."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from counterpoise import config
from counterpoise.data.sources import ArraySet
from counterpoise.engine import state
from counterpoise.engine.run_folder import RunFolder, default_path, run_hash
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


def test_a_folder_of_a_run_that_could_not_start_goes_again(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "first"
    with pytest.raises(ZeroDivisionError), RunFolder(place).locked():
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    with RunFolder(place).locked():
        (place / "file").touch()
    assert (place / ".lock").exists(), "another process may wait for this one"
    (place / "file").unlink()  # what was written has stayed, and so does what was there before
    with RunFolder(place).locked():
        pass
    assert [entry.name for entry in place.iterdir()] == [".lock"]


def test_what_a_killed_run_has_left_is_swept_where_another_begins(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".run.yaml.partial", "checkpoints/.last.safetensors.partial", ".report.html.partial", "notes"):
        (tmp_path / name).touch()
    (tmp_path / ".student.partial").mkdir()
    with RunFolder(tmp_path).locked():
        left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")}
    assert left == {"checkpoints", ".report.html.partial", "notes", ".lock"}, "a report is written without the lock"


def test_a_run_that_was_killed_while_it_started_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_free(overwrite=False)
    with pytest.raises(RunError, match="holds no run to resume: start it without --resume"):
        folder.started()
    (folder.path / "checkpoints").mkdir(parents=True)
    for name in (".lock", "metrics.jsonl", ".run.yaml.partial"):
        (folder.path / name).touch()
    folder.check_free(overwrite=False)
    assert not folder.started()
    with pytest.raises(RunError, match="holds no run to resume"):
        folder.read()
    started(folder.path)
    assert folder.started()
    assert folder.read() == RUN


def test_an_older_run_goes_with_its_run_file_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, unlink = started(tmp_path), Path.unlink
    (tmp_path / "summary.json").touch()

    def refused(path: Path, **options: bool) -> None:
        if path.name == "summary.json":
            raise PermissionError(errno.EACCES, "refused")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(RunError, match=r"could not be removed: .*refused"):
            folder.start(RUN)
    folder.check_free(overwrite=True)
    assert folder.read() == RUN
    there = []
    folder.start(RUN, lambda: there.append((folder.checkpoint.parent.is_dir(), folder.run_file.exists())))
    assert there == [(True, False)], "what it begins with is there before its run file is"


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are in /proc")
def test_names_are_on_disk_before_what_relies_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    place, fsync = tmp_path / "runs" / "first", os.fsync

    def notes(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), (place / "run.yaml").exists()))
        fsync(handle)

    folder = RunFolder(place)
    monkeypatch.setattr(os, "fsync", notes)
    with folder.locked():
        assert {path for path, _ in synced} == {tmp_path, place.parent}
        folder.start(RUN)
        assert (place, False) in synced, "an older run is gone before there is a new one"
        folder.log({"step": 1})
        synced.clear()
        assert folder.metrics_size() > 0
    assert [path for path, _ in synced] == [folder.metrics, place]


def parts() -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    module = nn.Linear(2, 2)
    return {"student": module}, torch.optim.SGD(module.parameters(), 0.1)


def test_what_a_run_is_trained_on_is_noted_or_found_in_what_it_made(tmp_path: Path) -> None:
    folder = started(tmp_path)
    assert folder.identity() == {}
    folder.check_identity({"data": "other"}, ())  # nothing is known
    folder.student.mkdir()
    for provenance, known in (
        ({"data_fingerprint": "a", "teacher": None}, {"data": "a"}),
        ({"data_fingerprint": "a", "teacher": {"sha256": "b"}}, {"data": "a", "teacher": "b"}),
        ({"data_fingerprint": "a", "teacher": "b"}, {}),
        ({"teacher": None}, {}),
        ([], {}),
    ):
        (folder.student / "student.json").write_text(json.dumps({"provenance": provenance}))
        assert folder.identity() == known
    (folder.student / "student.json").write_text("{")
    assert folder.identity() == {}
    state.save(folder.checkpoint, state.Progress(origin={"data": "of the checkpoint"}), *parts())
    assert folder.identity() == {"data": "of the checkpoint"}
    folder.note_identity({"data": "noted"})
    assert folder.identity() == {"data": "noted"}
    assert (tmp_path / "identity.json").read_text() == '{\n  "data": "noted"\n}\n'
    folder.check_identity({"data": "noted"}, ())
    with pytest.raises(RunError, match="another data than it would go on with"):
        folder.check_identity({"data": "other"}, ())
    for damaged in ("[1]", "{"):
        (tmp_path / "identity.json").write_text(damaged)
        assert folder.identity() == ({} if damaged == "[1]" else {"data": "of the checkpoint"})


def test_whose_weights_are_shipped_is_all_that_changes(tmp_path: Path) -> None:
    folder = started(tmp_path)
    before = folder.run_file.stat()
    folder.ship("last")
    assert folder.run_file.stat().st_ino == before.st_ino, "nothing is written where nothing changes"
    folder.ship("best")
    expected = RUN.model_dump()
    expected["train"]["ship"] = "best"
    assert folder.read().model_dump() == expected


def of(**data: Any) -> config.Run:
    return config.resolve(config.merge(RUN.model_dump(), {"data": data}))


def test_a_fourth_band_is_read_as_when_the_run_was_started(tmp_path: Path) -> None:
    for there, now, read in (
        ("auto", "auto", "white"),
        ("ignore", "auto", "ignore"),
        ("ignore", "white", "white"),
    ):
        folder = started(tmp_path, of(alpha=there))
        assert folder.read_as_started(of(alpha=now)).data.alpha == read


def test_data_that_decide_otherwise_than_before_are_refused(tmp_path: Path) -> None:
    pictures = ArraySet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.zeros(3), ["a"])
    decided = of(alpha="white", views={"crop": "pad"})
    folder = started(tmp_path, decided)
    folder.check_decided(decided, pictures, in_arrays=False)
    with pytest.raises(RunError, match=r"data.views.crop: 'pad' there, 'resized' now\nGive the data back"):
        folder.check_decided(of(alpha="white", views={"crop": "resized"}), pictures, in_arrays=True)


def test_small_pictures_are_not_padded_where_an_earlier_version_did_not(tmp_path: Path) -> None:
    pictures = ArraySet(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), torch.zeros(3), ["a"])
    padded = of(views={"crop": "pad"})  # 288 bytes of pictures
    for limit, in_arrays, refused in ((2.8e-7, False, True), (2.8e-7, True, False), (2.9e-7, False, False)):
        folder = started(tmp_path, of(memory_limit_gb=limit))
        if not refused:
            folder.check_decided(padded, pictures, in_arrays)
            continue
        with pytest.raises(RunError, match=r"an earlier version.*take 2\.88e-07 GB and .* was 2\.8e-07"):
            folder.check_decided(padded, pictures, in_arrays)
    folder = started(tmp_path, of(memory_limit_gb=2.8e-7, views={"crop": "pad"}))
    folder.check_decided(padded, pictures, in_arrays=False)  # as it was padded then
    folder = started(tmp_path, of(memory_limit_gb=2.8e-7))
    folder.check_decided(of(views={"crop": "resized"}), pictures, in_arrays=False)
    pictures.__dict__["common_extent"] = None  # of several sizes
    folder.check_decided(padded, pictures, in_arrays=False)


def test_metrics_are_counted_where_there_are_some_and_a_full_disk_is_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.metrics_size() == 0
    folder.cut_metrics(0)
    with pytest.raises(RunError, match=r"could not be written: .*The checkpoint is intact: --resume goes on"):
        folder.log({"step": 1})
    folder.path.mkdir()
    folder.log({"step": 1})
    assert folder.metrics_size() == folder.metrics.stat().st_size > 0
    folder.cut_metrics(10**6)
    assert folder.metrics_size() == folder.metrics.stat().st_size == len('{"step": 1}\n')


def test_a_run_without_a_folder_is_called_by_its_student_and_the_time() -> None:
    path = default_path("timm/resnet18.a1_in1k: x")
    assert path.parent == Path("runs")
    assert re.fullmatch(r"resnet18\.a1_in1k--x-\d{8}-\d{6}", path.name)
