"""How far something is, on stderr."""

from __future__ import annotations

import pytest

from counterpoise.engine.progress import Pace


def test_what_is_left_is_said_a_line_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    pace = Pace(1000, "Compared images", show=True, every=0.0)
    pace.started -= 60
    for done in (0, 250, 1000):
        pace.at(done)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Compared images: 250 of 1,000  1 min, 3 min left"
    Pace(1000, "Compared images", show=False, every=0.0).at(250)
    assert capsys.readouterr().err == ""
