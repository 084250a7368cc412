"""FLAC: the header states the number of samples; 0 means that it is unknown."""

from __future__ import annotations

import re

from ..sources import Source
from .statement import Statement, end_without_tags, patched

_BEGIN = re.compile(rb"fLaC[\0\x80]\0\0\x22")
"""The mark, and the header of the block that comes first and has 34 bytes."""
_MARK_BYTES = 8
_HEADER_BYTES = 26
_MOST_JUNK = 1 << 16
"""How far behind tags whose size is wrong a recording may begin."""
_WINDOW = 1 << 20


def statements(source: Source) -> list[Statement]:
    """What each FLAC recording in a file states, as they may be joined end to end. Empty if it is no FLAC file.

    The decoder is shown a file of unknown length: it would stop at the number that the header states.
    """
    first = _BEGIN.search(source.read(0, _MOST_JUNK if source.begin else _MARK_BYTES))
    if first is None:
        return []
    starts = _begins(source, first.start())
    stops = [*starts[1:], max(starts[-1] + _HEADER_BYTES, end_without_tags(source))]
    return [_statement(source, start, stop) for start, stop in zip(starts, stops)]


def _begins(source: Source, start: int) -> list[int]:
    """Where recordings begin, from a place on."""
    found = []
    for base in range(start, source.size, _WINDOW):
        window = source.read(base, _WINDOW + _MARK_BYTES - 1)
        found += [base + match.start() for match in _BEGIN.finditer(window)]
    return found


def _statement(source: Source, start: int, stop: int) -> Statement:
    at = start + _MARK_BYTES + 13  # after what the block says of sizes, the rate and channels
    number = source.read(at, 5).ljust(5, b"\0")
    stated = int.from_bytes(number, "big") & ((1 << 36) - 1)  # the upper four bits belong to the sample's size
    unknown = bytes([number[0] & 0xF0, 0, 0, 0, 0])
    return Statement(patched(start, max(at + 5, stop), {at: unknown}), stated or None)
