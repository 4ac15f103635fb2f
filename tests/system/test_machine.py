"""What the machine can count in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from counterpoise.system import machine
from counterpoise.system.machine import as_double, sum_dtype


def test_sums_are_in_float64_but_on_mps_which_has_none() -> None:
    assert sum_dtype(torch.device("mps")) == torch.float32
    assert sum_dtype(torch.device("cpu")) == sum_dtype(torch.device("cuda", 1)) == torch.float64
    counts = torch.tensor([2**24 + 1, 3])
    assert as_double(counts).dtype == torch.float64
    assert as_double(counts).tolist() == [2**24 + 1, 3]


@pytest.mark.parametrize(
    ("groups", "file", "at"),
    [("0::/job/step\n", "memory.max", "job"), ("3:cpu:/x\n9:memory:/job\n", "memory.limit_in_bytes", "memory/job")],
)
def test_memory_is_what_the_container_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, file: str, at: str
) -> None:
    whole = machine.memory()
    assert 2**28 < whole < 2**50
    (tmp_path / "cgroup" / at / "step").mkdir(parents=True)
    (tmp_path / "groups").write_text(groups)
    (tmp_path / "cgroup" / at / "step" / file).write_text("max\n")
    (tmp_path / "cgroup" / at / file).write_text("123456789\n")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "LIMITS", tmp_path / "cgroup")
    assert machine.memory() == 123456789
