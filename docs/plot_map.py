"""Draw docs/images/temperature-map.svg: what each divergence brings at each temperature.

python docs/plot_map.py        (extra: plots)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from counterpoise.studies import plotting

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "temperature_map_table.csv"
NAMES = {
    "forward": ("forward KL", "#24425c", "-"),
    "reverse": ("reverse KL", "#c2410c", "-"),
    "both": ("half of each", "#7c3aed", "-"),
    "jsd": ("Jensen-Shannon", "#0f766e", "--"),
    "variance": ("variance of logits", "#9aa5ae", ":"),
}
PANELS = {
    "top1": "top-1, %",
    "agreement": "same answer as the teacher, %",
    "calibration_error": "calibration error",
    "auroc_far": "AUROC against far pictures, %",
}


def main() -> None:
    """Draw it into the folder of images, or into that which is named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (score, title) in zip(panels, PANELS.items(), strict=True):
        for name, (label, color, style) in NAMES.items():
            own = [row for row in rows if row["divergence"] == name]
            at = [float(row["temperature"]) for row in own]
            mean = [float(row[score]) for row in own]
            spread = [float(row["top1_std"]) for row in own] if score == "top1" else None
            axes.errorbar(at, mean, spread, color=color, linestyle=style, marker="o", markersize=4, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{temperature:g}" for temperature in at])
        axes.minorticks_off()
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(color=plotting.GREY, linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("temperature", fontsize=8)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(NAMES), fontsize=8, frameon=False
    )
    with mpl.rc_context({"svg.hashsalt": "counterpoise", "svg.fonttype": "none"}):
        figure.savefig(folder / "temperature-map.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
