"""Draw docs/images/evidence.svg: what the committed comparisons say of the reverse term, in one picture.

python docs/plot_evidence.py        (extra: plots)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from counterpoise import statistics
from counterpoise.studies import plotting, results

ROOT = Path(__file__).resolve().parents[1]


class Shown(NamedTuple):
    """A difference of two methods: label, table, method, baseline, pair."""

    label: str
    table: str
    method: str
    baseline: str
    pair: str = "all"

    def difference(self) -> statistics.Difference:
        """Of its committed runs."""
        rows = results.read_csv(ROOT / "benchmarks" / "results" / f"evidence_{self.table}_results.csv")
        ours, theirs = (results.by_seed(rows, self.pair, method) for method in (self.method, self.baseline))
        return statistics.paired(ours, theirs)


GROUPS = {
    "each at the setting that its own search chose": (
        Shown("Balance - KD, resnet8, first search", "resnet8", "balance", "kd"),
        Shown("Balance - KD, resnet8, second search", "primary", "balance", "kd"),
        Shown("Balance - KD, 5,000 images", "few-10", "balance", "kd"),
        Shown("Balance - KD, 12,500 images", "few-25", "balance", "kd"),
        Shown("Balance - KD, MobileNetV2, 30 epochs", "device-mobilenetv2", "balance", "kd"),
        Shown("with reverse KL - DIST, resnet8", "resnet8", "balance-on-dist", "dist"),
        Shown("with reverse KL - DIST, resnet20", "resnet20", "balance-on-dist", "dist"),
    ),
    "both at one setting: reverse KL in place of a part": (
        Shown("Balance - KD, temperature 5.4", "primary", "balance", "kd-at-balance"),
        Shown("Balance - KD, temperature 1.5", "teachers", "balance", "kd", "given"),
        Shown("the same, 20 epochs", "longer", "balance", "kd"),
        Shown("the same, weaker teacher", "teachers", "balance", "kd", "weaker"),
        Shown("the same, stronger teacher", "teachers", "balance", "kd", "stronger"),
        Shown("the same, stronger teacher, fresh seeds", "stronger", "balance", "kd"),
        Shown("DIST with reverse KL - DIST, temperature 5.1", "dist", "balance-on-dist", "dist-same-total"),
        Shown("DIST with reverse - with forward KL", "dist", "balance-on-dist", "forward-kl-on-dist"),
    ),
}


def main() -> None:
    """Draw it into the folder of images, or into that which is named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    lines = sum(len(group) for group in GROUPS.values())
    figure = Figure(figsize=(9, 0.9 + 0.3 * lines + 0.5 * len(GROUPS)), layout="constrained")
    panels = figure.subplots(
        len(GROUPS), 1, sharex=True, squeeze=False, height_ratios=[len(group) for group in GROUPS.values()]
    )[:, 0]
    for axes, (title, group) in zip(panels, GROUPS.items(), strict=True):
        axes.axvline(0, color=plotting.GREY, linewidth=1)
        for place, shown in enumerate(group):
            found = shown.difference()
            axes.plot([found.low, found.high], [place, place], color=plotting.INK, linewidth=1.5)
            axes.plot(found.mean, place, "o", color=plotting.INK, markersize=5)
            axes.text(1.01, place, f"{found.mean:+.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        plotting.dress(axes, [shown.label for shown in group])
    panels[-1].set_xlabel("difference in top-1 on CIFAR-100, points, with 95% interval over seeds", fontsize=8)
    # Text stays text, for readers and for the test; equal runs give equal files.
    with mpl.rc_context({"svg.hashsalt": "counterpoise", "svg.fonttype": "none"}):
        figure.savefig(folder / "evidence.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
