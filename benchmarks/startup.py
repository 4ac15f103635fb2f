"""How long `counterpoise --help` takes, beside `python -c pass`, as whole processes in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys

import harness

TARGET = 0.5


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "")

    def call(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, capture_output=True)

    sides = {"python": lambda: call("-c", "pass"), "help": lambda: call("-m", "counterpoise", "--help")}
    seconds = harness.interleave(sides, 5 if options.quick else 15)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cases = [{"case": name, "median_seconds": value} for name, value in medians.items()]
    target = {"name": "seconds of counterpoise --help", "value": medians["help"], "at_most": TARGET}
    return harness.report("startup", cases, [target], options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
