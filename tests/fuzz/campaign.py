"""Changed files by the thousand through the readers that the program has, and what came out that should not.

`python tests/fuzz/campaign.py --mutants 10000 --out FILE.csv [FORMAT ...]` counts; `--only 4711 FORMAT` shows one.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.util
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mutators import Mutator

from counterpoise.deploy.environments import Environment
from counterpoise.errors import CounterpoiseError

SECONDS = 5.0
"""Of a processor that a mutant may take."""
WAITING = 120.0
"""Seconds by the clock: for what waits instead, on a machine that does other things, too."""
MEMORY = 2**30
"""Bytes of addresses that a mutant may ask for beyond what the process had."""
LONGEST = 3000
"""Letters of a message."""
INSIDES = re.compile(
    r"Traceback|NoneType|unhashable|object (is not|has no|cannot be)|(Key|Type|Value|Index|Attribute|Unicode\w+)Error\("
    r"|positional argument|unexpected keyword|indices must be|not supported between|codec can't|<class '"
)
"""What Python says of a program, and not of a file."""
_SYSTEM = tuple(
    os.path.realpath(path)
    for path in (
        sys.prefix,
        sys.base_prefix,
        Path(__file__).parents[2] / "src",
        "/usr",
        "/proc",
        "/sys",
        "/lib",
        "/dev/null",
        Environment("litert", ()).folder,  # whether it is there
    )
)
_RUNS = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "socket.connect",
    "socket.getaddrinfo",
)


@dataclass(frozen=True)
class Format:
    """A kind of file, and how the program reads it.

    Attributes:
        make: writes a small folder in which it is as it should be.
        file: the one that is changed, within that folder.
        mutate: changes it.
        read: the program's own reader; takes the folder.
        seal: after the change, what somebody hostile would do so that checksums agree.
        sound: whether what was read makes sense, beside what the good file gives; None: whatever was read does.
        quick: mutants in the suite.
        anywhere: whether a file of this kind may name others by any path, since the user wrote it.
        needs: packages that read it; where one is missing, it is not tried.
        apart: whether it is read in a process of its own, since a native library may take the process with it.
        dies: whether that is known, and said in docs/reliability.md.
        starts: the script of ours that it may start, in a process of its own.
    """

    name: str
    make: Callable[[Path], object]
    file: str
    mutate: Mutator
    read: Callable[[Path], Any]
    seal: Callable[[Path], None] | None = None
    sound: Callable[[Any, Any], bool] | None = None
    quick: int = 60
    anywhere: bool = False
    needs: tuple[str, ...] = ()
    apart: bool = False
    dies: bool = False
    starts: str = ""

    @property
    def missing(self) -> str:
        """The first package of those that it needs that is not here; empty where all are."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")


@dataclass
class Report:
    """What became of the mutants of a format: how many were read and refused, and what is wrong by mutant."""

    format: str
    mutants: int = 0
    same: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    wrong: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.mutants} mutants, {self.read} read, {self.refused} refused, {len(self.wrong)} wrong"
        lines = [f"{self.format}: {counts}, {self.seconds:.1f} s, slowest {self.slowest:.2f} s"]
        kinds: dict[str, list[tuple[int, str]]] = {}
        for number, what in self.wrong:
            kinds.setdefault(re.sub(r"[\d']+", "#", what.split("\n")[0])[:110], []).append((number, what))
        for found in sorted(kinds.values(), key=len, reverse=True):
            lines.append(f"  {len(found)} x, such as mutant {found[0][0]}: {found[0][1]}")
        return "\n".join(lines)


class _Late(BaseException):
    """No `except Exception` may take it for an error of the file."""


class _Watch:
    """What is opened, run or imported while a file is read. An audit hook stays for good, so there is one."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.free = False
        self.starts = ""
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            self._opened(arguments[0])
        elif event in _RUNS and not self._may_start(event, arguments):
            self.seen.append(f"{event}{str(arguments)[:80]}")
        elif event == "import" and str(arguments[0]).partition(".")[0] in ("canary", "antigravity"):
            self.seen.append(f"imported {arguments[0]}")

    def _may_start(self, event: str, arguments: tuple[Any, ...]) -> bool:
        # Python 3.13 tells of a process twice, with the same arguments.
        starting = event in ("subprocess.Popen", "os.posix_spawn")
        return starting and bool(self.starts) and str(arguments[1][1]).endswith(self.starts)

    def _opened(self, path: Any) -> None:
        if not isinstance(path, str | bytes):
            return
        name = os.path.realpath(os.fsdecode(path))
        if name.startswith(self.folder or "") or name.startswith(_SYSTEM):
            if name.endswith("canary.py"):
                self.seen.append("opened canary.py")
        elif self.starts and name == os.path.realpath(tempfile.gettempdir()):
            pass  # a file without a name, for what the other process says
        elif not self.free or name.startswith("/dev"):
            self.seen.append(f"opened {name[:200]}")


_watch: _Watch | None = None


@contextmanager
def _bounded(folder: Path, form: Format) -> Iterator[list[str]]:
    """Within it, what is read may take `SECONDS` and `MEMORY`; yields what was opened or run that should not be."""
    global _watch
    _watch = _watch or _Watch()

    def late(*_: object) -> None:
        raise _Late

    before = [signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)]
    _watch.seen, _watch.free, _watch.starts, _watch.folder = [], form.anywhere, form.starts, os.path.realpath(folder)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        yield _watch.seen
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _watch.folder = None
        for number, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _little_memory() -> Iterator[None]:
    usual = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, usual)


def prepared(form: Format, folder: Path) -> tuple[bytes, Any]:
    """Make the good folder; the bytes of the file that is changed, and what the good one gives."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "outside.txt").write_text("top: secret\n")
    form.make(folder)
    (folder / "canary.py").write_text("open('ran', 'w').close()\n\n\ndef make(*_, **__):\n    return None\n")
    return (folder / form.file).read_bytes(), form.read(folder)


def mutant(form: Format, good: bytes, number: int) -> bytes:
    """A changed file, the same for ever."""
    return form.mutate(good, Random(f"{form.name} {number}"))


def campaign(
    form: Format,
    folder: Path,
    numbers: Sequence[int] | range,
    verbose: bool = False,
    after: Callable[[Report], None] | None = None,
) -> Report:
    """Read the mutants of these numbers. Nothing of what goes wrong is raised; it is in the report.

    after: is given the report after each of them.
    """
    started = time.process_time()
    good, usual = prepared(form, folder)
    report, path = Report(form.name), folder / form.file
    here = Path.cwd()
    os.chdir(folder)
    try:
        with _little_memory():
            for number in numbers:
                content = mutant(form, good, number)
                report.mutants += 1
                if content == good:
                    report.same += 1
                path.unlink(missing_ok=True)  # a mapped file stays what it was
                path.write_bytes(content)
                if form.seal is not None:
                    form.seal(folder)
                wrong = _one(form, folder, usual, report, verbose, changed=content != good)
                if wrong is not None:
                    report.wrong.append((number, wrong))
                if after is not None:
                    after(report)
    finally:
        os.chdir(here)
    report.seconds = time.process_time() - started
    return report


def _one(form: Format, folder: Path, usual: Any, report: Report, verbose: bool, *, changed: bool) -> str | None:
    """Read one mutant; what is wrong with how that went."""
    started = time.process_time()
    wrong = None
    try:
        with _bounded(folder, form) as seen:
            found = form.read(folder)
        if changed and form.sound is not None and not form.sound(found, usual):
            wrong = f"accepted, and makes no sense: {found!r:.300}"
        report.read += 1
    except CounterpoiseError as error:
        report.refused += 1
        message = str(error)
        if len(message) > LONGEST or not message.strip():
            wrong = f"a message of {len(message)} letters: {message:.200}"
        elif found_inside := INSIDES.search(message):
            wrong = f"a message with Python's words ({found_inside[0]}): {message:.300}"
        if verbose:
            traceback.print_exc()
    except _Late:
        wrong = f"not done after {SECONDS:g} s: {''.join(traceback.format_exc().splitlines(keepends=True)[-9:-1])}"
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "counterpoise" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"
        wrong = f"{type(error).__name__} at {where}: {str(error)[:200]}"
        if verbose:
            traceback.print_exc()
        del error, frames, ours
    took = time.process_time() - started
    report.slowest = max(report.slowest, took)
    if wrong is None and took > SECONDS:
        wrong = f"took {took:.1f} s"
    if seen:
        wrong = f"{seen[0]}"
    if (folder / "ran").exists() or (folder / "canary").exists():
        wrong = "code of the folder was run"
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print and write; 1 where something was wrong."""
    from apart import Apart
    from formats import FORMATS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("formats", nargs="*", help="default: all")
    parser.add_argument("--mutants", type=int, default=1000, help="of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, help="number of one mutant, shown with its traceback")
    parser.add_argument("--out", type=Path, help="CSV with a line a format")
    asked = parser.parse_args(arguments)
    reports, apart = [], Apart()
    for form in FORMATS:
        if asked.formats and form.name not in asked.formats:
            continue
        if form.missing:
            print(f"{form.name}: needs {form.missing}, which is not installed")
            continue
        with tempfile.TemporaryDirectory() as root:
            if asked.only is not None:
                report = campaign(form, Path(root) / "good", [asked.only], verbose=True)
                print((Path(root) / "good" / form.file).read_bytes()[:3000])
            else:
                how = apart.campaign if form.apart else campaign
                report = how(form, Path(root) / "good", range(asked.first, asked.first + asked.mutants))
        gc.collect()
        print(report, flush=True)
        reports.append(report)
    if asked.out is not None:
        _write(asked.out, reports)
    return int(any(report.wrong for report in reports))


def _write(path: Path, reports: Sequence[Report]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["format", "mutants", "read", "refused", "failures", "slowest_seconds", "seconds"])
        for report in reports:
            writer.writerow(
                [
                    report.format,
                    report.mutants,
                    report.read,
                    report.refused,
                    len(report.wrong),
                    f"{report.slowest:.2f}",
                    f"{report.seconds:.0f}",
                ]
            )


if __name__ == "__main__":
    sys.exit(main())
