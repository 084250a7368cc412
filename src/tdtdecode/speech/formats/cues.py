"""Words gathered into the cues of subtitles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from ...hypothesis import Transcript, Word
from .options import CueOptions
from .units import Unit, units_of

_CHAINED = 500
"""Milliseconds. A shorter gap between cues looks like a flicker, so it is closed (Netflix's timing guidelines)."""


@dataclass
class Cue:
    """Some words shown together: their lines, and their text in one line. Times are in milliseconds."""

    start: int
    end: int
    lines: list[str]
    text: str


def cues(transcript: Transcript, options: CueOptions = CueOptions()) -> list[Cue]:
    """The words in cues that people can read. The words of a text without any share its time.

    A new cue begins after a pause (`CueOptions.pause_seconds`). What lies between two pauses is broken into cues that
    fit, first where a sentence begins, then at the longest pauses, then so that the cues are of similar length. Lines
    are broken in the same way, so that they are balanced.

    A cue starts with its first word. It ends with its last one, or later if reading takes longer and there is room.
    No cue begins before the last one has ended, and each lasts at least a millisecond.
    """
    words = [word for word in transcript.words if word.text.strip()]
    if not words and transcript.text.strip():
        words = [Word(transcript.text, 0.0, transcript.duration, math.nan)]
    units = units_of([replace(word, start=_finite(word.start), end=_finite(word.end)) for word in words], options)
    longest = int(1000 * options.max_cue_seconds)
    found: list[Cue] = []
    for first, stop in pairwise([*_cue_starts(units, options), len(units)]):
        group = units[first:stop]
        start = max(round(group[0].start * 1000), found[-1].start + 1 if found else 0)
        spoken = round(max(unit.end for unit in group) * 1000)
        read = max(options.min_cue_seconds, _widths(group)(0, len(group)) / options.reading_speed)
        end = min(max(spoken, start + math.ceil(1000 * read), start + 1), start + longest)
        found.append(Cue(start, end, _lines(group, options), _text(group)))
    for cue, following in pairwise(found):
        # Where there is next to no time, half of it is the gap.
        half = -(-(cue.start + following.start) // 2)
        limit = max(following.start - math.ceil(1000 * options.min_gap_seconds), half)
        chained = following.start - cue.end < _CHAINED
        cue.end = min(limit, cue.start + longest) if chained else min(cue.end, limit)
    return found


def lines(cue: Cue) -> str:
    """The lines of a cue, as SubRip and WebVTT have them."""
    return "\n".join(cue.lines)


def clock(milliseconds: int, point: str) -> str:
    """Hours, minutes and seconds, with the milliseconds after the decimal point given."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _cue_starts(units: Sequence[Unit], options: CueOptions) -> list[int]:
    """Indexes of the units with which a cue starts: those of the least cost, among all that fit."""
    if not units:
        return []
    count = len(units)
    width = _widths(units)
    line_ends = _line_ends(units, options)
    ends = list(range(count))  # where a cue ends at the latest that starts with a unit
    for _ in range(options.max_lines):
        ends = [line_ends[end] if end < count else count for end in ends]
    costs = [0.0] + [math.inf] * count
    before = [0] * (count + 1)
    for stop in range(1, count + 1):
        end, wide, several = 0.0, False, False
        whole = stop == count or units[stop].sentence or units[stop].pause >= options.pause_seconds
        following = units[stop].start if stop < count else math.inf
        for start in range(stop - 1, -1, -1):
            end, wide = max(end, units[start].end), wide or units[start].wide
            alone = stop - start == 1
            several = several or (not alone and units[start + 1].sentence)
            if not alone and (
                ends[start] < stop
                or units[start + 1].pause >= options.pause_seconds
                or end - units[start].start > options.max_cue_seconds
            ):
                break
            cost = costs[start] + _cue_cost(width(start, stop), wide, following - units[start].start, options)
            if not whole:
                # A sentence that does not fit begins a cue of its own.
                cost += _break_cost(units[stop]) + 0.5 * several
            if cost < costs[stop]:
                costs[stop], before[stop] = cost, start
    starts = [before[count]]
    while starts[-1]:
        starts.append(before[starts[-1]])
    return starts[::-1]


def _cue_cost(width: int, wide: bool, seconds: float, options: CueOptions) -> float:
    """What is bad about a cue: that it is one more, that it is long, that there is no time to read it.

    Parameters
    ----------
    seconds:
        From its start to the start of the next one.
    """
    room = max(seconds - options.min_gap_seconds, 0.0)
    needed = width / options.reading_speed
    cost = 0.2 + 0.5 * (width / (options.max_lines * options.line_columns(wide))) ** 2
    if room < options.min_cue_seconds:
        cost += 3.0 * (1 - room / options.min_cue_seconds)
    if room < needed:
        cost += 0.5 * (1 - room / needed)
    return cost


def _break_cost(unit: Unit) -> float:
    """What is bad about a cue that starts within a sentence with this unit: less after a pause or a comma."""
    cost = 4.0 / (1 + unit.pause / 0.2)
    if unit.clause:
        cost *= 0.6
    return cost + (6.0 if unit.cut else 2.0 if unit.inside else 0.0)


def _lines(cue: Sequence[Unit], options: CueOptions) -> list[str]:
    """The cue in as few lines as it fits, of similar length, broken where it disturbs least."""
    count = len(cue)
    ends = _line_ends(cue, options)
    needed, end = 0, 0
    while end < count:
        needed, end = needed + 1, ends[end]
    if needed == 1:
        return [_text(cue)]
    width = _widths(cue)
    room = options.line_columns(any(unit.wide for unit in cue))
    costs = [[math.inf] * (count + 1) for _ in range(needed + 1)]
    before = [[0] * (count + 1) for _ in range(needed + 1)]
    costs[0][0] = 0.0
    for line in range(1, needed + 1):
        for stop in range(1, count + 1):
            for start in range(stop):
                if costs[line - 1][start] < math.inf and ends[start] >= stop:
                    full = width(start, stop) / room
                    cost = costs[line - 1][start] + full**2 + (_line_break_cost(cue[start]) if start else 0.0)
                    if cost < costs[line][stop]:
                        costs[line][stop], before[line][stop] = cost, start
    found, stop = [], count
    for line in range(needed, 0, -1):
        start = before[line][stop]
        found.append(_text(cue[start:stop]))
        stop = start
    return found[::-1]


def _line_break_cost(unit: Unit) -> float:
    if unit.cut or unit.inside:
        return 2.0 if unit.cut else 0.5
    return 0.0 if unit.sentence else 0.05 if unit.clause else 0.15 - 0.1 * min(unit.pause, 1.0)


def _line_ends(units: Sequence[Unit], options: CueOptions) -> list[int]:
    """Index after the last unit of the longest line that starts with each unit."""
    found = []
    for start in range(len(units)):
        width, wide, stop = 0, False, start
        while stop < len(units):
            width += units[stop].columns + (units[stop].space and stop > start)
            wide = wide or units[stop].wide
            if width > options.line_columns(wide) and stop > start:
                break
            stop += 1
        found.append(stop)
    return found


def _widths(units: Sequence[Unit]) -> Callable[[int, int], int]:
    """The function that returns the columns of some of the units, from the first to before the second index."""
    before = list(accumulate((unit.columns + unit.space for unit in units), initial=0))
    return lambda start, stop: before[stop] - before[start] - units[start].space


def _text(units: Sequence[Unit]) -> str:
    return "".join(" " * (unit.space and i > 0) + unit.text for i, unit in enumerate(units))


def _finite(seconds: float) -> float:
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
