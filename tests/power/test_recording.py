"""Everything that changes a file is seen, whoever does it and however; what is not understood is not passed over."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outage import recording, tracing
from outage.recording import ROOT, Data, Journal, Names, NotModelledError, Size, Sync
from safetensors.torch import save_file

from counterpoise.system.files import exchange


def recorded(folder: Path, task: Callable[[Path], Any]) -> Journal:
    journal = recording.record(folder, lambda: task(folder))
    assert not journal.outcome.error, journal.outcome.trace
    return journal


def replayed(journal: Journal) -> dict[str, bytes | None]:
    """Files and folders by path, as the steps leave them."""
    folders = {node: dict(names) for node, names in journal.folders.items()}
    files = {node: bytearray(content) for node, content in journal.files.items()}
    for step in journal.steps:
        if isinstance(step, Names):
            for (folder, name), node in step.changes.items():
                folders[folder].pop(name, None)
                if node is not None:
                    folders[folder][name] = node
        elif isinstance(step, Data):
            content = files.setdefault(step.file, bytearray())
            content.extend(bytes(max(0, step.offset - len(content))))
            content[step.offset : step.offset + len(step.content)] = step.content
        elif isinstance(step, Size):
            content = files.setdefault(step.file, bytearray())
            content.extend(bytes(max(0, step.size - len(content))))
            del content[step.size :]

    def walk(node: int, path: str) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for name, inner in folders[node].items():
            found[path + name] = None if inner in folders else bytes(files.get(inner, b""))
            if inner in folders:
                found |= walk(inner, f"{path}{name}/")
        return found

    return walk(ROOT, "")


def on_disk(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def through_python(folder: Path) -> None:
    with (folder / "old").open("r+b") as file:
        file.seek(3)
        file.write(b"changed")
    with (folder / "old").open("a") as file:
        file.write("more")
    (folder / "text").write_text("text" * 9999)
    (folder / "text").write_text("shorter")
    os.truncate(folder / "text", 2)
    shutil.copyfile(folder / "old", folder / "copy")
    with (folder / "sparse").open("wb") as file:
        file.truncate(700)
        os.pwritev(file.fileno(), [b"one", b"two"], 600)
        os.posix_fallocate(file.fileno(), 0, 900)


def through_stdio(folder: Path) -> None:
    """numpy writes arrays with fwrite of the C library, whose own calls no library that is put before it sees."""
    with (folder / "array.npy").open("wb") as file:
        np.save(file, np.arange(5000))


def through_rust_and_cpp(folder: Path) -> None:
    save_file({"weight": torch.arange(3000.0)}, folder / "weights.safetensors")
    torch.save({"weight": torch.arange(3000.0)}, folder / "weights.pt")


def past_the_c_library(folder: Path) -> None:
    libc = ctypes.CDLL(None)
    handle = libc.syscall(tracing.NUMBERS["creat"], os.fsencode(folder / "raw"), 0o644)
    assert libc.syscall(tracing.NUMBERS["write"], handle, b"raw", 3) == 3
    assert libc.syscall(tracing.NUMBERS["rename"], os.fsencode(folder / "raw"), os.fsencode(folder / "moved")) == 0


def in_threads_and_processes(folder: Path) -> None:
    threads = [
        threading.Thread(target=(folder / f"thread{number}").write_bytes, args=(b"t" * number,)) for number in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subprocess.run(["sh", "-c", f"echo shell > {folder}/process; ln {folder}/process {folder}/again"], check=True)


def names(folder: Path) -> None:
    (folder / "below" / "deep").mkdir(parents=True)
    (folder / "below" / "deep" / "file").write_text("deep")
    (folder / "below" / "deep" / "file").rename(folder / "file")
    (folder / "one").mkdir()
    (folder / "one" / "inside").write_text("inside")
    assert exchange(folder / "one", folder / "below")
    shutil.rmtree(folder / "one")
    os.chdir(folder)
    handle = os.open(".", os.O_RDONLY)
    os.rename("file", "renamed", src_dir_fd=handle, dst_dir_fd=handle)
    Path("old").unlink()


WAYS = [through_python, through_stdio, through_rust_and_cpp, past_the_c_library, in_threads_and_processes, names]


@pytest.mark.parametrize("way", WAYS)
def test_what_was_recorded_gives_the_files_that_are_there(way: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"0123456789" * 100)
    journal = recorded(tmp_path, way)
    assert journal.steps
    assert replayed(journal) == on_disk(tmp_path)


def test_syncs_are_seen_of_files_and_of_folders(tmp_path: Path) -> None:
    def task(folder: Path) -> None:
        with (folder / "file").open("wb") as file:
            file.write(b"content")
            file.flush()
            os.fsync(file.fileno())
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)

    made, written, synced, names_synced = recorded(tmp_path, task).steps
    assert isinstance(made, Names)
    (number,) = made.changes.values()
    assert made.changes == {(ROOT, "file"): number}
    assert (written, synced, names_synced) == (Data(number or -1, 0, b"content"), Sync(number), Sync(ROOT))


def test_what_would_change_files_unseen_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    (tmp_path / "watched").mkdir()
    (tmp_path / "watched" / "file").write_bytes(bytes(4096))

    def through_memory(folder: Path) -> None:
        with (folder / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[0] = 1

    def from_elsewhere(folder: Path) -> None:
        (folder.parent / "file").rename(folder / "file")

    def a_link(folder: Path) -> None:
        (folder / "link").symlink_to("file")

    for task, what in ((through_memory, "memory"), (from_elsewhere, "into the folder"), (a_link, "symlink")):
        with pytest.raises(NotModelledError, match=what):
            recorded(tmp_path / "watched", task)


def test_what_a_function_gives_or_raises_comes_back(tmp_path: Path) -> None:
    assert recording.record(tmp_path, lambda: {"answer": 42}).outcome.value == {"answer": 42}
    outcome = recording.record(tmp_path, lambda: 1 // 0).outcome
    assert (outcome.error, outcome.text) == ("ZeroDivisionError", "integer division or modulo by zero")
    with pytest.raises(OSError, match="ended before its time"):
        recording.record(tmp_path, lambda: os._exit(3))
