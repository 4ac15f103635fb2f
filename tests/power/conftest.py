"""Calls are traced where the system lets us."""

from __future__ import annotations

import pytest
from outage import tracing


@pytest.fixture(scope="session", autouse=True)
def _traceable() -> None:
    """Skip where nothing can be traced. `test_recording` says what is seen where something can."""
    if reason := tracing.why_not():
        pytest.skip(f"needs to trace calls: {reason}")
