"""Charts as PNG, by matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
from typing import Any

from ..optional import needed
from .charts import Chart, Panel, spread, ticks

_COLUMNS = 2
"""The most panels beside each other."""
_ROW, _HEAD, _FOOT = 3.6, 0.7, 0.4
"""Inches: the height of a row of panels, with titles and the names of axes; of what stands above and below them all."""
_PANEL, _LABELS = 4.4, 2.1
"""Inches: the width of a panel, and of the names beside it."""
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
    columns = min(len(chart.panels), _COLUMNS)
    rows = math.ceil(len(chart.panels) / columns)
    width, height = columns * (_PANEL + _LABELS) + 0.8, rows * _ROW + _HEAD + _FOOT
    figure = figure_class()(figsize=(width, height), dpi=110)
    for i, panel in enumerate(chart.panels):
        row, column = divmod(i, columns)
        left, bottom = 0.8 + column * (_PANEL + _LABELS), _FOOT + (rows - 1 - row) * _ROW + 0.55
        axes = figure.add_axes((left / width, bottom / height, (_PANEL - 0.5) / width, (_ROW - 0.95) / height))
        _draw(chart, panel, axes)
        if column == 0:
            axes.set_ylabel(chart.y_label, fontsize=8)
    letters = int(width * 15)
    figure.text(0.1 / width, 1 - 0.07 / height, chart.title, fontsize=13, fontweight="bold", va="top")
    about = textwrap.fill(chart.about, letters)
    figure.text(0.1 / width, 1 - 0.4 / height, about, fontsize=8, va="top", color="#555555")
    if chart.has_floor:
        note = textwrap.fill(chart.floor_label, letters)
        figure.text(0.1 / width, 0.07 / height, note, fontsize=8, va="bottom", color="#555555")
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
