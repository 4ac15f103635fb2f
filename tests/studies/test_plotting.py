"""Pictures of comparisons: names that can be read."""

from __future__ import annotations

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from counterpoise.studies import plotting


def test_names_of_points_that_lie_close_are_moved_apart() -> None:
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = [(10 + i / 30, 80 + i / 40) for i in range(6)] + [(10.0, 80.0), (30.0, 60.0)]
    axes.plot(*zip(*places, strict=True), "o")
    texts = [axes.text(x, y, f"timm/mobilenetv3_small_{i:03d} int8", fontsize=7) for i, (x, y) in enumerate(places)]
    figure.draw_without_rendering()
    assert any(one.overlaps(other) for one, other in pairs(texts))
    plotting.apart(figure, texts)
    assert not any(one.overlaps(other) for one, other in pairs(texts))


def pairs(texts):
    return itertools.combinations([text.get_window_extent() for text in texts], 2)
