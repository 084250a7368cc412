"""MP3 and its relatives: frames one after the other. A tag in the first frame may state how many there are.

Without a tag a decoder guesses the length from the first frame's bit rate, and loses the end of a recording whose later
frames are smaller. Sources: ISO 11172-3 (frames), the Xing and VBRI tags as encoders write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from ..sources import Source
from .statement import Statement, end_without_tags, is_padding, patched

_MOST_JUNK = 1 << 16
"""How far from the beginning the first frame may lie."""
_ENOUGH = 4
"""So many frames in a row are no coincidence."""
_ENOUGH_OTHERS = 16
_LONGEST_CHAIN = _ENOUGH_OTHERS * 3_000  # a frame is smaller
_MOST_TAIL = 1 << 12
"""So many bytes after the last frame may be a tag that is not known here."""
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_HEADER = 4
_MONO = 3
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


_Kind: TypeAlias = tuple[int, int, int, bool]
"""Version, layer and rate as a header has them, and whether there is one channel: the same in all of a recording."""


@dataclass(frozen=True)
class _Frame:
    """What the second and third bytes of a frame's header say."""

    size: int
    samples: int
    layer: int
    kind: tuple[int, int, int]
    """Version (3 is MPEG 1), layer and rate."""
    kbits: int


@dataclass(frozen=True)
class _Tag:
    """What the first frame states: the number of frames, the number of bytes, and where these stand in the file.

    A tag that the decoder does not read has no place.
    """

    frames: int
    frames_at: int | None
    size: int | None
    size_at: int


@dataclass
class _Recording:
    """Frames of one kind.

    Attributes
    ----------
    kind:
        What their headers have in common.
    runs:
        Where frames follow one another without anything between them: ranges ``(start, stop)`` of the file.
    count:
        How many frames there are.
    kbits:
        The bit rates of all but the first, which may be a tag.
    """

    kind: _Kind
    runs: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0
    kbits: set[int] = field(default_factory=set)

    def add(self, at: int, second: int, third: int, stop: int) -> int:
        """Add the frame at a place, whose header has these bytes, and return where it ends; no later than ``stop``."""
        frame = _frame(second, third)
        assert frame is not None
        end = min(at + frame.size, stop)
        if self.runs and self.runs[-1][1] == at:
            self.runs[-1] = self.runs[-1][0], end
        else:
            self.runs.append((at, end))
        self.count += 1
        if self.count > 1:
            self.kbits.add(frame.kbits)
        return end


def statements(source: Source) -> list[Statement]:
    """What each recording of MPEG frames states, as they may be joined end to end. Empty if there are none.

    What stands between the frames is not shown to the decoder, which gives up where it is much.
    """
    first = _next_frame(source.read(0, _MOST_JUNK), 0, None)
    if first is None:
        return []
    found, strange = _recordings(source, first, end_without_tags(source))
    notes = [f"{strange:,} of its bytes are no MP3 frames"] if strange else []
    return [_statement(source, recording, [] if number else notes) for number, recording in enumerate(found)]


def _statement(source: Source, recording: _Recording, notes: list[str]) -> Statement:
    runs = recording.runs
    start, end = runs[0]
    header = source.read(start, 4)
    frame = _frame(header[1], header[2])
    assert frame is not None
    tag = _tag(source.read(start, 64), start, frame)
    if tag is None or tag.frames_at is None:
        if tag is not None:
            runs = [(min(start + frame.size, end), end), *runs[1:]]
        count = recording.count - (tag is not None)
        stated = (tag.frames if tag is not None else count) * frame.samples
        tolerance = _LOST_FRAMES * frame.samples
        if frame.layer == 3 and (tag is not None or len(recording.kbits) > 1):
            return Statement([_with_tag(header, count), *runs], stated, tolerance=tolerance, notes=notes)
        return Statement([*runs], stated, tolerance=tolerance, notes=notes)
    count = recording.count - 1  # the tag's own frame holds no audio
    size = sum(stop - start for start, stop in runs)
    changes = {}
    if tag.size is not None and tag.size != size:
        changes[tag.size_at] = size.to_bytes(4, "big")  # else the decoder itself prints a warning
    states: int | Literal["decoder"] = "decoder"
    if tag.frames < count:
        changes[tag.frames_at] = count.to_bytes(4, "big")
        states = tag.frames * frame.samples
    return Statement([*patched(start, end, changes), *runs[1:]], states, notes=notes)


def _tag(frame: bytes, start: int, header: _Frame) -> _Tag | None:
    """The tag in a recording's first frame, which begins at ``start`` in the file."""

    def number(at: int) -> int:
        return int.from_bytes(frame[at : at + 4], "big")

    at = 4 + _side_bytes(frame, header)
    if frame[at : at + 4] in (b"Xing", b"Info") and number(at + 4) & 1 and not any(frame[4:at]):
        has_size = number(at + 4) & 2
        return _Tag(number(at + 8), start + at + 8, number(at + 12) if has_size else None, start + at + 12)
    if frame[36:40] == b"VBRI":
        return _Tag(number(50), None, number(46), start + 46)
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
    mono = header[3] >> 6 == _MONO
    return (17 if mono else 32) if frame.kind[0] == 3 else (9 if mono else 17)


def _recordings(source: Source, start: int, stop: int) -> tuple[list[_Recording], int]:
    """The recordings from a place on, where a frame is, and how many bytes there are that belong to none."""
    found: list[_Recording] = []
    base, window = start, source.read(start, _WINDOW)
    at, end, strange = start, start, 0
    while at < stop:
        if not base <= at <= base + len(window) - _HEADER and base + len(window) < stop:
            base, window = at, source.read(at, _WINDOW)
        kind = found[-1].kind if found else None
        if kind is None or _kind(window, at - base) != kind:
            following = _next_frame(window, at - base, kind)
            if following is None and base + len(window) >= stop:
                break
            if following is None:
                at = max(at + 1, base + len(window) - _LONGEST_CHAIN)
                continue
            at = base + following
            kind = _kind(window, following)
            assert kind is not None
            if not found or found[-1].kind != kind:
                found.append(_Recording(kind))
        strange += _strange_bytes(source, end, at)
        second, third = window[at - base + 1 : at - base + 3]
        end = found[-1].add(at, second, third, stop)
        at = end
    if not is_padding(source, end, stop) and stop - end >= _MOST_TAIL:
        strange += _strange_bytes(source, end, stop)
    return found, strange


def _strange_bytes(source: Source, start: int, stop: int) -> int:
    """How many bytes there are between two frames that are no tag."""
    return 0 if start == stop or source.read(start, 11).startswith(_TAGS) else stop - start


def _next_frame(data: bytes, at: int, kind: _Kind | None) -> int | None:
    """Where the next frame begins that is followed by others of its kind, or by the end of the data.

    Frames of another kind than the given one must be more in a row: they begin another recording.
    """
    while (at := data.find(b"\xff", at)) >= 0 and at + _HEADER <= len(data):
        first = _kind(data, at)
        if first is not None:
            same = kind in (None, first)
            place, frames = at, 0
            while frames < (_ENOUGH if same else _ENOUGH_OTHERS) and _kind(data, place) == first:
                frame = _frame(data[place + 1], data[place + 2])
                assert frame is not None
                place, frames = place + frame.size, frames + 1
            at_end = same and frames > 1 and place + _HEADER > len(data)
            if frames == (_ENOUGH if same else _ENOUGH_OTHERS) or at_end:
                return at
        at += 1
    return None


def _kind(data: bytes, at: int) -> _Kind | None:
    """The kind of the frame whose header stands at a place; None if there is none."""
    if at + _HEADER > len(data) or data[at] != 0xFF:
        return None
    frame = _frame(data[at + 1], data[at + 2])
    return None if frame is None else (*frame.kind, data[at + 3] >> 6 == _MONO)


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
