"""Recording: in parts, killed, on a full disk, extended; it always ends in the same bytes."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise.errors import StoreError
from counterpoise.teachers.store import Store, StoreWriter, verify

KILLED = """
import signal
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_header, record
limit = int(sys.argv[3]) if len(sys.argv) > 3 else None
record(Path(sys.argv[1]), make_header(count=700, rows_per_chunk=7), limit=limit)
if limit is not None:
    signal.pause()
"""


def test_what_was_recorded_is_read(kit: Any, tmp_path: Path) -> None:
    for precision, shape in (("float32", (40,)), ("float16", (40,)), ("int8", (5, 3, 4)), ("int4", (40,))):
        header = kit.header(precision=precision, shape=shape)
        assert kit.record(tmp_path / precision, header)
        with Store.open(tmp_path / precision) as store:
            indices, slots = kit.every_view(header)
            expected = header.codec.decode(header.codec.encode(kit.answers(indices, slots, shape)))
            assert torch.equal(store.logits(indices, slots), expected)


def test_how_logits_are_batched_does_not_matter(kit: Any, tmp_path: Path) -> None:
    header = kit.header(precision="int8")
    kit.record(tmp_path / "one", header)
    with StoreWriter.create(tmp_path / "two", header) as writer:
        for chunk in writer.missing():
            writer.write(chunk, kit.batches(chunk, size=100))
        writer.finish()
    assert kit.contents(tmp_path / "one") == kit.contents(tmp_path / "two")


def test_parts_in_one_folder_make_the_same_store(kit: Any, tmp_path: Path) -> None:
    header = kit.header()
    kit.record(tmp_path / "whole", header)
    assert not kit.record(tmp_path / "parts", header, (1, 3))
    assert not kit.record(tmp_path / "parts", header, (0, 3))
    with pytest.raises(StoreError, match="not finished: 6 of 9 chunks"):
        Store.open(tmp_path / "parts")
    assert kit.record(tmp_path / "parts", header, (2, 3))
    assert kit.contents(tmp_path / "whole") == kit.contents(tmp_path / "parts")


def test_whoever_finishes_after_the_last_part_is_told_so(kit: Any, tmp_path: Path) -> None:
    writers = [StoreWriter.create(tmp_path, kit.header(), (k, 2)) for k in range(2)]
    for writer in writers:
        for chunk in writer.missing():
            writer.write(chunk, kit.batches(chunk))
    assert [writer.finish() for writer in writers] == [True, True]
    assert verify(tmp_path) == []


def test_two_writers_of_one_part_are_refused(kit: Any, tmp_path: Path) -> None:
    with (
        StoreWriter.create(tmp_path, kit.header(), (0, 2)),
        StoreWriter.create(tmp_path, kit.header(), (1, 2)),
        pytest.raises(StoreError, match="Another process records part 2 of 2"),
    ):
        StoreWriter.create(tmp_path, kit.header(), (1, 2))
    lock = tmp_path / ".lock-0-of-2"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(StoreError, match=r"could not be locked: .*directory"):
        StoreWriter.create(tmp_path, kit.header(), (0, 2))


def test_a_part_that_there_is_not_is_refused(kit: Any, tmp_path: Path) -> None:
    for part, told in (((-1, 2), "no part 0 of 2"), ((2, 2), "no part 3 of 2"), ((3, 3), "no part 4 of 3")):
        with pytest.raises(StoreError, match=told):
            StoreWriter.create(tmp_path / "store", kit.header(), part)
    assert not (tmp_path / "store").exists()


def test_an_index_that_cannot_be_written_loses_nothing(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StoreWriter.create(tmp_path / "store", kit.header()) as writer:
        for chunk in writer.missing():
            writer.write(chunk, kit.batches(chunk))
        with monkeypatch.context() as patch:
            patch.setattr("counterpoise.system.files.sync_folder", _full)
            with pytest.raises(StoreError, match=r"index\.json .*the disk is full.* 9 of 9 chunks are whole"):
                writer.finish()
    assert kit.record(tmp_path / "store", kit.header())
    assert verify(tmp_path / "store") == []


def _full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left")


def test_processes_at_once_make_the_same_store(kit: Any, tmp_path: Path) -> None:
    header = kit.header(count=200, rows_per_chunk=25)
    kit.record(tmp_path / "whole", header)
    children = [kit.fork(lambda k=k: kit.record(tmp_path / "parts", header, (k, 3))) for k in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert kit.contents(tmp_path / "whole") == kit.contents(tmp_path / "parts")


def test_20_kills_end_in_the_same_bytes(kit: Any, tmp_path: Path) -> None:
    header = kit.header(count=300, rows_per_chunk=7, precision="int8")
    kit.record(tmp_path / "whole", header)
    chance = random.Random(0)

    def record_some() -> None:
        kit.record(tmp_path / "killed", header, limit=6)
        signal.pause()

    for number in range(20):
        child = kit.fork(record_some)
        time.sleep(chance.uniform(0, 0.06))
        while number == 19 and not (tmp_path / "killed" / "recording.json").exists():
            time.sleep(0.001)  # on a slow machine all the others came before anything was written
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "killed" / "index.json").exists()
    assert verify(tmp_path / "killed") == []
    assert kit.record(tmp_path / "killed", header)
    assert kit.contents(tmp_path / "whole") == kit.contents(tmp_path / "killed")


@pytest.mark.slow
def test_20_kills_of_a_whole_program_end_in_the_same_bytes(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path / "whole", kit.header(count=700, rows_per_chunk=7))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(Path(__file__).parent)]
    chance = random.Random(0)
    chunks = tmp_path / "killed" / "chunks"
    for _ in range(20):
        before = len(list(chunks.glob("*.bin"))) if chunks.exists() else 0
        process = subprocess.Popen([*command, "9"])  # chunks, so that no machine is done before the last kill
        while process.poll() is None and len(list(chunks.glob("*.bin"))) == before:
            time.sleep(0.001)  # until it has begun to write
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "index.json").exists()
    subprocess.run(command, check=True)
    assert kit.contents(tmp_path / "whole") == kit.contents(tmp_path / "killed")


def test_a_full_disk_loses_nothing(kit: Any, tmp_path: Path) -> None:
    header = kit.header(count=3000, slots=(0,), rows_per_chunk=500)  # chunks of 80 kB
    said = tmp_path / "said"

    def on_a_full_disk() -> None:
        with StoreWriter.create(tmp_path / "full", header) as writer:
            for chunk in writer.missing():
                if chunk.part == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
                try:
                    writer.write(chunk, kit.batches(chunk))
                except StoreError as error:
                    said.write_text(str(error))
                    raise

    child = kit.fork(on_a_full_disk)
    assert os.waitpid(child, 0)[1] != 0
    assert "000000-000002.bin could not be written: the file size limit is reached" in said.read_text()
    assert "2 of 6 chunks are whole; make room" in said.read_text()
    assert sorted(file.name for file in (tmp_path / "full" / "chunks").glob("*.bin")) == [
        "000000-000000.bin",
        "000000-000001.bin",
    ]
    assert not list((tmp_path / "full" / "chunks").glob(".*"))
    with StoreWriter.create(tmp_path / "full", header) as writer:
        assert [chunk.part for chunk in writer.missing()] == [2, 3, 4, 5]
    assert kit.record(tmp_path / "full", header)
    assert kit.record(tmp_path / "whole", header)
    assert kit.contents(tmp_path / "full") == kit.contents(tmp_path / "whole")


def test_a_disk_without_room_is_said_before_anything_is_recorded(kit: Any, tmp_path: Path) -> None:
    header = kit.header(count=10**13, rows_per_chunk=10**13)
    with pytest.raises(StoreError, match=r"needs 4,800,000\.0 GB and .* are free"):
        StoreWriter.create(tmp_path / "store", header)
    assert not (tmp_path / "store" / "recording.json").exists()


def test_a_store_is_extended_by_epochs(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path / "store", kit.header(slots=(0, 1)))
    before = kit.contents(tmp_path / "store")
    assert not kit.record(tmp_path / "store", kit.header(slots=(0, 1, 2)), limit=2)
    with Store.open(tmp_path / "store") as store:  # as it was, until the last chunk is there
        assert store.header.slots == (0, 1)
        assert store.logits(*kit.every_view(store.header)).isfinite().all()
    assert kit.record(tmp_path / "store", kit.header(slots=(2,)))
    after = kit.contents(tmp_path / "store")
    assert all(after[name] == data for name, data in before.items() if name.endswith(".bin"))
    kit.record(tmp_path / "whole", kit.header())
    assert after == kit.contents(tmp_path / "whole")


def test_every_part_of_an_extension_has_work(kit: Any, store_path: Path) -> None:
    header = kit.header(slots=(0, 1, 2, 3))
    with StoreWriter.create(store_path, header, (0, 2)) as one, StoreWriter.create(store_path, header, (1, 2)) as two:
        assert (len(one.missing()), len(two.missing())) == (1, 2)
        assert not set(one.missing()) & set(two.missing())


def test_an_unfinished_recording_of_other_views_is_not_mixed_up(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path, kit.header(slots=(0,)), limit=1)
    with pytest.raises(StoreError, match="unfinished recording of views 0 lies in"):
        StoreWriter.create(tmp_path, kit.header(slots=(0, 1)))


@pytest.mark.parametrize("limit", [2, None])
def test_another_teacher_is_refused_before_anything_changes(kit: Any, tmp_path: Path, limit: int | None) -> None:
    kit.record(tmp_path / "store", kit.header(), limit=limit)
    before = kit.contents(tmp_path / "store")
    with pytest.raises(StoreError, match="other teacher: sha256 eeeeeeeeeeee"):
        StoreWriter.create(tmp_path / "store", kit.header(teacher="f" * 64, slots=(0, 1, 2, 3)))
    assert kit.contents(tmp_path / "store") == before


def test_a_folder_of_other_files_is_left_alone(kit: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(StoreError, match=r"holds other files \(thesis.tex\)"):
        StoreWriter.create(tmp_path, kit.header())


def test_chunks_that_are_gone_are_recorded_again(kit: Any, store_path: Path) -> None:
    before = kit.contents(store_path)
    gone = sorted((store_path / "chunks").iterdir())[5]
    gone.unlink()
    assert [damage.chunk for damage in verify(store_path)] == [gone.name]
    with StoreWriter.create(store_path, kit.header()) as writer:
        assert [chunk.name for chunk in writer.missing()] == [gone.name]
    assert kit.record(store_path, kit.header())
    assert kit.contents(store_path) == before


def test_a_finished_store_is_not_written_again(kit: Any, store_path: Path) -> None:
    stamps = {file: file.stat().st_mtime_ns for file in store_path.rglob("*.*n")}
    assert kit.record(store_path, kit.header())
    assert {file: file.stat().st_mtime_ns for file in store_path.rglob("*.*n")} == stamps


def test_errors_of_the_teacher_are_its_own_and_leave_no_chunk(kit: Any, tmp_path: Path) -> None:
    def broken() -> Any:
        yield kit.answers(torch.arange(3), torch.zeros(3, dtype=torch.int64))
        raise FileNotFoundError("picture.jpg")

    with StoreWriter.create(tmp_path, kit.header()) as writer:
        chunk = writer.missing()[0]
        with pytest.raises(FileNotFoundError, match=r"picture\.jpg"):
            writer.write(chunk, broken())
        for batches, message in (([torch.zeros(3, 40)], "takes 20 samples, got 3"), ([torch.zeros(20, 41)], "gave")):
            with pytest.raises(StoreError, match=message):
                writer.write(chunk, batches)
        assert writer.missing()[0] == chunk
    assert not list((tmp_path / "chunks").iterdir())
