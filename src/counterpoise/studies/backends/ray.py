"""Ray: a run is a task, retried from its checkpoint where its worker dies. Nodes share a file system."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from counterpoise.config import Section
from counterpoise.errors import MissingExtraError, RunError, first_line
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import Outcome, work


class Options(Section):
    """What Ray is ended."""

    address: str | None = Field(None, description="of the cluster, such as auto; default: one on this machine")
    num_cpus: float = Field(1.0, gt=0, description="processors a run")
    num_gpus: float = Field(0.0, ge=0, description="GPUs a run; a part of one, too")
    retries: int = Field(10, ge=0, description="how often a run whose worker died is taken up again")


class Ray:
    """At most `jobs` runs at once where that is more than 1, else as many as the cluster has room for."""

    def __init__(self, jobs: int, options: Options) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise MissingExtraError("--on ray", "ray") from None
        self.jobs = jobs
        self.options = options

    def __call__(
        self, jobs: Sequence[TrainingJob], until: float | None, ended: Callable[[TrainingJob, Outcome], None]
    ) -> None:
        import ray

        options = self.options
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError) as error:
                raise RunError(f"No Ray cluster answers at {options.address}: {error}") from None
        task: Any = ray.remote(num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_retries=options.retries)(work)
        threads = max(int(options.num_cpus), 1)
        waiting = list(jobs)
        running: dict[object, TrainingJob] = {}
        try:
            while waiting or running:
                while waiting and (self.jobs == 1 or len(running) < self.jobs):
                    job = waiting.pop(0)
                    running[task.remote(job, until, threads, Path.cwd())] = job
                for done in ray.wait(list(running), num_returns=1)[0]:
                    job = running.pop(done)
                    try:
                        ended(job, ray.get(done))
                    except ray.exceptions.RayError as error:
                        ended(job, Outcome("error", f"Ray gave up on it: {first_line(error)}."))
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()
