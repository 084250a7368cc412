"""What the header of a recording states about its length, and how its bytes are shown to a decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..sources import Source

Pieces = list[bytes | tuple[int, int]]

MOST_PADDING = 1 << 16
"""The most zeros after a recording that are no audio."""


@dataclass(frozen=True)
class Statement:
    """What a header states about the length of a recording.

    Headers are often wrong: recorders are killed before they write the length, count the header as audio, or never know
    it. Decoders that trust a header lose what it leaves out, so they are shown the recording with the header corrected.

    Attributes
    ----------
    pieces:
        The recording as a decoder is to see it: bytes, and ranges ``(start, stop)`` of the file.
    stated:
        How much the header states; None if it says that it does not know, or has no place for it; ``"decoder"`` if it
        is what the decoder says.
    there:
        How much the file has; None if only decoding tells.
    unit:
        What `stated` and `there` count. A sample is one moment of all channels.
    rate:
        Samples of `stated` in a second; None: as many as the recording has.
    tolerance:
        By how many samples `stated` may be wrong in a sound recording.
    wrong:
        Whether `stated` is known to be wrong without decoding.
    notes:
        Other doubts about the recording, each a sentence.
    """

    pieces: Pieces
    stated: int | Literal["decoder"] | None = None
    there: int | None = None
    unit: Literal["bytes", "samples"] = "samples"
    rate: int | None = None
    tolerance: int = 0
    wrong: bool = False
    notes: list[str] = field(default_factory=list)


def patched(start: int, stop: int, changes: dict[int, bytes]) -> Pieces:
    """A range of a file with other bytes at some places."""
    pieces: Pieces = []
    for at, new in sorted(changes.items()):
        pieces += [(start, at), new]
        start = at + len(new)
    return [*pieces, (start, stop)]


def end_without_tags(source: Source) -> int:
    """Where the recording ends: before an ID3v1 or an APE tag, which may follow audio of any kind."""
    end = source.size
    if end >= 128 and source.read(end - 128, 3) == b"TAG":
        end -= 128
    if end >= 32 and (footer := source.read(end - 32, 32)).startswith(b"APETAGEX"):
        size = int.from_bytes(footer[12:16], "little") + (32 if footer[23] & 0x80 else 0)
        end = end - size if 32 <= size <= end else end
    return end


def without_tags(source: Source) -> Source:
    """The recording without the ID3v2 tags before it, or from within one that claims to be larger than the file.

    They may stand before a recording of any kind. Decoders of most kinds do not know them.
    """
    start = 0
    while (header := source.read(start, 10)).startswith(b"ID3") and len(header) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0)))
        size += 10 if header[5] & 0x10 else 0
        start += 10
        if start + size > source.size:
            break
        start += size
    return replace(source, begin=source.begin + start)


def is_padding(source: Source, start: int, stop: int) -> bool:
    """Whether there is nothing but a few zeros."""
    return stop - start <= MOST_PADDING and not any(source.read(start, stop - start))
