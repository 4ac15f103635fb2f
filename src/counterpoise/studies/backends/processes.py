"""Processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from unittest.mock import patch

from counterpoise.errors import RunError
from counterpoise.studies.plan import TrainingJob
from counterpoise.studies.running import Outcome, work


class Processes:
    """`jobs` runs at once; one alone is trained in this very process.

    Torch's threads are divided among them: two runs that each take all cores take longer than one after the other.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def __call__(
        self, jobs: Sequence[TrainingJob], until: float | None, ended: Callable[[TrainingJob, Outcome], None]
    ) -> None:
        count = min(self.jobs, len(jobs))
        if self.jobs == 1:
            for job in jobs:
                ended(job, work(job, until))
            return
        import torch

        threads = max(torch.get_num_threads() // self.jobs, 1)
        spawn = multiprocessing.get_context("spawn")
        # Read by OpenMP when a child starts, before torch can be asked for less. loky would set the same variable.
        with patch.dict(os.environ, {"OMP_NUM_THREADS": str(threads)}):
            pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin)
            try:
                futures = {pool.submit(work, job, until, threads): job for job in jobs}
                for future in as_completed(futures):
                    ended(futures[future], future.result())
            except BrokenProcessPool:
                raise RunError(
                    "A worker process was ended from outside, such as for lack of memory. What is done is kept: the "
                    "same command goes on, with --jobs 1 where memory is short."
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a worker: end with the parent, and leave Ctrl-C to the training loop, which saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # a run is safe at any moment; a worker that goes on unseen would hold its folder
