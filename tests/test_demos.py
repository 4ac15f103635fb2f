"""The demo, with fewer seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import counterpoise
from counterpoise.demos import OBJECTIVES
from counterpoise.errors import RunError


def test_the_demo_compares_at_equal_weight_and_writes_its_summary(tmp_path: Path) -> None:
    summary = counterpoise.demo(tmp_path / "demo", seeds=2)
    assert json.loads((tmp_path / "demo" / "summary.json").read_text()) == summary
    assert list(summary) == ["teacher", "alone", "kd", "balance"]
    for row in summary.values():
        assert set(row) == {"top1", "params", "bytes", "seconds"}
        assert set(row["top1"]) == {"last", "best"}
        assert row["top1"]["best"]["mean"] >= row["top1"]["last"]["mean"] > 20
        assert set(row["top1"]["last"]) == {"mean", "std"}
    assert summary["teacher"]["params"] > 10 * summary["kd"]["params"]
    assert summary["teacher"]["top1"]["last"]["mean"] > 90
    balance = OBJECTIVES["balance"]["balance"]
    total = balance["weight"] * (balance["forward_weight"] + balance["reverse_weight"])
    assert total == OBJECTIVES["kd"]["forward_kl"]["weight"]
    with pytest.raises(RunError, match="--overwrite, or give another --out") as error:
        counterpoise.demo(tmp_path / "demo", seeds=2)
    assert "--resume" not in str(error.value)
