"""What cannot be read is not taken for what is not there."""

from __future__ import annotations

import errno
from pathlib import Path

import torch
from outage.operations import Extending
from outage.recording import Opening, before
from outage.tracing import Call, traced
from outage.trying import copied, placed

from counterpoise.teachers.store import StoreWriter


class Unreadable:
    """Files of an ending cannot be opened."""

    def __init__(self, root: Path, ending: str) -> None:
        self.root, self.ending = str(root), ending

    def enter(self, call: Call) -> int:
        begun = before(call, self.root)
        return errno.EIO if isinstance(begun, Opening) and begun.path.endswith(self.ending) else 0

    def leave(self, call: Call, result: int) -> int:
        return 0


def test_a_checksum_that_cannot_be_read_is_no_missing_chunk() -> None:
    with placed(Extending) as place:
        folder, operation = copied(place.folder, place.scratch), Extending(place.scratch)
        chunks = folder / "store" / "chunks"
        with StoreWriter.create(folder / "store", operation._header((0, 1))) as writer:
            first = writer.missing()[0]
            rows = torch.arange(first.start, first.stop).view(-1, 1) + 1000 * first.slot
            writer.write(first, [torch.sin(rows + torch.arange(20)).float()])
        stamps = {file: file.stat().st_mtime_ns for file in chunks.iterdir()}
        outcome = traced(lambda: operation.do(folder), Unreadable(folder, ".sha256"))
        assert outcome.kinds[0] == "StoreError"
        assert f"{first.name.removesuffix('.bin')}.sha256 cannot be read: Input/output error." in outcome.text
        assert f"Chunk {first.name} may be whole, and is not recorded again" in outcome.text
        assert stamps == {file: file.stat().st_mtime_ns for file in chunks.iterdir()}
        operation.do(folder)
        assert operation.found(folder) == place.new
