"""A plan carried out beside its twin: what was done to it, and what it lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from soaking import trees
from soaking.jobs import Job
from soaking.plans import Part, Plan
from soaking.processes import Command, left

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
ENDS = {
    "kill": {0, -signal.SIGKILL},
    "interrupt": {0, 130, -signal.SIGINT},
    "terminate": {0, 130, -signal.SIGTERM},
    "pause": {0},
    "fill": {0, 2},
    "limit": {0, 2},
}
"""Exit statuses; 0 where it came to its end before."""
ROOM, PAGE = "64m", 4096


@dataclass
class Report:
    """What was done, counted, and what should not have been, in sentences."""

    done: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n  ".join([", ".join(self.story) + (": LOST" if self.lost else ""), *self.lost])


class Disk:
    """A folder to work in, whose room can be changed: a file system of its own, where one may be mounted."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = wanted and self._mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs")

    def _mount(self, *options: str) -> bool:
        try:
            done = subprocess.run(["mount", *options, str(self.folder)], capture_output=True, check=False)
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def fill(self, whole: int) -> None:
        """Leave room for so many bytes in all, or for two pages beside what is there."""
        used = sum(PAGE * -(-path.lstat().st_size // PAGE) for path in self.folder.rglob("*") if path.is_file())
        self._mount("-o", f"remount,size={max(used + 2 * PAGE, whole)}")

    def clear(self) -> None:
        """Room for all again."""
        if self.mounted:
            self._mount("-o", f"remount,size={ROOM}")

    def remove(self) -> None:
        """The folder with all in it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        shutil.rmtree(self.folder)


def begin(job: Job, folder: Path) -> Path:
    """Put into a folder what the job finds there; its working folder."""
    job.write(folder)
    if job.copied is not None:
        shutil.copytree(job.copied, folder / "out")
    return folder


def whole(job: Job, folder: Path, world: int = 1) -> float:
    """Do it at once, undisturbed; the seconds it took."""
    command = Command(job.line(begun=False), begin(job, folder), folder, world)
    status = command.wait()
    assert status == 0, f"{' '.join(job.arguments)}: exit status {status}: {command.said()}"
    return time.perf_counter() - command.started


def attempt(plan: Plan, scratch: Path, keep: Path | None = None) -> Report:
    """Carry it out in an empty folder; where something is lost, that is copied to `keep`."""
    report, job = Report(), plan.job
    twin = scratch / "twin"
    twin.mkdir()
    report.done["commands"] += 1
    try:
        seconds = whole(job, twin, plan.last)
    except AssertionError as error:
        report.lost.append(f"undisturbed: {error}")
        return report
    sizes = [path.stat().st_size for path in (twin / "out").rglob("*") if path.is_file()]
    disk = Disk(scratch / "tried", wanted=any(part.what == "fill" for part in plan.parts))
    try:
        begin(job, disk.folder)
        _carry_out(plan, disk, seconds, sizes, report)
        if not report.lost:
            _compare(job, disk.folder / "out", twin / "out", report)
        if plan.again and not report.lost:
            _start(plan, disk, Part("again", 0, None, plan.last, 0), None, report)
            _compare(job, disk.folder / "out", twin / "out", report)
        if number := left():
            report.lost.append(f"{number} processes did not end with their command")
        if report.lost and keep is not None:
            shutil.copytree(scratch, keep, symlinks=True)
    finally:
        disk.remove()
    return report


def _carry_out(plan: Plan, disk: Disk, seconds: float, sizes: list[int], report: Report) -> None:
    """All parts, and then the end."""
    told: list[int] = []
    worlds = []
    for part in (*plan.parts, Part("", 0, None, plan.last, 0)):
        full = part.what == "limit" or (part.what == "fill" and not disk.mounted)
        limit = max(PAGE, int(part.share * max(sizes))) if full else None
        if part.what == "fill" and disk.mounted:
            disk.fill(int(part.share * sum(sizes)))
        act = _moment(part, disk.folder / "out", seconds) if part.what in (*SIGNALS, "pause") else None
        command, status = _start(plan, disk, part, limit, report, act)
        disk.clear()
        worlds.append(part.world)
        if plan.job.resume:
            epochs = [int(number) for number in re.findall(r"epoch (\d+)/\d+ ", command.said())]
            if set(epochs) & set(told):
                report.lost.append(f"epochs {sorted(set(epochs) & set(told))} were printed and done again")
            told += epochs
        report.done["commands"] += 1
        report.done["resumes"] += len(worlds) > 1
        report.done["moves"] += len(worlds) > 1 and worlds[-1] != worlds[-2]
        if status == 0 or report.lost:
            return


def _start(
    plan: Plan,
    disk: Disk,
    part: Part,
    limit: int | None,
    report: Report,
    act: Callable[[Command], bool] | None = None,
) -> tuple[Command, int]:
    """Start the command once, and see how it ends."""
    begun = (disk.folder / "out").exists()
    command = Command(plan.job.line(begun), disk.folder, disk.folder.parent, part.world, limit)
    status = command.wait(None if act is None else lambda: act(command))
    said = command.said()
    report.story.append(f"{part.what or 'end'}{f' x{part.world}' if part.world > 1 else ''} {status}")
    if status not in ENDS.get(part.what, {0}):
        report.lost.append(f"{part.what or 'the end'}: exit status {status}: {said[-2000:]}")
    if "Traceback" in said and not (part.what == "kill" and part.world > 1):  # whoever hears of it first says so
        report.lost.append(f"{part.what}: a traceback: {said[-3000:]}")
    if status:
        report.done[{"kill": "kills", "fill": "full_disks", "limit": "full_disks"}.get(part.what, "stops")] += 1
    report.done["pauses"] += part.what == "pause"
    return command, status


def _moment(part: Part, out: Path, seconds: float) -> Callable[[Command], bool]:
    """What is asked again and again until it has done to the command what is to be done."""
    changes, before = 0, _look(out) if part.change is not None else None

    def act(command: Command) -> bool:
        nonlocal changes, before
        if part.change is None:
            if time.perf_counter() - command.started < part.share * seconds:
                return False
        else:
            now = _look(out)
            changes, before = changes + (now != before), now
            if changes < part.change:
                return False
            time.sleep(part.share)
        if part.what == "pause":
            command.send(signal.SIGSTOP)
            time.sleep(0.2)
            command.send(signal.SIGCONT)
        else:
            command.send(SIGNALS[part.what], to=part.to if part.what == "kill" else None)
        return True

    return act


def _look(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of what is there."""
    found = []
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - many times a second
            except FileNotFoundError:
                continue
            found.append((name, status.st_size, status.st_mtime_ns))
    return found


def _compare(job: Job, tried: Path, twin: Path, report: Report) -> None:
    """Where it chose by latencies of its own, another twin that is given these decides."""
    if job.near:
        report.lost += trees.distances(tried, twin)
        return
    found = trees.differences(trees.contents(tried), trees.contents(twin))
    if found and job.measured is not None and (tried / job.measured).is_file():
        other = twin.parent.parent / "measured"
        shutil.rmtree(other, ignore_errors=True)
        (other / "out").mkdir(parents=True)
        shutil.copy(tried / job.measured, other / "out")
        whole(job, other)
        report.story.append("by its own latencies")
        found = trees.differences(trees.contents(tried), trees.contents(other / "out"))
    report.lost += found
