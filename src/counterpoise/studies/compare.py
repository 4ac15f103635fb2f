"""`counterpoise compare`: train whatever a compare file asks for and is not there yet, and tell what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from counterpoise.data.checking import overview
from counterpoise.studies import plan, report, results
from counterpoise.studies.fanout import Fanout as Fanout  # documented to be found here, too
from counterpoise.studies.plan import Comparison
from counterpoise.studies.running import Backend, alone_in, refuse_foreign, run_all, state
from counterpoise.studies.standing import Present
from counterpoise.studies.summary import Report, summarize


@dataclass(frozen=True)
class CompareResult:
    """What a call came to.

    Attributes:
        left: names of the runs that are left for another call.
        errors: messages by run, of those that cannot go on.
    """

    out: Path
    report: Report
    left: list[str]
    errors: dict[str, str]


def compare(file: str | Path, *, out: str | Path | None = None, fanout: Fanout | None = None) -> CompareResult:
    """Train what a compare file asks for, and sum it up in `out`.

    Raises:
        ConfigError: whatever is wrong with the file, the options or all of its runs, or a foreign table is in `out`.
        RunError: `out` holds other runs, or another process is at work there.
        KeyboardInterrupt: Ctrl-C; what was begun is saved.
    """
    fanout = fanout or Fanout()
    until = fanout.until()
    comparison = plan.read(Path(file), None if out is None else Path(out))
    return run_comparison(comparison, fanout, fanout.backend(), until)


def run_comparison(comparison: Comparison, fanout: Fanout, backend: Backend, until: float | None) -> CompareResult:
    """The same from a comparison that was read."""
    out = comparison.plan.out
    say = fanout.console().print
    with alone_in(out):
        present = Present(say)
        if not (out / "results.csv").exists():  # else it is ours, and so is what lies beside it
            refuse_foreign(out, report.HEADS)
        older = results.renamed(results.read_csv(out / "results.csv"), comparison.jobs, present)
        settled = results.settled(comparison.jobs, older, comparison.metric, fanout.pool, present)
        jobs = [job for job in comparison.jobs if job.name not in settled]
        try:
            if fanout.show:
                for line in overview(job.run.data for job in jobs if state(job) in ("begun", "new")):
                    say(line)
            left, errors = run_all(jobs, backend, until, say, present)
        finally:  # whatever ends this call, what is done is told
            rows = results.gather(comparison.jobs, older, comparison.metric)
            tables = summarize(comparison, rows, fanout.pool, present)
            if rows:
                report.write(out, comparison, rows, tables)
    return CompareResult(out, tables, [job.name for job in left], errors)
