"""Whichever call fails, once or from then on: an error in words, or success; and what was there is whole.

The calls that open, write, sync, name or close what lies in the folder fail one after the other, as SQLite has them
fail. Afterwards the same is done again with all calls working, which must come to its end and leave nothing behind.
"""

from __future__ import annotations

import pytest
from outage import trying
from outage.operations import OPERATIONS

QUICK = ("checkpoint", "first student folder", "results.csv", "store pruned")


@pytest.mark.parametrize("name", QUICK)
def test_each_call_may_fail(name: str) -> None:
    """Every third of them in one of the ways, in turn; all calls and ways in the slow test."""
    tried = trying.failing(OPERATIONS[name], trying.some)
    assert tried.wrong == []
    assert tried.count >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_call_may_fail_in_every_way(name: str) -> None:
    tried = trying.failing(OPERATIONS[name], trying.every_way)
    assert tried.wrong == []
