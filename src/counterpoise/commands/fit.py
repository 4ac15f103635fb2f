"""`counterpoise fit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from counterpoise.commands import flags
from counterpoise.commands.compare import ended

DOES_NOT_HOLD = 2
"""Exit code where no candidate keeps the budget, or the trained one does not."""


def fit(
    run_file: Path,
    /,
    *,
    budget: str,
    runtime: str,
    students: list[str] | None = None,
    sizes: list[int] | None = None,
    precisions: list[str] | None = None,
    candidates: Path | None = None,
    out: Path | None = None,
    threads: int = 1,
    rounds: int = 9,
    seconds: float = 0.2,
    keep: float = 0.5,
    rungs: list[int] | None = None,
    val_images: int | None = None,
    within: float = 0.5,
    candidates_to: Path | None = None,
    measured: list[Path] | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Find the most accurate student that keeps a budget, by measurement on the runtime that is to run it.

    Candidates are measured untrained; those that keep the budget are distilled by successive halving on training images
    held out; the best is trained in full, exported and measured again. The same command goes on with what was stopped
    or killed. Exit code 2: nothing keeps the budget; 3: time was up, and runs are left.

    Args:
        run_file: YAML: data, teacher or its store, objective, train
        budget: such as "latency<=15ms, size<=4MB"; of latency, size, memory, multiply_adds and parameters
        runtime: onnx, openvino, executorch or another format of exports
        students: networks to try, by name or pattern, such as 'timm/mobilenetv3_small_*'
        sizes: input sizes in pixels; default: each network's own
        precisions: float32, float16, int8; default: float32
        candidates: YAML file of students (with arguments to vary), sizes, precisions
        out: folder of measurements, runs and frontier; default: the run file's
        threads: of the runtime
        rounds: turns of each candidate, 6 or more
        seconds: of calls in each turn
        keep: share of the candidates that goes on from each rung to the next
        rungs: epochs of each rung; default: halves of halves of train.epochs, for as many as there are candidates
        val_images: training images held out to choose by; default: a tenth
        within: points that the final export in 8 bits may lose before layers are kept in float
        candidates_to: instead, write the untrained candidates and the commands that measure them on an Android phone
        measured: go on from what a phone said of these: results.txt of the bundle, and later that of the final one
        minutes: stop at a checkpoint after this time, and say what is left
        jobs: runs at once
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.studies.compare import Fanout
    from counterpoise.studies.fitting import fit as fitting

    options = {
        "students": students or (),
        "sizes": sizes or (),
        "precisions": precisions or (),
        "candidates": candidates,
        "out": out,
        "threads": threads,
        "rounds": rounds,
        "seconds": seconds,
        "keep": keep,
        "rungs": rungs,
        "val_images": val_images,
        "within": within,
    }
    if candidates_to is not None:
        files = fitting.candidates_to(run_file, candidates_to, budget=budget, runtime=runtime, **options)
        told = {"bundle": str(candidates_to), "files": [file.name for file in files]}
        flags.show(
            told,
            json,
            lambda: [
                f"{len(files) - 2} candidates are in {candidates_to}. With the phone at hand: sh "
                f"{candidates_to}/measure.sh, and then this command again, with --measured {candidates_to}/results.txt "
                "instead of --candidates-to."
            ],
        )
        return 0
    fanout = Fanout(minutes, jobs, show=not quiet)
    result = fitting.fit(run_file, budget=budget, runtime=runtime, measured=measured or (), fanout=fanout, **options)
    flags.show(asdict(result), json, lambda: fitting.tables(result))
    return ended(result.left, result.errors, json, said=not quiet) or (DOES_NOT_HOLD if result.holds is False else 0)
