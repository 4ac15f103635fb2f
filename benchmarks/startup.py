"""How long it takes until commands begin, beside `python -c pass`, as whole processes in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys

import harness

CALLS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import counterpoise": ["-c", "import counterpoise"],
    "counterpoise --help": ["-m", "counterpoise", "--help"],
    "counterpoise distill --help": ["-m", "counterpoise", "distill", "--help"],
    "counterpoise list objectives": ["-m", "counterpoise", "list", "objectives"],
    "counterpoise evaluate": ["-m", "counterpoise", "evaluate", "tests/golden/run"],
}
HELP, HEAVY = 0.5, 3.0


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "")

    def call(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    sides = {name: lambda arguments=arguments: call(arguments) for name, arguments in CALLS.items()}
    seconds = harness.interleave(sides, 3 if options.quick else 9)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cases = [{"case": name, "median_seconds": value} for name, value in medians.items()]
    ratio = medians["counterpoise evaluate"] / medians["import torch"]
    targets = [
        {"name": "seconds of counterpoise --help", "value": medians["counterpoise --help"], "at_most": HELP},
        {"name": "counterpoise evaluate / import torch", "value": ratio, "at_most": HEAVY},
    ]
    return harness.report("startup", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
