"""Mutation testing of what keeps a user's work: how many small faults in the code do the tests find?

Faults are those of cosmic-ray (`pip install cosmic-ray`): another operator or number, a condition turned round, a loop
that never runs, an exception that is not caught; of the operators of one place one is drawn. To these comes: a call
whose answer nobody takes is left out, such as that of fsync. Type hints are left alone, since nothing evaluates them.
A fault is found where a test fails, or takes ten times as long. What changes nothing that anybody could see counts as
not found.

    python benchmarks/mutants.py --copy /tmp/mutants --count 100 --out benchmarks/results/mutants.csv

Tests run in a copy of the last commit. Each finished mutant has its row in the CSV: the same command goes on with the
others.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import mutating, plugins
from cosmic_ray.ast import ast_nodes, get_ast

sys.path.insert(0, str(Path(__file__).resolve().parent / "evidence"))

from kept_rows import KeptRows

ROOT = Path(__file__).resolve().parents[1]
SEED = 90
STORE = "src/counterpoise/teachers/store"
AT_ONCE = ("-k", "not (kill or fills or as_long)")
"""Tests that start or wait for no other process, first."""
TARGETS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "files": (
        ("src/counterpoise/system/files.py",),
        (
            ("tests/system/test_files.py", *AT_ONCE),
            ("tests/system/test_files.py",),
            ("tests/engine/test_state.py", "tests/engine/test_run_folder.py", "tests/engine/test_student.py"),
            ("tests/power", "-k", "student or results or made"),
        ),
    ),
    "checkpoints": (
        ("src/counterpoise/engine/state.py", "src/counterpoise/engine/run_folder.py"),
        (
            ("tests/engine/test_state.py", "tests/engine/test_run_folder.py", *AT_ONCE),
            ("tests/engine/test_state.py", "tests/engine/test_run_folder.py"),
            ("tests/engine/test_resume.py", "tests/engine/test_extending.py", "tests/engine/test_student.py"),
            ("tests/engine/test_trainer.py", "tests/commands/test_app.py"),
            ("tests/power", "-k", "checkpoint"),
        ),
    ),
    "store": (
        tuple(f"{STORE}/{name}.py" for name in ("codecs", "format", "operations", "reader", "remote", "writer")),
        (
            ("tests/teachers/store", *AT_ONCE),
            ("tests/teachers/store",),
            ("tests/teachers", "tests/commands/test_store.py", "tests/engine/test_recording.py"),
            ("tests/power", "-k", "store or checksum"),
        ),
    ),
}
"""Of each: the files that are changed, and tests that should find it, those that take least first."""
LEFT_OUT = "CallLeftOut"
LONGEST = 600.0
"""Seconds for one stage of tests, where it never ended before."""


@dataclass(frozen=True)
class Mutant:
    """A fault in one place: the operator's n-th of its file."""

    path: str
    line: int
    operator: str
    occurrence: int

    def code(self) -> str:
        """The file with it."""
        source = (ROOT / self.path).read_text(encoding="utf-8")
        if self.operator == LEFT_OUT:
            return without(source, calls(source)[self.occurrence])
        made = mutating.mutate_code(source, plugins.get_operator(f"core/{self.operator}")(), self.occurrence)
        assert made, self
        return str(made)

    def is_fault(self) -> bool:
        """cosmic-ray takes the star of keyword-only arguments for a product: without one there are other arguments."""
        try:
            changed = ast.parse(self.code())
        except SyntaxError:
            return False
        operators = [
            [type(node) for node in ast.walk(tree) if isinstance(node, ast.operator)]
            for tree in (ast.parse((ROOT / self.path).read_text(encoding="utf-8")), changed)
        ]
        return "BinaryOperator" not in self.operator or operators[0] != operators[1]


def mutants(path: str) -> Iterator[Mutant]:
    """All of a file, the operators of one place drawn to one."""
    source = (ROOT / path).read_text(encoding="utf-8")
    hints, nodes = list(type_hints(source)), list(ast_nodes(get_ast(source)))
    places: dict[tuple[int, int, str], list[tuple[str, int]]] = {}
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments():
            continue
        found = (place for node in nodes for place in kind().mutation_positions(node))
        for occurrence, (start, _) in enumerate(found):
            if not any(begin <= start < end for begin, end in hints):
                operator = name.removeprefix("core/")
                places.setdefault((*start, operator.split("_")[0]), []).append((operator, occurrence))
    drawn = random.Random(f"{SEED} {path}")
    for (line, _, _), choices in sorted(places.items()):
        yield Mutant(path, line, *drawn.choice(choices))
    for occurrence, call in enumerate(calls(source)):
        yield Mutant(path, call.lineno, LEFT_OUT, occurrence)


def type_hints(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where type hints begin and end: line and column."""
    for node in ast.walk(ast.parse(source)):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for hint in [hint for hint in hints if isinstance(hint, ast.expr)]:
            yield (hint.lineno, hint.col_offset), (hint.end_lineno or hint.lineno, hint.end_col_offset or 0)


def calls(source: str) -> list[ast.Expr]:
    """Those that stand by themselves."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    return [node for node in found if isinstance(node.value, ast.Call)]


def without(source: str, call: ast.Expr) -> str:
    """Nothing in its place."""
    lines = source.splitlines(keepends=True)
    kept = lines[call.lineno - 1][: call.col_offset]
    return "".join([*lines[: call.lineno - 1], f"{kept}pass\n", *lines[call.end_lineno :]])


def sample(target: str, count: int) -> list[Mutant]:
    """So many of a target, drawn by the seed."""
    whole = list(itertools.chain.from_iterable(mutants(path) for path in TARGETS[target][0]))
    random.Random(f"{SEED} {target}").shuffle(whole)
    chosen = list(itertools.islice((mutant for mutant in whole if mutant.is_fault()), count))
    print(f"{target}: {len(chosen)} of about {len(whole)} mutants", flush=True)
    return chosen


def tested(copy: Path, stage: tuple[str, ...], longest: float) -> tuple[str, float]:
    """passed, failed or too long, and the seconds it took; in a process that has imported all but this project."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(copy / "mutant.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *stage])))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        taken = time.perf_counter() - began
        if ended or taken > longest:
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
        return "too long", taken
    code = os.waitstatus_to_exitcode(status)
    if code in (4, 5):
        raise SystemExit(f"no test was run: {(copy / 'mutant.log').read_text(encoding='utf-8')[-2000:]}")
    return ("passed" if code == 0 else "failed"), taken


def main() -> int:
    """Try what is left, and say how many were found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copy", type=Path, required=True, help="for a copy of the last commit, one a process")
    parser.add_argument("--count", type=int, default=100, help="of each target, drawn by a seed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mutants.csv")
    parser.add_argument("--lane", default="1/1", help="which share of them: 1/2 and 2/2 for two processes")
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    given = parser.parse_args()
    given.copy = given.copy.absolute()
    kept = KeptRows(given.out.absolute(), f"python benchmarks/mutants.py --count {given.count}")
    chosen = {target: sample(target, given.count) for target in given.targets}
    prepare(given.copy)
    lane, lanes = map(int, given.lane.split("/"))
    for target, all_of_it in chosen.items():
        stages = TARGETS[target][1]
        limits = [10 * unchanged(given.copy, stage) for stage in stages]
        for number, mutant in enumerate(all_of_it):
            known = {"target": target, "number": number, "file": Path(mutant.path).name, "line": mutant.line}
            if number % lanes == lane - 1 and not kept.rows(**known):
                outcome = tried(given.copy, mutant, stages, limits)
                kept.add({**known, "operator": mutant.operator, "outcome": outcome})
        rows = kept.rows(target=target)
        found = sum(row["outcome"] != "not found" for row in rows)
        print(f"{target}: {found} of {len(rows)} found, {100 * found / len(rows):.1f}%", flush=True)
    return 0


def prepare(copy: Path) -> None:
    """A clone, what tests import, and what they see of the machine."""
    if not copy.is_dir():
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(copy)], check=True)
    os.environ.update(PYTHONPATH=str(copy / "src"), OMP_NUM_THREADS="1")
    os.chdir(copy)
    loaded = [name for name in sys.modules if name.split(".")[0] == "counterpoise"]
    for name in loaded:
        del sys.modules[name]
    sys.path[:] = [str(copy / "src"), *(place for place in sys.path if place != str(ROOT / "src"))]
    for name in ("hypothesis", "numpy", "pytest", "safetensors.torch", "scipy.stats", "torch"):
        importlib.import_module(name)


def unchanged(copy: Path, stage: tuple[str, ...]) -> float:
    """The seconds of tests without a fault, which must pass."""
    outcome, taken = tested(copy, stage, LONGEST)
    if outcome != "passed":
        raise SystemExit(f"without a fault, {' '.join(stage)}: {outcome}, see {copy / 'mutant.log'}")
    return taken


def tried(copy: Path, mutant: Mutant, stages: tuple[tuple[str, ...], ...], limits: list[float]) -> str:
    """At which stage it was found, from 1; or not found."""
    path = copy / mutant.path
    before = path.read_bytes()
    try:
        write(path, mutant.code().encode())
        for number, (stage, longest) in enumerate(zip(stages, limits, strict=True), start=1):
            outcome, _ = tested(copy, stage, longest)
            if outcome != "passed":
                return f"{outcome} at {number}"
        return "not found"
    finally:
        write(path, before)


def write(path: Path, content: bytes) -> None:
    """With a time of its own: compiled code is known by time, in whole seconds, and size."""
    later = int(path.stat().st_mtime) + 1
    path.write_bytes(content)
    os.utime(path, (later, later))


if __name__ == "__main__":
    sys.exit(main())
