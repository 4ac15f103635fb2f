"""What `counterpoise` and `python -m counterpoise` start: Ctrl-C has its answer from here on, before anything heavy."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 2 something to mend, 3 time is up and work is left, 130 interrupted."""
    sys.exit(ended(sys.argv[1:]))


def ended(arguments: list[str]) -> int:
    """Run a command line in this process, which is about to end, and return its exit code.

    An error that comes of Ctrl-C is no error: some libraries, Pydantic among them, make another one of it. Once the
    answer is known, Ctrl-C ends the process at once, as whatever Python still tidies up has nothing to tell.
    """
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        stops.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    try:
        from counterpoise.commands.app import run  # takes a second

        code = run(arguments)
    except (KeyboardInterrupt, Exception):
        if not stops:
            raise
        code = INTERRUPTED
        print("Stopped.", file=sys.stderr)
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return code


if __name__ == "__main__":
    main()
