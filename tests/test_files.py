"""Files are the old ones or the new ones, whole, also where the disk fills: the kernel itself refuses to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from counterpoise.errors import RunError
from counterpoise.files import replacing_folder, write_tensors, write_text

LIMITED = """
import resource, sys, torch
from pathlib import Path
from counterpoise.files import write_tensors
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
    write_tensors(tmp_path / "one", tensors, {"format": "pt"})
    write_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"format": "pt"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    torch.testing.assert_close(load_file(tmp_path / "one")["b"], tensors["b"])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        write_text(tmp_path / "nowhere" / "file.txt", "text")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "site"
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
    assert [entry.name for entry in tmp_path.iterdir()] == ["site"]
