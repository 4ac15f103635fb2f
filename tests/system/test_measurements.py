"""A measurement belongs to what was measured, wherever that lies now, and to nothing that is called alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoise.system.measurements import hashes_of, is_of


def test_an_entry_is_of_what_was_measured(tmp_path: Path) -> None:
    for run, content in (("d", b"one"), ("e", b"two")):
        (tmp_path / run / "onnx").mkdir(parents=True)
        (tmp_path / run / "onnx" / "model.onnx").write_bytes(content)
    own, other = tmp_path / "d" / "onnx", tmp_path / "e" / "onnx"
    older: dict[str, Any] = {"name": str(own), "files": {"model.onnx": 3}}
    entry = {**older, "sha256": hashes_of(own, [own / "model.onnx"])}
    for told in (entry, older):
        assert is_of(told, own)
        assert not is_of(told, other)  # of the same name and size
    own.rename(tmp_path / "onnx")
    assert is_of(entry, tmp_path / "onnx")
    assert not is_of(entry, other)
    assert is_of(older, tmp_path / "onnx")  # nothing tells it from the other one but sizes
    assert not is_of({**older, "files": {"model.onnx": 4}}, tmp_path / "onnx")
    for damaged in ({}, {"sha256": {"../e/onnx/model.onnx": 1}}, {"sha256": {"model.onnx": None}}, {"name": None}):
        assert not is_of(damaged, other)
