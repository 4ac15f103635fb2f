"""Whenever the power goes: what was there is there, or what is to be, whole; and the next start makes the rest.

An operation's calls are recorded, states that a crash may leave are made of them, and each is opened by the reader that
a user would open it with. After the operation has come back, only the new state will do. See `outage.states` for what
a disk is taken to promise: less than most do.
"""

from __future__ import annotations

import pytest
from outage import trying
from outage.operations import OPERATIONS

STATES = {"site": 20, "ONNX export": 40}
"""In a run of the suite: what is slow to open is tried less. All are tried more in the slow test."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_old_or_the_new_is_whole(name: str) -> None:
    tried = trying.crash(OPERATIONS[name], STATES.get(name, 100), again_every=20)
    assert tried.wrong == []
    assert tried.count >= min(tried.steps, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_old_or_the_new_is_whole_in_thousands_of_states(name: str) -> None:
    tried = trying.crash(OPERATIONS[name], 2000, again_every=5, torn=40, seed=1)
    assert tried.wrong == []
