"""The cache of what was fetched: what makes room for what."""

from __future__ import annotations

import os
from pathlib import Path

from counterpoise.data.packs.cache import Cache
from counterpoise.data.packs.format import Shard


def test_a_block_that_is_being_written_makes_no_room_and_what_a_killed_process_left_does(tmp_path: Path) -> None:
    cache, shard = Cache(tmp_path, "pack", 1), Shard(name="a.tar", samples=1, bytes=8)
    folder = Path(cache.folder_of(shard))
    folder.mkdir(parents=True)
    for name, age in ((".0.1.1", 0), (".0.2.2", 10_000), ("3", 0)):
        (folder / name).write_bytes(bytes(8))
        moment = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (moment, moment))
    assert cache.make_room() == []
    assert [path.name for path in folder.iterdir()] == [".0.1.1"]
