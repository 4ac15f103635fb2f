"""The campaign in a process of its own, for readers that hand a file to a library which may crash as a whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from campaign import Format, Report, campaign

DIED = "the process died of"


class Apart:
    """A process that runs campaigns one after the other, and is started again where it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def campaign(self, form: Format, folder: Path, numbers: Sequence[int] | range) -> Report:
        """As `campaign.campaign`; a mutant at which the process died is one that is wrong."""
        whole, left = Report(form.name), list(numbers)
        while left:
            place = folder / str(whole.mutants)
            part, done = self._asked({"format": form.name, "folder": str(place), "numbers": left})
            for name in ("mutants", "same", "read", "refused", "seconds"):
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            whole.slowest = max(whole.slowest, part.slowest)
            whole.wrong += part.wrong
            if done:
                break
            whole.mutants += 1
            whole.wrong.append((left[part.mutants], f"{DIED} {self._ended()}"))
            left = left[part.mutants + 1 :]
        return whole

    def _asked(self, asked: dict[str, object]) -> tuple[Report, bool]:
        """What became of the mutants, and whether of all, or of those before the process died.

        Raises RuntimeError where the campaign is at fault.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        report, done = Report(""), False
        for line in process.stdout:
            values = json.loads(line)
            if "failed" in values:
                raise RuntimeError(f"The campaign is at fault, not what it tried:\n{values['failed']}")
            done = values.pop("done")
            report = Report(**{**values, "wrong": [tuple(wrong) for wrong in values["wrong"]]})
            if done:
                break
        return report, done

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # native libraries print what they think of a file
                text=True,
            )
        return self._process

    def _ended(self) -> str:
        """Of what the process has died. Raises RuntimeError where Python ended it: then the campaign is at fault."""
        assert self._process is not None
        code = self._process.wait()
        if code >= 0:
            raise RuntimeError(f"{__file__} ended with code {code}: run campaign.py --only to see why")
        return f"signal {-code}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def serve() -> None:
    """Answer the campaigns that stdin asks for, with a line a mutant."""
    from formats import FORMATS

    forms = {form.name: form for form in FORMATS}
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(report: Report, done: bool = False) -> None:
        print(json.dumps({**asdict(report), "done": done}), file=out, flush=True)

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            say(campaign(forms[asked["format"]], Path(asked["folder"]), asked["numbers"], after=say), done=True)
        except Exception:
            print(json.dumps({"failed": traceback.format_exc()}), file=out, flush=True)


if __name__ == "__main__":
    serve()
