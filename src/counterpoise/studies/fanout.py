"""How runs are spread: for how long, how many at once, and where."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from counterpoise.config import Section
from counterpoise.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from counterpoise.studies.running import Backend


class Sitting(Section):
    """How much of the work a call does."""

    minutes: float | None = Field(None, description="stop at a checkpoint after this time, and say what is left")
    jobs: int = Field(1, description="runs at once")


class Spread(Sitting):
    """Where the work is done."""

    on: str = Field("processes", description="processes of this machine, ray or slurm")
    cluster: dict[str, Any] | None = Field(None, description="options of Ray or Slurm, such as --cluster.num_gpus 0.25")
    pool: bool = Field(False, description="take runs of several machines or versions of the code as one table")


class Fanout(Spread):
    """How jobs are trained."""

    show: bool = Field(False, description="progress on stderr, a line a run")

    def backend(self) -> Backend:
        """The backend of that name. Raises ConfigError, MissingExtraError."""
        from counterpoise.studies import backends

        return backends.find(self.on, self.jobs, self.cluster or {})

    def until(self) -> float | None:
        """The moment of time.time() to stop at. Raises ConfigError for a time that is none."""
        if self.minutes is None:
            return None
        if not self.minutes > 0:
            raise ConfigError(f"--minutes must be more than 0, got {self.minutes}.")
        return time.time() + 60 * self.minutes

    def console(self) -> Console:
        """Where progress is told."""
        from rich.console import Console

        return Console(stderr=True, quiet=not self.show, highlight=False, markup=False, soft_wrap=True)
