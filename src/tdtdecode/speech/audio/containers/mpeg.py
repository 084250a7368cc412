"""MP3 and its relatives: frames one after the other. A tag in the first frame may state how many there are.

Without a tag a decoder guesses the length from the first frame's bit rate, and loses the end of a recording whose later
frames are smaller. Sources: ISO 11172-3 (frames), the Xing and VBRI tags as encoders write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..sources import Source
from .statement import Statement, end_without_tags, patched, start_without_tags

_MOST_JUNK = 1 << 16
"""How far from the beginning the first frame may lie."""
_ENOUGH = 4
"""So many frames in a row are no coincidence."""
_LOST_FRAMES = 4
"""How many frames a decoder may need before the first that it can decode, and behind the last one."""
_WINDOW = 1 << 20
_RATES = (44100, 48000, 32000)
_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by MPEG version (2 stands for 2.5 too) and layer."""
_TAGGED = 0x90
"""Bit rate and padding of a frame that is large enough for a tag, as in the third byte of its header."""


@dataclass(frozen=True)
class _Frame:
    """What the second and third bytes of a frame's header say."""

    size: int
    samples: int
    layer: int
    kind: tuple[int, int, int]
    """Version (3 is MPEG 1), layer and rate: the same in all frames of a recording."""
    kbits: int


@dataclass(frozen=True)
class _Tag:
    """What the first frame states: the number of frames, the number of bytes, and where these stand in the file."""

    frames: int
    frames_at: int
    size: int | None
    size_at: int


def statement(source: Source) -> Statement | None:
    """What a recording of MPEG frames states; None if it is none."""
    begin = start_without_tags(source)
    head = source.read(begin, _MOST_JUNK)
    first = _next_frame(head, 0)
    if first is None:
        return None
    total = source.size
    frame, start = _frame(head[first + 1], head[first + 2]), begin + first
    assert frame is not None
    tag = _tag(source.read(start, 64), start, frame)
    count, constant, end = _count(source, start, end_without_tags(source), frame.kind)
    whole = (start if first else 0, total)  # a decoder knows ID3 tags, but no other junk
    if tag is None:
        samples, tolerance = count * frame.samples, _LOST_FRAMES * frame.samples
        if constant or frame.layer != 3:
            return Statement([whole], samples, tolerance=tolerance)
        return Statement([_with_tag(source.read(start, 4), count), (start, end)], samples, tolerance=tolerance)
    count -= 1  # the tag's own frame holds no audio
    changes = {}
    if tag.size is not None and tag.size != end - start:
        changes[tag.size_at] = (end - start).to_bytes(4, "big")  # else the decoder itself prints a warning
    if tag.frames < count:
        changes[tag.frames_at] = count.to_bytes(4, "big")
        return Statement(patched(*whole, changes), tag.frames * frame.samples)
    return Statement(patched(*whole, changes), "decoder")


def _tag(frame: bytes, start: int, header: _Frame) -> _Tag | None:
    """The tag in a recording's first frame, which begins at ``start`` in the file."""

    def number(at: int) -> int:
        return int.from_bytes(frame[at : at + 4], "big")

    at = 4 + _side_bytes(frame, header)
    if frame[at : at + 4] in (b"Xing", b"Info") and number(at + 4) & 1 and not any(frame[4:at]):
        has_size = number(at + 4) & 2
        return _Tag(number(at + 8), start + at + 8, number(at + 12) if has_size else None, start + at + 12)
    if frame[36:40] == b"VBRI":
        return _Tag(number(50), start + 50, number(46), start + 46)
    return None


def _with_tag(header: bytes, count: int) -> bytes:
    """A frame without audio that states the number of frames after it."""
    header = header[:1] + bytes([header[1] | 1, _TAGGED | header[2] & 0x0C]) + header[3:]
    frame = _frame(header[1], header[2])
    assert frame is not None
    tag = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return (header + bytes(_side_bytes(header, frame)) + tag).ljust(frame.size, b"\0")


def _side_bytes(header: bytes, frame: _Frame) -> int:
    """Bytes between the header of a frame and its tag."""
    mono = header[3] >> 6 == 3
    return (17 if mono else 32) if frame.kind[0] == 3 else (9 if mono else 17)


def _count(source: Source, start: int, stop: int, kind: tuple[int, int, int]) -> tuple[int, bool, int]:
    """How many frames there are, whether all have one bit rate, and where the last one ends."""
    count, at, end = 0, start, start
    rates = set()
    base, window = start, source.read(start, _WINDOW)
    while at < stop:
        if at + 4 > base + len(window) and base + len(window) < stop or at < base:
            base, window = at, source.read(at, _WINDOW)
        here = at - base
        has_sync = here + 4 <= len(window) and window[here] == 0xFF
        frame = _frame(window[here + 1], window[here + 2]) if has_sync else None
        if frame is not None and frame.kind == kind:
            count += 1
            if count > 1:
                rates.add(frame.kbits)
            at += frame.size
            end = min(at, stop)
            continue
        found = _next_frame(window, here + 1, kind)
        at = base + found if found is not None else max(at + 1, base + len(window) - 3)
    return count, len(rates) <= 1, end


def _next_frame(data: bytes, at: int, kind: tuple[int, int, int] | None = None) -> int | None:
    """Where the next frame begins that is followed by others of its kind, or by the end of the data."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        first = _frame(data[at + 1], data[at + 2])
        if first is not None and kind in (None, first.kind):
            place, frames = at + first.size, 1
            while frames < _ENOUGH and place + 4 <= len(data):
                frame = _frame(data[place + 1], data[place + 2]) if data[place] == 0xFF else None
                if frame is None or frame.kind != first.kind:
                    break
                place, frames = place + frame.size, frames + 1
            if frames == _ENOUGH or frames > 1 and place + 4 > len(data):
                return at
        at += 1
    return None


@lru_cache(maxsize=1 << 16)
def _frame(second: int, third: int) -> _Frame | None:
    """The frame whose header has these bytes; None if it is no header, or does not tell the frame's size."""
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    rate, kbits = third >> 2 & 3, third >> 4
    if second < 0xE0 or version == 1 or layer == 4 or rate == 3 or not 0 < kbits < 15:
        return None
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]  # MPEG 1, 2 and 2.5
    speed = _KBITS[1 if version == 3 else 2, layer][kbits - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    size = samples // 8 * speed * 1000 // hertz // slot * slot + (third >> 1 & 1) * slot
    return _Frame(size, samples, layer, (version, layer, rate), speed)
