"""A comparison as a picture: every run on the left, differences to the baseline on the right."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise import statistics
from counterpoise.studies import results
from counterpoise.system.files import replacing

if TYPE_CHECKING:
    from counterpoise.studies.plan import Comparison
    from counterpoise.studies.summary import Report

INK, GREY, CLAIM = "#24425c", "#9aa5ae", "#b5502c"


def available() -> bool:
    """Whether matplotlib is there (extra: plots)."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(out: Path, comparison: Comparison, report: Report) -> None:
    """plot.png and plot.svg; nothing where matplotlib is not there, or no run is done."""
    if not available() or not any(row["n"] for row in report.table):
        return
    plan = comparison.plan
    figure = blank(9, 1.0 + len(plan.pairs) * (0.7 + 0.32 * len(plan.methods)))
    axes = figure.subplots(len(plan.pairs), 2, squeeze=False)
    for (left, right), pair in zip(axes, plan.pairs, strict=True):
        _runs(left, comparison, report.asked, pair)
        _differences(right, comparison, report, pair)
        left.set_title(pair if len(plan.pairs) > 1 else "runs", fontsize=9, loc="left")
        right.set_title(f"difference to {plan.baseline}, 95% interval", fontsize=9, loc="left")
    save(figure, out / "plot")


def blank(width: float, height: float) -> Any:
    """A figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, name: Path) -> None:
    """Write NAME.png and NAME.svg; equal figures give equal files."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "counterpoise"}):
        for ending, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            with replacing(name.with_suffix(ending)) as temporary:
                figure.savefig(temporary, format=ending[1:], dpi=150, metadata=metadata)


def _runs(axes: Any, comparison: Comparison, rows: Sequence[results.Row], pair: str) -> None:
    methods = list(comparison.plan.methods)
    for height, method in enumerate(methods):
        values = statistics.by_fold(results.by_seed(rows, pair, method))
        axes.plot(values, [height] * len(values), "o", color=GREY, markersize=4)
        if values:
            axes.plot(results.spread(values)[0], height, "|", color=INK, markersize=14, markeredgewidth=2)
    axes.set_xlabel(f"{comparison.metric}, last epoch", fontsize=8)
    dress(axes, methods)


def _differences(axes: Any, comparison: Comparison, report: Report, pair: str) -> None:
    methods = list(comparison.plan.methods)
    axes.axvline(0, color=GREY, linewidth=1)
    for row in report.differences:
        if row["pair"] != pair or row["difference"] is None:
            continue
        color = CLAIM if row["primary"] == "yes" else INK
        height = methods.index(row["method"])
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [height, height], color=color, linewidth=1.5)
        axes.plot(row["difference"], height, "o", color=color, markersize=5)
    axes.set_xlabel(comparison.metric, fontsize=8)
    dress(axes, methods)
    axes.tick_params(labelleft=False)


def apart(figure: Any, texts: Sequence[Any]) -> None:
    """Move the names of points so that none lies over another, a line leading to each that was moved far.

    Call it last: the figure keeps its layout from here on.
    """
    from adjustText import adjust_text

    figure.draw_without_rendering()  # so that places are known
    figure.set_layout_engine("none")
    if len(texts) > 1:
        # By iterations, not seconds: equal points give equal pictures.
        adjust_text(texts, ax=texts[0].axes, iter_lim=500, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6})


def dress(axes: Any, methods: Sequence[str]) -> None:
    """A line of the axes for each, from above; a light grid, and no frame."""
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color="#e4e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
