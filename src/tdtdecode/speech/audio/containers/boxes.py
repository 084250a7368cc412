"""MP4 and its relatives: boxes, each with its size and its name.

Source: ISO 14496-12.
"""

from __future__ import annotations

from ..sources import Source
from .statement import Statement

_KNOWN = frozenset(b"ftyp styp moov moof mdat sidx free skip wide mfra uuid emsg prft meta".split())
_MOST_BOXES = 1_000_000


def statement(source: Source) -> Statement | None:
    """What is doubtful about an MP4 file; None if it is none. How much audio it has, its decoder says."""
    if source.read(4, 4) not in _KNOWN:
        return None
    at, total = 0, source.size
    indices, fragments, cut = 0, 0, False
    for _ in range(_MOST_BOXES):
        header = source.read(at, 16)
        size, name = int.from_bytes(header[:4], "big"), header[4:8]
        if name not in _KNOWN:
            break
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:  # to the end of the file
            size = total - at
        indices += name == b"moov"
        fragments += name == b"moof"
        if size < 8:
            break
        at += size
        if at > total:
            cut = True
            break
    notes = []
    if fragments and cut:
        notes.append("its last fragment is cut short")
    if not indices and at >= total:
        notes.append("its index, the box 'moov', is missing: it was cut short before that was written")
    if indices > 1 and not fragments:
        notes.append("more audio follows in another MP4 file that is joined to it, which is not read")
    return Statement([(0, total)], "decoder", notes=notes)
