"""Charts as PNG, by matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
from typing import Any

from ..optional import needed
from .charts import Chart, Panel, spread, ticks

_HEIGHT, _PANEL, _LABELS = 4.6, 4.4, 2.0
"""Inches: of the picture; the width of a panel, and of the names beside it."""
_LABEL_GAP = 0.048
"""The least distance of two names, as a share of the axis."""


def figure_class() -> type:
    """matplotlib's class of figures.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    with needed("matplotlib", "plot", "charts as PNG"):
        from matplotlib.figure import Figure
    return Figure


def png(chart: Chart) -> bytes:
    """The chart as a PNG file.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    count = len(chart.panels)
    width = count * (_PANEL + _LABELS) + 0.8
    figure = figure_class()(figsize=(width, _HEIGHT), dpi=110)
    for i, panel in enumerate(chart.panels):
        left = (0.8 + i * (_PANEL + _LABELS)) / width
        axes = figure.add_axes((left, 0.2, (_PANEL - 0.5) / width, 0.58))
        _draw(chart, panel, axes)
        if i == 0:
            axes.set_ylabel(chart.y_label, fontsize=8)
    letters = int(width * 15)
    figure.text(0.1 / width, 0.985, chart.title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.1 / width, 0.915, textwrap.fill(chart.about, letters), fontsize=8, va="top", color="#555555")
    if chart.has_floor:
        note = textwrap.fill(chart.floor_label, letters)
        figure.text(0.1 / width, 0.015, note, fontsize=8, va="bottom", color="#555555")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw(chart: Chart, panel: Panel, axes: Any) -> None:
    low, high = chart.limits
    batches = chart.batches
    for line in panel.lines:
        axes.plot(*zip(*line.points), "o-", color=line.colour, markersize=4)
        if line.floor is not None:
            axes.axhline(line.floor, color=line.colour, linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=chart.x_label, ylim=(low, high))
    axes.set_xlim(batches[0] / 1.2, batches[-1] * 1.2)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    marks = ticks(low, high)
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)

    def share(time: float) -> float:
        return math.log(time / low) / math.log(high / low)

    places = spread([share(label.point[1]) for label in panel.labels], _LABEL_GAP)
    for label, place in zip(panel.labels, places):
        batch, time = label.point
        axes.annotate(
            label.text, (axes.get_xlim()[1] if batch is None else batch, time), (1.06, place),
            textcoords="axes fraction", color=label.colour, fontsize=8.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "alpha": 0.4},
        )  # fmt: skip
