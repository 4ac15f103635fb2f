"""Files are the old ones or the new ones, whole, also where the disk fills: the kernel itself refuses to write."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from counterpoise.errors import ConfigError, RunError, RuntimeMissingError, UnfitFileError
from counterpoise.system import files
from counterpoise.system.files import (
    exchange,
    expanded,
    held,
    is_below,
    is_file,
    is_folder,
    make_folder,
    named,
    read_tensors,
    reason,
    regular,
    replacing,
    replacing_folder,
    standing,
    sweep,
    sync_folder,
    write_tensors,
    write_text,
)

LIMITED = """
import resource, sys, torch
from pathlib import Path
from counterpoise.system.files import write_tensors
from counterpoise.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_tensors(Path(sys.argv[1]), {"weight": torch.ones(1_000_000)})
except RunError as error:
    print(error)
    sys.exit(2)
"""


def test_a_disk_that_fills_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(path, {"weight": torch.zeros(10)})
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stdout
    assert "The older checkpoint.safetensors is intact" in done.stdout
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors"]


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).t(), "a": torch.tensor(3)}
    told = dict.fromkeys("abcdefgh", "größer")
    write_tensors(tmp_path / "one", tensors, told)
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), told)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    torch.testing.assert_close(load_file(tmp_path / "one")["b"], tensors["b"])


def test_what_has_changed_since_it_was_written_is_refused(tmp_path: Path) -> None:
    path, numbers, mask = tmp_path / "weights", torch.arange(4.0), os.umask(0)
    os.umask(mask)
    same = {"one": numbers, "of the same memory": numbers, "once more": numbers[1:]}
    write_tensors(path, {**same, "none": torch.zeros(0)}, {"note": "größer"})
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    tensors, told = read_tensors(path)
    assert told["note"] == "größer"
    assert {name: value.tolist() for name, value in tensors.items()} == {
        "one": [0, 1, 2, 3],
        "of the same memory": [0, 1, 2, 3],
        "once more": [1, 2, 3],
        "none": [],
    }
    whole = path.read_bytes()
    for old, new in ((numbers.numpy().tobytes(), (numbers + 1).numpy().tobytes()), ("größer".encode(), b"smaller!")):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match="checksum is another one"):
            read_tensors(path)
    one_off = whole.replace(files.CHECKSUM.encode(), b"x" + files.CHECKSUM[1:].encode())
    path.write_bytes(one_off)  # a bit of the checksum's own name
    with pytest.raises(ValueError, match="checksum is another one"):
        read_tensors(path)
    path.write_bytes(whole.replace(files.CHECKSUM.encode(), b"x" * len(files.CHECKSUM)))
    assert read_tensors(path)[0].keys() == tensors.keys()  # as other programs write it


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere") as raised:
        write_text(tmp_path / "nowhere" / "file.txt", "text")
    assert "intact" not in str(raised.value)


def test_why_a_disk_takes_no_more_is_said_in_words() -> None:
    assert reason(OSError(errno.ENOSPC, "No space left")) == "the disk is full"
    assert reason(SafetensorError(f"I/O error (os error {errno.EDQUOT})")) == "the quota is used up"
    assert (
        reason(SafetensorError('Error(Os { code: 28, kind: StorageFull, message: "No space" })')) == "the disk is full"
    )
    assert reason(OSError(errno.EACCES, "refused")) == f"[Errno {errno.EACCES}] refused"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "all" / "sites" / "site"
    for text in ("one", "two"):
        with replacing_folder(place) as new:
            (new / "below").mkdir()
            (new / "below" / "file").write_text(text)
        assert (place / "below" / "file").read_text() == text
    with pytest.raises(ZeroDivisionError), replacing_folder(place) as new:
        (new / "file").write_text(str(1 / 0))
    with (
        pytest.raises(RunError, match=r"could not be written: .*The older site is intact"),
        replacing_folder(place) as new,
    ):
        (new / "no" / "file").write_text("three")
    assert (place / "below" / "file").read_text() == "two"
    assert [entry.name for entry in place.parent.iterdir()] == ["site"]


REPLACES = """
import sys
from pathlib import Path
from counterpoise.system import files
if sys.argv[2] == "renames":
    files.exchange = lambda one, other: False
number = 0
while True:
    number += 1
    with files.replacing_folder(Path(sys.argv[1])) as new:
        for name in ("a", "b"):
            (new / name).write_text(str(number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "renames"])
def test_a_folder_whose_writer_is_killed_is_the_old_or_the_new_one(tmp_path: Path, how: str) -> None:
    place = tmp_path / "student"
    for moment in range(3):
        with subprocess.Popen([sys.executable, "-c", REPLACES, place, how], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "1\n"
            for _ in range(200 * (moment + 1)):
                if how == "exchange":  # at no moment is there nothing
                    assert place.is_dir()
            child.kill()
        assert standing(place) == place
        assert (place / "a").read_text() == (place / "b").read_text()
    with replacing_folder(place) as new:
        (new / "a").write_text("after")
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]
    assert [entry.name for entry in place.iterdir()] == ["a"]


def refused(path: Path, target: Path) -> Path:
    raise PermissionError(errno.EACCES, "refused")


def test_what_a_kill_between_two_renames_leaves_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".student.old").mkdir()
    (tmp_path / ".student.old" / "a").write_text("old")
    (tmp_path / ".student.partial").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)  # it may only be read
        assert standing(tmp_path / "student") == tmp_path / ".student.old"
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "student") as new:
        (new / "a").write_text(str(1 / 0))
    assert (tmp_path / "student" / "a").read_text() == "old"
    (tmp_path / "student").rename(tmp_path / ".student.old")
    assert (standing(tmp_path / "student") / "a").read_text() == "old"
    (tmp_path / "student").rename(tmp_path / ".student.old")
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    with replacing_folder(tmp_path / "student") as new:
        (new / "a").write_text("new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: refused(a, b) if a.name.endswith("partial") else rename(a, b))
    with pytest.raises(RunError, match="refused"), replacing_folder(tmp_path / "student"):
        pass
    assert (tmp_path / "student" / "a").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_folders_change_names_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert exchange(Path("one"), Path("other"))
    assert (tmp_path / "one" / "one").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)  # at no moment is there nothing
        with replacing_folder(tmp_path / "one") as new:
            (new / "new").touch()
    assert [entry.name for entry in (tmp_path / "one").iterdir()] == ["new"]
    assert not exchange(tmp_path / "one", tmp_path / "absent")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert not exchange(tmp_path / "one", tmp_path / "other")
    monkeypatch.delattr(files.ctypes, "CDLL")  # as a C library without that call
    assert not exchange(tmp_path / "one", tmp_path / "other")


def test_only_regular_files_inside_their_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("12345")
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "inner").symlink_to(folder / "below" / "file")
    os.mkfifo(folder / "pipe")
    assert named(folder, "below/file").read_text() == named(folder, "inner").read_text() == "12345"
    for name in ("../outside", "/etc/passwd", "below/../../outside", "", ".", "below\\..\\file", "a\0b", "C:/x\0"):
        with pytest.raises(UnfitFileError, match="leads out"):
            named(folder, name)
    for path, why in (
        (folder / "link", "leads out of its folder"),
        (folder / "pipe", "is a pipe, expected a file"),
        (folder / "below", "is a folder, expected a file"),
        (Path("/dev/zero"), "is a device, expected a file"),
        (Path("a\0b"), "null character"),
    ):
        with pytest.raises(UnfitFileError, match=why):
            regular(path, within=folder if path.is_relative_to(folder) else None)
    assert regular(folder / "below" / "file", limit=5) == folder / "below" / "file"
    with pytest.raises(UnfitFileError, match="has 5 bytes, expected at most 4"):
        regular(folder / "below" / "file", limit=4)


def test_the_cache_of_the_hub_is_one_folder(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("weights")
    (tmp_path / "snapshots" / "main").mkdir(parents=True)
    link = tmp_path / "snapshots" / "main" / "model.safetensors"
    link.symlink_to(Path("..", "..", "blobs", "abc"))
    assert regular(link, within=link.parent) == link
    (tmp_path / "secret").touch()
    (link.parent / "other").symlink_to(tmp_path / "secret")
    with pytest.raises(UnfitFileError, match="leads out of its folder"):
        regular(link.parent / "other", within=link.parent)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").symlink_to(tmp_path / "blobs" / "abc")
    with pytest.raises(UnfitFileError, match="leads out of its folder"):
        regular(tmp_path / "folder" / "model.safetensors", within=tmp_path / "folder")


def test_a_name_of_a_list_is_below_its_folder_or_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(Path("/"))
    for name, below in (("a", True), ("a/../b", True), ("link/etc", True), ("../else", False), ("/etc", False)):
        assert is_below(tmp_path, name) == below, name
    assert not is_below(tmp_path / "folder", f"../{tmp_path.name}/folder-b/c")


def test_under_a_name_that_no_file_can_have_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (is_file(tmp_path / "file"), is_folder(tmp_path / "file")) == (True, False)
    assert (is_file(tmp_path), is_folder(tmp_path)) == (False, True)
    for name in ("a\0b", "page " * 1000):
        assert not is_file(tmp_path / name)
        assert not is_folder(tmp_path / name)


def test_a_home_that_nobody_has_is_said() -> None:
    assert expanded(Path("~", "pictures")) == Path.home() / "pictures"
    with pytest.raises(UnfitFileError, match="somebody who has none"):
        expanded(Path("~no-such-user-here/pictures"))


def test_folders_are_made_with_those_above_and_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file cannot be made: File exists\."):
        make_folder(tmp_path / "file")

    def fills(path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(Path, "mkdir", fills)
    with pytest.raises(RunError, match=r"more cannot be made: the disk is full\."):
        make_folder(tmp_path / "more")


def test_the_place_of_a_new_file_is_made_before_it_is_worked_for(tmp_path: Path) -> None:
    place = files.new_file(tmp_path / "a" / "b.json", overwrite=False)
    assert place.parent.is_dir()
    files.write_text(place, "{}")
    with pytest.raises(ConfigError, match=r"b\.json is there already: give --overwrite, or another --sheet\."):
        files.new_file(place, False, "--sheet")
    assert files.new_file(str(place), overwrite=True) == place
    with pytest.raises(ConfigError, match=r"a is a folder: --out is the file itself\."):
        files.new_file(place.parent, overwrite=True)
    with pytest.raises(RunError, match="cannot be made"):
        files.new_file(place / "c.json", overwrite=True)


def test_what_a_crash_has_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in ("site", ".site.partial", "..weights.partial.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for name in ("weights", ".weights.partial", ".other.partial"):
        (tmp_path / name).touch()
    sweep(*(tmp_path / name for name in ("site", "weights", "absent")))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.partial", "site", "weights"]
    assert (tmp_path / "site" / "file").exists()


def test_tensors_are_written_where_a_crash_has_left_a_part(tmp_path: Path) -> None:
    (tmp_path / "..weights.partial.partial").mkdir()
    (tmp_path / "..weights.partial.partial" / "weights").touch()
    write_tensors(tmp_path / "weights", {"one": torch.ones(1)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


def test_what_cannot_be_swept_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".site.partial").mkdir()

    def stays(path: str, **_: object) -> None:
        raise PermissionError(errno.EACCES, "refused", path)

    monkeypatch.setattr(os, "rmdir", stays)
    sweep(tmp_path / "site")
    write_tensors(tmp_path / "weights", {"one": torch.ones(1)})
    assert read_tensors(tmp_path / "weights")[0]["one"].item() == 1


def test_what_is_there_and_not_confirmed_is_not_called_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(files, "sync_folder", fails)
    with pytest.raises(RunError, match=r"is written, but the disk has not confirmed it: .*the disk fails"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(RunError, match=r"Folder .*there cannot be made: the disk fails"):
        make_folder(tmp_path / "there")
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are in /proc")
def test_all_that_lies_in_a_folder_is_on_disk_before_it_is_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    before: list[set[Path]] = []
    fsync, put = os.fsync, files._put

    def notes(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", notes)
    monkeypatch.setattr(files, "_put", lambda new, path: before.append(synced.copy()) or put(new, path))
    with replacing_folder(tmp_path / "site") as made:
        (made / "pages" / "empty").mkdir(parents=True)
        for name in ("index", "pages/one"):
            (made / name).touch()
        expected = {made, *made.rglob("*")}
    assert before == [expected]
    assert synced - expected == {tmp_path}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_that_is_there_and_not_confirmed_is_not_called_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    for text in ("old", "new"):
        with monkeypatch.context() as patch:
            if text == "new":
                patch.setattr(files, "sync_folder", lambda path: refused(path, path) if path == tmp_path else None)
            if not at_once:
                patch.setattr(files, "exchange", lambda one, other: False)
            said = pytest.raises(RunError, match=r"site is written, but the disk has not confirmed it: .*refused")
            with said if text == "new" else contextlib.nullcontext(), replacing_folder(tmp_path / "site") as made:
                (made / "file").write_text(text)
    assert (tmp_path / "site" / "file").read_text() == "new"


def test_systems_that_put_no_names_on_disk_are_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handles = []
    for number, passes in ((errno.EINVAL, True), (errno.EBADF, True), (errno.EIO, False), (errno.ENOSPC, False)):

        def fails(handle: int, number: int = number) -> None:
            handles.append(handle)
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            if passes:
                sync_folder(tmp_path)
            else:
                with pytest.raises(OSError, match=os.strerror(number)):
                    sync_folder(tmp_path)
    assert len(handles) == 4
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_a_lock_is_held_by_one_and_let_go(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):
        with (
            held(lock),
            pytest.raises(RuntimeMissingError, match="Somebody is there"),
            held(lock, 0, busy="Somebody is there.", raises=RuntimeMissingError),
        ):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not be locked"), held(tmp_path / "file" / "lock"):
        pass


def test_a_lock_is_waited_for_as_long_as_it_takes(tmp_path: Path) -> None:
    order = []

    def holds(taken: threading.Event) -> None:
        with held(tmp_path / ".lock"):
            taken.set()
            time.sleep(1.2)
            order.append("first")

    taken = threading.Event()
    thread = threading.Thread(target=holds, args=(taken,))
    thread.start()
    taken.wait()
    with held(tmp_path / ".lock"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_files_are_handled_without_waiting_for_torch() -> None:
    code = "import sys; import counterpoise.system.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_could_not_be_written_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as temporary:
        temporary.write_text(str(1 / 0))

    def fills(path: Path) -> None:
        path.write_text("part")
        raise OSError(errno.ENOSPC, "No space left")

    with pytest.raises(RunError, match="the disk is full"), replacing(tmp_path / "file") as temporary:
        fills(temporary)
    assert list(tmp_path.iterdir()) == []
