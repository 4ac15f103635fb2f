"""The model of a crash: what must hold does, and each way of writing that is known to lose files is caught losing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outage import recording, trying
from outage.operations import Operation
from outage.states import BLOCK, State, crashes

from counterpoise.system import files
from counterpoise.system.files import replacing, write_text

OLD, NEW = b"o" * 3 * BLOCK, b"n" * 4 * BLOCK


def after(folder: Path, task: Callable[[Path], Any], most: int = 1000) -> list[State]:
    """What crashes may leave of a task."""
    journal = recording.record(folder, lambda: task(folder))
    assert not journal.outcome.error, journal.outcome.trace
    return list(crashes(journal, most))


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def test_a_file_that_is_not_synced_may_be_anything_between(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    states = after(tmp_path, lambda folder: (folder / "file").write_bytes(NEW))
    found = {state.entries["file"] for state in states}
    assert {OLD, NEW, b"", bytes(4 * BLOCK)} <= found
    torn = {content for content in found if content and {b"n"[0], 0} <= {*content}}
    assert torn
    for content in torn:
        blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
        assert all(len({*block}) == 1 for block in blocks), "a block of 512 bytes is whole"


def test_what_is_synced_is_there(tmp_path: Path) -> None:
    def task(folder: Path) -> None:
        (folder / "file").write_bytes(NEW)
        sync(folder / "file")
        sync(folder)

    states = after(tmp_path, task)
    assert [state.entries for state in states if state.ended] == [{"file": NEW}]
    assert {} in [state.entries for state in states]


def test_a_name_is_on_disk_with_its_folder_and_not_with_its_file(tmp_path: Path) -> None:
    def task(folder: Path) -> None:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(NEW)
        sync(folder / "below" / "file")
        sync(folder / "below")

    ended = [state.entries for state in after(tmp_path, task) if state.ended]
    assert {} in ended, "the new folder's own name was not synced"
    assert {"below": None, "below/file": NEW} in ended
    assert {"below": None} not in ended


def test_folders_that_are_made_are_there_with_those_above(tmp_path: Path) -> None:
    def task(folder: Path) -> None:
        files.make_folder(folder / "a" / "b")
        (folder / "a" / "b" / "file").write_bytes(NEW)
        sync(folder / "a" / "b" / "file")
        sync(folder / "a" / "b")

    states = after(tmp_path, task)
    assert [state.entries["a/b/file"] for state in states if state.ended] == [NEW]


def test_changes_of_names_are_lost_one_by_one_and_a_rename_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OLD)
    (tmp_path / "b").write_bytes(NEW)

    def task(folder: Path) -> None:
        (folder / "a").rename(folder / "c")
        (folder / "b").rename(folder / "d")
        files.exchange(folder / "c", folder / "d")

    found = [frozenset(state.entries.items()) for state in after(tmp_path, task)]
    assert len({*found}) == 2**3
    assert {("c", OLD), ("b", NEW)} in found
    assert {("a", OLD), ("d", NEW)} in found
    assert {("a", OLD), ("b", NEW)} in found
    assert {("c", NEW), ("d", OLD)} in found
    assert {("c", OLD), ("a", OLD)} not in found


def test_states_are_those_of_their_seed_and_no_more_than_asked_for(tmp_path: Path) -> None:
    def task(folder: Path) -> None:
        for number in range(12):
            (folder / f"{number}").write_bytes(NEW)

    journal = recording.record(tmp_path, lambda: task(tmp_path))
    one, same, other = (list(crashes(journal, 200, seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert 150 < len(one) < 260
    assert max(state.step for state in one) == len(journal.steps)


class OneFile(Operation):
    """A file replaced in a way."""

    way: Callable[[Path], None]

    def before(self, folder: Path) -> None:
        (folder / "file").write_bytes(OLD)

    def do(self, folder: Path) -> None:
        type(self).way(folder / "file")

    def found(self, folder: Path) -> bytes:
        return (folder / "file").read_bytes()


def in_place(path: Path) -> None:
    path.write_bytes(NEW)
    sync(path)


def without_sync(path: Path) -> None:
    path.with_name(".file.partial").write_bytes(NEW)
    path.with_name(".file.partial").rename(path)
    sync(path.parent)


def without_folder(path: Path) -> None:
    path.with_name(".file.partial").write_bytes(NEW)
    sync(path.with_name(".file.partial"))
    path.with_name(".file.partial").rename(path)


def removed_first(path: Path) -> None:
    path.with_name(".file.partial").write_bytes(NEW)
    sync(path.with_name(".file.partial"))
    path.unlink(missing_ok=True)
    path.with_name(".file.partial").rename(path)
    sync(path.parent)


def as_we_do(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(NEW)


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        (in_place, "neither old nor new"),
        (without_sync, "neither old nor new"),
        (without_folder, "it came back, and afterwards"),
        (removed_first, "lost: FileNotFoundError"),
        (as_we_do, None),
    ],
)
def test_ways_that_lose_files_are_caught(way: Callable[[Path], None], problem: str | None) -> None:
    tried = trying.crash(type("This", (OneFile,), {"way": staticmethod(way)}), most=200)
    assert tried.count > 3
    if problem is None:
        assert tried.wrong == []
    else:
        assert any(problem in wrong for wrong in tried.wrong), tried.wrong


def test_an_error_that_is_swallowed_is_caught() -> None:
    def swallows(path: Path) -> None:
        try:
            write_text(path, NEW.decode())
        except files.RunError:
            return

    tried = trying.failing(
        type("This", (OneFile,), {"way": staticmethod(swallows)}), lambda number: [("EIO", False), ("EMFILE", True)]
    )
    assert any("after 'success'" in wrong for wrong in tried.wrong), tried.wrong
