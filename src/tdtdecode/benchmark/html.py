"""Charts and figures as one page that needs nothing else: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from .charts import Chart, Panel, spread, ticks

_WIDTH, _HEIGHT = 580, 330
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 34, 370, 280
"""Edges of the axes within a panel, in pixels. The lines' names stand on the right."""
_LABEL_GAP = 15

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 72em; margin: 2em auto;
  padding: 0 1em }
.note { color: #59636e; max-width: 60em }
svg text { font: 12px system-ui, sans-serif; fill: #1f2328 }
svg .small { font-size: 11px; fill: #59636e }
svg .title { font-weight: 600 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .2em .8em; border-bottom: 1px solid #d8dee4; text-align: right }
th:first-child, td:first-child { text-align: left }
td { white-space: nowrap }
"""


def page(chart: Chart, tables: list[tuple[str, list[str], list[list[str]]]], facts: dict[str, Any]) -> str:
    """The page.

    Parameters
    ----------
    tables:
        Title, names of the columns, and rows of each table below the chart.
    facts:
        What else to state, by name.
    """
    body = [
        f"<h1>{escape(chart.title)}</h1>",
        f'<p class="note">{escape(chart.about)}</p>',
        *(_panel(chart, panel) for panel in chart.panels),
        f'<p class="note">{escape(chart.floor_label)}</p>' if chart.has_floor else "",
        *(_table(*table) for table in tables),
        _table("Where this was measured", ["", ""], [[name, str(value)] for name, value in facts.items()]),
    ]
    head = f'<meta charset="utf-8"><title>{escape(chart.title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _panel(chart: Chart, panel: Panel) -> str:
    low, high = chart.limits
    batches = chart.batches
    width = math.log(batches[-1] / batches[0]) or 1.0

    def x(batch: int) -> float:
        return _LEFT + 20 + (_RIGHT - _LEFT - 40) * math.log(batch / batches[0]) / width

    def y(time: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * math.log(time / low) / math.log(high / low)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(panel.title)}: {escape(chart.y_label)}">',
        _text(_LEFT, 14, panel.title, "title"),
        _text(_LEFT, 28, chart.y_label, "small"),
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 12, chart.x_label, "small", "middle"),
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" stroke="#8c959f" fill="none"/>',
    ]
    for mark in ticks(low, high):
        parts.append(f'<path d="M{_LEFT} {y(mark):.1f}H{_RIGHT}" stroke="#d8dee4"/>')
        parts.append(_text(_LEFT - 6, y(mark) + 4, f"{mark:g}", "small", "end"))
    parts += [_text(x(batch), _BOTTOM + 16, str(batch), "small", "middle") for batch in batches]
    for line in panel.lines:
        if line.floor is not None:
            parts.append(
                f'<path d="M{_LEFT} {y(line.floor):.1f}H{_RIGHT}" stroke="{line.colour}" stroke-dasharray="2 3">'
                f"<title>floor of {escape(line.name)}: {line.floor:.1f} us per token</title></path>"
            )
        path = "L".join(f"{x(batch):.1f} {y(time):.1f}" for batch, time in line.points)
        parts.append(f'<path d="M{path}" stroke="{line.colour}" stroke-width="2" fill="none"/>')
        for batch, time in line.points:
            parts.append(
                f'<circle cx="{x(batch):.1f}" cy="{y(time):.1f}" r="4" fill="{line.colour}">'
                f"<title>{escape(line.name)}, batch {batch}: {time:.1f} us per token</title></circle>"
            )
    places = spread([y(label.point[1]) for label in panel.labels], _LABEL_GAP)
    for label, place in zip(panel.labels, places):
        last, time = label.point
        start = _RIGHT if last is None else x(last) + 6
        parts.append(
            f'<path d="M{start:.1f} {y(time):.1f}L{_RIGHT + 14} {place:.1f}" stroke="{label.colour}" opacity=".4"/>'
        )
        name = escape(label.text)
        parts.append(f'<text x="{_RIGHT + 18}" y="{place + 4:.1f}" style="fill:{label.colour}">{name}</text>')
    return "".join(parts) + "</svg>"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{''.join(lines)}</table>"
