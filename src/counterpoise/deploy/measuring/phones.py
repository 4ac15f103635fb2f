"""Latencies on a phone: a folder to take there, and what the runtimes' own benchmark tools print, read back in.

ExecuTorch: `executor_runner`, whose log has a line an iteration, or, of older ones, one for all; on Android it goes to
logcat. LiteRT: `benchmark_model`, whose line of counts has microseconds.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.deploy.measuring.timing import Case, interval
from counterpoise.errors import ConfigError, RunError
from counterpoise.system import documents
from counterpoise.system.files import replacing_folder, write_text

CONTENTS, SCRIPT, RESULTS = "bundle.json", "measure.sh", "results.txt"
UNNAMED = "a machine that the file does not name"
CALLS, WARM_UP = 50, 5
THERE = "/data/local/tmp/counterpoise"

# `adb logcat -c` forgets the log of the turn before. Older runners know no --print_output.
COMMANDS = {
    "executorch": (
        "adb logcat -c; adb shell 'cd {there} && ./executor_runner --model_path={file} --num_executions={runs} "
        "--cpu_threads={threads} 2>&1' | grep -v '^Output'; adb logcat -d -v brief -s ExecuTorch"
    ),
    "litert": (
        "adb shell 'cd {there} && ./benchmark_model --graph={file} --num_threads={threads} --num_runs={calls} "
        "--warmup_runs={warm_up} 2>&1'"
    ),
}
TOOLS = {"executorch": "executor_runner", "litert": "benchmark_model"}
"""Each beside the script, built for the phone."""

_HEAD = re.compile(r"^== (?P<file>\S+) threads=(?P<threads>\d{1,9})\b")
_DEVICE = re.compile(r"^== device (?P<device>.+)")
_LOADED = re.compile(r"Loaded model (?P<litert>\S+)$|Model file (?P<executorch>\S+) is loaded")
_THREADS = re.compile(r"Num threads: \[(\d{1,9})\]|num threads = (\d{1,9})\b")
_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d{1,3})?)"
_COUNTS = re.compile(rf"\bcount=(\d{{1,9}}) .*?\bavg={_NUMBER}")
_MEDIAN = re.compile(rf"\bmedian={_NUMBER}(?:.*?\bp95={_NUMBER})?")
_LITERT = re.compile(r"Inference timings in us: ")
_MEMORY = re.compile(rf"[Mm]emory footprint[^()]* \(MB\): init=\S+ overall={_NUMBER}")
_ITERATION = re.compile(rf"Iteration (\d+) of \d+: {_NUMBER} ms")
_EXECUTORCH = re.compile(rf"Model executed successfully (\d{{1,9}}) time\(s\) in {_NUMBER} ms")


def write_bundle(
    subjects: Sequence[Subject],
    out: Path,
    *,
    threads: Sequence[int],
    rounds: int,
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Put exports into a folder, with the script that measures them on a phone.

    Args:
        out: a folder that is not there yet, or empty.
        more: further contents of bundle.json.

    Raises:
        ConfigError: an export is for no phone, or not for one picture at a time.
        RunError: the folder holds something.
    """
    for subject in subjects:
        if subject.runtime not in COMMANDS or len(subject.files) != 1:
            raise ConfigError(
                f"{subject.name} ({subject.runtime}) is for no phone's benchmark tool; those there are take exports to "
                f"{' and '.join(COMMANDS)}: counterpoise export STUDENT --to executorch."
            )
        if subject.batch != 1:
            raise ConfigError(
                f"{subject.name} takes {subject.batch or 'any number of'} pictures, and benchmark tools give as many "
                "as they can: counterpoise export --batch 1."
            )
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty: give another folder for the bundle.")
    contents: dict[str, Any] = {}
    with replacing_folder(out) as new:
        for subject in subjects:
            name = f"{plain(subject.name)}{subject.path.suffix}"
            if name in contents:
                raise ConfigError(f"Two things to measure are called {subject.name}: measure them one after the other.")
            shutil.copyfile(subject.path, new / name)
            digest = hashlib.sha256((new / name).read_bytes()).hexdigest()
            contents[name] = {**subject.values(), "sha256": digest}
        write_text(new / CONTENTS, json.dumps({"files": contents, **(more or {})}, indent=2) + "\n")
        write_text(new / SCRIPT, script({name: facts["runtime"] for name, facts in contents.items()}, threads, rounds))
    return [out / name for name in (*contents, CONTENTS, SCRIPT)]


def way_on(bundle: Path) -> list[str]:
    """What is to be done with a bundle, for a terminal."""
    return [
        (bundle / SCRIPT).read_text(encoding="utf-8"),
        f"These commands are in {bundle}/{SCRIPT}. With the phone at hand: sh {bundle}/{SCRIPT}, and then "
        f"counterpoise measure --from {bundle}/{RESULTS}",
    ]


def plain(name: str) -> str:
    """A name as that of a file, without what a shell reads."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-.") or "export"


def script(runtimes: Mapping[str, str], threads: Sequence[int], rounds: int) -> str:
    """The commands, for sh: files by name, each with its runtime, in turn."""
    tools = sorted({TOOLS[runtime] for runtime in runtimes.values()})
    lines = [
        "#!/bin/sh",
        "# Measures these exports on the Android phone that adb sees, and writes results.txt.",
        f"# Put {' and '.join(tools)}, built for the phone, beside this script. Then: sh {SCRIPT}",
        'cd "$(dirname "$0")" || exit 1',
        *(f"[ -f {tool} ] || {{ echo '{tool} is missing beside {SCRIPT}' >&2; exit 2; }}" for tool in tools),
        f"adb shell mkdir -p {THERE} || exit 1",
        f"adb push {' '.join([*tools, *runtimes])} {THERE}/ >&2 || exit 1",
        *(f"adb shell chmod 755 {THERE}/{tool}" for tool in tools),
        "{",
        'echo "== device $(adb shell getprop ro.product.model), Android $(adb shell getprop ro.build.version.release)"',
        f"for round in {' '.join(str(number + 1) for number in range(rounds))}; do",
        'echo "round $round" >&2',
    ]
    for name, runtime in runtimes.items():
        for count in threads:
            command = COMMANDS[runtime].format(
                there=THERE, file=name, threads=count, runs=CALLS + WARM_UP, calls=CALLS, warm_up=WARM_UP
            )
            lines += [f"echo '== {name} threads={count}'", command]
    return "\n".join([*lines, "done", f"}} > {RESULTS}", ""])


@dataclass
class _Turn:
    """What one call of a tool printed."""

    file: str = ""
    runtime: str = ""
    threads: int = 0
    headed: bool = False  # by the script's own line, not by the tool's
    count: int = 0
    average_ms: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None
    memory_mb: float | None = None
    calls_ms: list[float] = field(default_factory=list)

    @property
    def milliseconds(self) -> float | None:
        """The median of its calls; where only their mean is known, that."""
        if len(self.calls_ms) > WARM_UP:
            return statistics.median(self.calls_ms[WARM_UP:])
        return self.median_ms if self.median_ms is not None else self.average_ms


def read_output(path: Path) -> dict[str, Any]:
    """What a benchmark tool printed, in the form of `measure`: one entry a file, a case each number of threads.

    Taken are results.txt of a bundle, beside which bundle.json says more of the files, and what a tool printed when it
    was called by hand. Of fewer than six turns there is no interval.

    Raises ConfigError where nothing of the kind is in the file.
    """
    try:
        text = documents.read_text(path, limit=documents.JSON_BYTES, errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    device = next((found["device"] for line in text.splitlines() if (found := _DEVICE.match(line))), UNNAMED)
    by_file: dict[str, dict[int, list[_Turn]]] = {}
    failed: dict[str, None] = {}
    for turn in _turns(text):
        if turn.milliseconds is not None:
            by_file.setdefault(turn.file or path.stem, {}).setdefault(turn.threads, []).append(turn)
        elif turn.headed:
            failed[turn.file] = None
    if failed:
        raise ConfigError(
            f"{path} has turns without a result, of {', '.join(failed)}: see what the tool printed there."
        )
    if not by_file:
        raise ConfigError(
            f"{path} holds no output of ExecuTorch's executor_runner ('Model executed successfully 50 time(s) in .. "
            "ms') or LiteRT's benchmark_model ('count=50 .. avg=.. median=..')."
        )
    known = _contents(path.parent / CONTENTS)
    measured = []
    for name, by_threads in by_file.items():
        first = next(iter(by_threads.values()))[0]
        unknown = dict.fromkeys(("precision", "bytes", "parameters", "multiply_adds"))
        facts = {"name": name, "runtime": first.runtime, "versions": {}, **unknown, **known.get(name, {})}
        cases = [_case(threads, turns) for threads, turns in sorted(by_threads.items())]
        measured.append({**facts, "file": name, "cases": cases})
    return {"machine": {"name": device}, "measured": measured}


def _turns(text: str) -> Iterator[_Turn]:
    turn = _Turn()
    for line in text.splitlines():
        head, loaded = _HEAD.match(line), _LOADED.search(line.strip())
        if head is not None:
            yield turn
            turn = _Turn(file=head["file"], threads=int(head["threads"]), headed=True)
        elif loaded is not None and not turn.headed:
            yield turn
            turn = _Turn(file=Path(loaded["litert"] or loaded["executorch"]).name, threads=turn.threads)
        _take(turn, line)
    yield turn


def _take(turn: _Turn, line: str) -> None:
    if (threads := _THREADS.search(line)) and not turn.headed:
        turn.threads = int(threads[1] or threads[2])
    if counts := _COUNTS.search(line):  # the first is that of the warm-up; the last one stays
        turn.count, turn.average_ms = int(counts[1]), float(counts[2]) / 1e3
        median = _MEDIAN.search(line)
        turn.median_ms = None if median is None else float(median[1]) / 1e3
        turn.p95_ms = None if median is None or median[2] is None else float(median[2]) / 1e3
    if _LITERT.search(line):
        turn.runtime = "litert"
    if memory := _MEMORY.search(line):
        turn.memory_mb = float(memory[1]) * 2**20 / 1e6  # the tool's are of 2^20 bytes
    if iteration := _ITERATION.search(line):
        turn.calls_ms.append(float(iteration[2]))
    if done := _EXECUTORCH.search(line):
        turn.runtime, turn.count = "executorch", int(done[1])
        turn.average_ms = float(done[2]) / max(turn.count, 1)


def _case(threads: int, turns: Sequence[_Turn]) -> dict[str, Any]:
    medians = [turn.milliseconds for turn in turns if turn.milliseconds is not None]
    low, high = interval(medians)
    slow = [turn.p95_ms for turn in turns if turn.p95_ms is not None]
    memory = [turn.memory_mb for turn in turns if turn.memory_mb is not None]
    return asdict(
        Case(
            threads=threads,
            batch=1,
            median_ms=statistics.median(medians),
            low_ms=low,
            high_ms=high,
            p95_ms=statistics.median(slow) if slow else None,
            spread=None,
            processor_ms=None,
            round_ms=medians,
            calls=sum(turn.count for turn in turns),
            peak_mb=max(memory) if memory else None,
            network_mb=None,
            millijoules=None,
        )
    )


def _contents(path: Path) -> dict[str, Any]:
    """What bundle.json says of its files; nothing where there is none."""
    try:
        values = documents.read_json(path, within=path.parent)
    except (OSError, ValueError):
        return {}
    files = values.get("files") if isinstance(values, dict) else None
    known = files.items() if isinstance(files, dict) else ()
    return {name: facts for name, facts in known if isinstance(facts, dict)}
