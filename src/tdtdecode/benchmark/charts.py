"""What charts of measurements show: lines with names, panels, and the floor. `png` and `html` draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..reprs import counted
from ..search import Beam

COLOURS = {
    "fused float32": "#1f5fa8", "fused bfloat16": "#d1495b", "fused int8": "#6a2c70", "ort": "#3d8c8c",
}  # fmt: skip
NAMES = {"ort": "ONNX Runtime (ort)"}
"""How decoders are called where their own name does not say what they are."""
SEARCH_NAMES = {"greedy": "greedy search", "beam": f"beam search of size {Beam().size}"}
"""How searches are called in titles."""


@dataclass(frozen=True)
class Line:
    """A system's times: (utterances in a batch, microseconds per token), by batch.

    ``floor`` is the least time of a token that memory allows with one utterance, in microseconds; None: not known.
    """

    name: str
    colour: str
    points: tuple[tuple[int, float], ...]
    floor: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines that are drawn over the same axes."""

    title: str
    lines: tuple[Line, ...]

    @property
    def labels(self) -> list[Label]:
        """The names that stand beside the panel: those of all lines, then those of the floors."""
        floors = [(line, line.floor) for line in self.lines if line.floor is not None]
        return [
            *(Label(line.name, line.colour, line.points[-1]) for line in self.lines),
            *(Label(f"floor of {line.name}", line.colour, (None, floor)) for line, floor in floors),
        ]


@dataclass(frozen=True)
class Label:
    """A name, and the point that it belongs to: (batch or None for the edge of the panel, microseconds)."""

    text: str
    colour: str
    point: tuple[int | None, float]


@dataclass(frozen=True)
class Chart:
    """A title, what was measured and where, and panels beside each other with the same axis of times."""

    title: str
    about: str
    panels: tuple[Panel, ...]

    x_label = "utterances decoded together (batch)"
    y_label = "microseconds per emitted token (lower is better)"
    floor_label = (
        "Dotted: the floor of one utterance, the time that reading the weights of a token from memory takes at least. "
        "A batch shares this reading, so it can be below."
    )

    @property
    def has_floor(self) -> bool:
        return any(line.floor is not None for panel in self.panels for line in panel.lines)

    @property
    def batches(self) -> list[int]:
        """All batches, in order."""
        return sorted({batch for panel in self.panels for line in panel.lines for batch, _ in line.points})

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest time to draw, with some room around all that there is."""
        times = [time for panel in self.panels for line in panel.lines for _, time in line.points]
        times += [line.floor for panel in self.panels for line in panel.lines if line.floor is not None]
        return min(times) / 1.25, max(times) * 1.25


def speed_chart(result: dict[str, Any]) -> Chart:
    """The chart of what `tdtdecode bench` measured: a panel for each search and number of threads."""
    measured = [entry for entry in result["measurements"] if "us_per_token" in entry]
    panels = []
    for search, threads in dict.fromkeys((entry["search"], entry["threads"]) for entry in measured):
        mine = [entry for entry in measured if (entry["search"], entry["threads"]) == (search, threads)]
        lines = []
        for name in dict.fromkeys(entry["decoder"] for entry in mine):
            own = sorted((entry for entry in mine if entry["decoder"] == name), key=lambda entry: entry["batch"])
            floors = [entry["floor_us_per_token"] for entry in own if "floor_us_per_token" in entry]
            points = tuple((entry["batch"], entry["us_per_token"]) for entry in own)
            lines.append(Line(NAMES.get(name, name), COLOURS[name], points, floors[0] if floors else None))
        panels.append(Panel(f"{SEARCH_NAMES[search]}, {counted(threads, 'thread')}", tuple(lines)))
    about = (
        f"Model {PurePath(result['model']).name}, {result['encoder_out']} encoder output. "
        f"{result['processor']}, {result['date']}, "
        f"tdtdecode {result['versions']['tdtdecode']}. Medians."
    )
    return Chart("How long a token takes, by decoder", about, tuple(panels))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high`` for a logarithmic axis: 1, 2 and 5 times powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places for labels, in the order given: as near to ``places`` as can be, and at least ``gap`` apart."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[float]] = []  # the middle of each group of labels that touch, and their number
    for i in order:
        groups.append([places[i], 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (middle, count), (other, number) = groups.pop(), groups.pop()
            groups.append([(middle * count + other * number) / (count + number), count + number])
    found = [middle + gap * (i - (count - 1) / 2) for middle, count in groups for i in range(int(count))]
    spread_out = [0.0] * len(places)
    for i, place in zip(order, found):
        spread_out[i] = place
    return spread_out
