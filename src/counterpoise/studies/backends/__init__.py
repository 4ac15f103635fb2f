"""Where jobs are trained: this machine, Ray, Slurm. Fan-out is theirs; all of it calls `running.work`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterpoise.config.validation_errors import validated
from counterpoise.errors import ConfigError, unknown
from counterpoise.studies.running import Backend

CLUSTER = "command line's --cluster"
NAMES = ("processes", "ray", "slurm")


def find(name: str, jobs: int, options: Mapping[str, Any]) -> Backend:
    """The backend called `name`, with `jobs` runs at once and its own options.

    Raises ConfigError for an unknown name or option, MissingExtraError where its package is not there.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {jobs}.")
    if name == "processes":
        from counterpoise.studies.backends.processes import Processes

        if options:
            raise ConfigError("--cluster is for --on ray and --on slurm; processes of this machine take --jobs.")
        return Processes(jobs)
    if name == "ray":
        from counterpoise.studies.backends.ray import Options, Ray

        return Ray(jobs, validated(Options, options, CLUSTER))
    if name == "slurm":
        from counterpoise.studies.backends.slurm import Options as SlurmOptions
        from counterpoise.studies.backends.slurm import Slurm

        return Slurm(jobs, validated(SlurmOptions, options, CLUSTER))
    raise ConfigError(f"--on: {unknown('Backend', name, NAMES)}")
