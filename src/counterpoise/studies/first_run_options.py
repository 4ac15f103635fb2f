"""What is known before a first run file: flags of `counterpoise init`, keyword arguments of `counterpoise.init`."""

from __future__ import annotations

from pydantic import Field

from counterpoise.config import Section
from counterpoise.config.options import Place


class Init(Section):
    """What is known already."""

    out: Place | None = Field(default=None, description="the run file; default: NAME.yaml, by the folder's name")
    student: str | None = Field(
        default=None, description="the student's network, instead of the one that seems to suit"
    )
    teacher: str | None = Field(
        default=None,
        description="the teacher: a run, student folder or checkpoint that says what it holds, or a network by name",
    )
    overwrite: bool = Field(default=False, description="replace the run file that is there")
