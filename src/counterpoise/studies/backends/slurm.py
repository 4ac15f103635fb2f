"""Slurm, through submitit: all runs as one job array. A run that is preempted or out of time is queued again."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from counterpoise.config import Section
from counterpoise.errors import MissingExtraError, RunError
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import Outcome, work

POLL_SECONDS = 1.0
LOGGING = "SUBMITIT_LOG_LEVEL"


class Options(Section):
    """What Slurm is ended."""

    executor: str | None = Field(None, description="slurm, or local to try it without; default: what is there")
    minutes: int = Field(240, ge=1, description="time limit of a run's sitting")
    cpus: int = Field(1, ge=1, description="processors a run")
    gpus: int = Field(0, ge=0, description="GPUs a run")
    memory_gb: float | None = Field(None, gt=0, description="memory a run")
    partition: str | None = Field(None, description="partition")
    account: str | None = Field(None, description="account")
    logs: Path = Field(Path("slurm"), description="folder of submitit's files, on the shared file system")


def _submitit() -> Any:
    """The package, imported without its set-up of logging, which closes the handlers that a program has."""
    said = os.environ.get(LOGGING)
    os.environ[LOGGING] = "NOCONFIG"
    try:
        return importlib.import_module("submitit")
    finally:  # jobs have it
        if said is None:
            del os.environ[LOGGING]
        else:
            os.environ[LOGGING] = said


class Sitting:
    """`work` as submitit wants it: asked for a checkpoint, it is to be queued again as it is."""

    def __call__(self, job: TrainingJob, until: float | None, threads: int) -> Outcome:
        return work(job, until, threads)

    def checkpoint(self, *arguments: Any) -> Any:
        """Called by submitit before a preemption or at the time limit; the run's own checkpoints are its state."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class Slurm:
    """One array of all runs, `jobs` of them at once where that is more than 1."""

    def __init__(self, jobs: int, options: Options) -> None:
        try:
            _submitit()
        except ImportError:
            raise MissingExtraError("--on slurm", "slurm") from None
        self.jobs = jobs
        self.options = options

    def __call__(
        self, jobs: Sequence[TrainingJob], until: float | None, ended: Callable[[TrainingJob, Outcome], None]
    ) -> None:
        submitit, options = _submitit(), self.options
        try:
            executor = submitit.AutoExecutor(folder=options.logs, cluster=options.executor)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"Slurm cannot be used: {error}") from None
        slurm = {"partition": options.partition, "account": options.account}
        executor.update_parameters(
            name="counterpoise",
            timeout_min=options.minutes,
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus,
            **({} if options.memory_gb is None else {"mem_gb": options.memory_gb}),
            **({"slurm_array_parallelism": self.jobs} if self.jobs > 1 else {}),
            **{f"slurm_{key}": value for key, value in slurm.items() if value is not None},
        )
        with executor.batch():
            submitted = [executor.submit(Sitting(), job, until, options.cpus) for job in jobs]
        waiting = dict(zip(submitted, jobs, strict=True))
        try:
            while waiting:
                for handle in [handle for handle in waiting if handle.done()]:
                    ended(waiting.pop(handle), _outcome(handle))
                time.sleep(POLL_SECONDS if waiting else 0)
        finally:
            for handle in waiting:
                handle.cancel()


def _outcome(handle: Any) -> Outcome:
    failure = handle.exception()
    if failure is not None:
        return Outcome(
            "error",
            f"job {handle.job_id} failed: {(str(failure).strip().splitlines() or [type(failure).__name__])[-1]}",
        )
    outcome = handle.result()
    assert isinstance(outcome, Outcome)
    return outcome
