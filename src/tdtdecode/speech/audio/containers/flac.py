"""FLAC: the header states the number of samples; 0 means that it is unknown."""

from __future__ import annotations

from ..sources import Source
from .statement import Statement, end_without_tags, patched, start_without_tags


def statement(source: Source) -> Statement | None:
    """What a FLAC file states; None if it is none.

    The decoder is shown a file of unknown length: it would stop at the number that the header states.
    """
    start = start_without_tags(source)
    head = source.read(start, 26)
    if head[:4] != b"fLaC" or len(head) < 26 or head[4] & 0x7F:
        return None
    at = start + 8 + 13  # after "fLaC", the first block's header, and what it says of blocks, frames, rate and channels
    number = source.read(at, 5)
    stated = int.from_bytes(number, "big") & ((1 << 36) - 1)  # the upper four bits belong to the sample's size
    unknown = bytes([number[0] & 0xF0, 0, 0, 0, 0])
    return Statement(patched(start, max(at + 5, end_without_tags(source)), {at: unknown}), stated or None)
