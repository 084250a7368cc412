"""Ogg: each page states how many samples are complete at its end, its granule. The last page's is the length.

Source: RFC 3533 (pages), RFC 7845 (Opus in Ogg), RFC 6716 (durations of Opus packets).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..sources import Source
from .statement import Pieces, Statement, end_without_tags, is_padding

_HEADER = 27
_CONTINUED, _FIRST, _LAST = 1, 2, 4
"""Flags of a page: it begins within a packet; it is the first, the last of its stream."""
_NO_PACKET_ENDS = (1 << 64) - 1
_UNKNOWN = 1 << 62
"""Granules from here up are no numbers of samples."""
_HEADER_PACKETS = {b"\x01vorbis": 3, b"OpusHead": 2, b"\x7fFLAC": 2, b"Speex   ": 2}
"""How the first packet of a stream of audio begins, and how many packets at least come before the audio."""
_OPUS_RATE = 48000
_OPUS_FRAMES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
"""Samples of an Opus frame, by the upper five bits of its packet's first byte."""
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    """A page.

    Attributes
    ----------
    stop:
        Where the next page begins; the end of the file if this one is cut short.
    number:
        Its place in its stream.
    packets:
        How many packets end on it, and lie in the file as far as they are on it.
    opus:
        Samples of these packets, if it is a page of an Opus stream.
    sound:
        Whether it is whole and its checksum is right.
    """

    start: int
    stop: int
    flags: int
    granule: int
    stream: bytes
    number: int
    head: bytes
    packets: int
    opus: int
    whole: bool
    sound: bool

    @property
    def has_granule(self) -> bool:
        return self.granule < _UNKNOWN


def statements(source: Source) -> list[Statement]:
    """What each recording in an Ogg file states, as they may be joined end to end. Empty if it is no Ogg file."""
    if source.read(0, 4) != b"OggS":
        return []
    end = end_without_tags(source)
    links: list[list[_Page]] = []
    for page in _pages(source, end):
        # Streams that run side by side, as in a video, begin together.
        if page.flags & _FIRST and not (links and links[-1][-1].flags & _FIRST):
            links.append([])
        if links:
            links[-1].append(page)
    if links and is_padding(source, links[-1][-1].stop, end):
        end = links[-1][-1].stop
    stops = [link[0].start for link in links[1:]] + [end]
    return [_statement(source, link, stop) for link, stop in zip(links, stops)]


def _statement(source: Source, pages: list[_Page], stop: int) -> Statement:
    """What one recording states, which ends at ``stop`` in the file."""
    start = pages[0].start
    bounds = [*(page.start for page in pages[1:]), stop]
    damaged = sum(page.whole and not page.sound or page.stop != next for page, next in zip(pages, bounds))
    notes = []
    if damaged:
        notes.append(f"{damaged} of its {len(pages)} Ogg pages {'is' if damaged == 1 else 'are'} damaged")
    first = next((page for page in pages if page.flags & _FIRST and page.head in _HEADER_PACKETS), None)
    pages = [page for page in pages if first is not None and page.stream == first.stream]
    if first is None or sum(page.packets for page in pages) <= _HEADER_PACKETS[first.head]:
        return Statement([(start, stop)], stated="decoder", notes=notes)
    if not damaged:
        notes += _order(pages, _HEADER_PACKETS[first.head])
    if not (pages[-1].whole and pages[-1].flags & _LAST):
        notes.append("the end of its Ogg stream is missing")

    opus = first.head == b"OpusHead"
    last = next(page for page in reversed(pages) if page.packets)
    before = pages[: pages.index(last)]
    reached = max((page.granule for page in before if page.has_granule), default=0)
    if opus and _is_inconsistent(before):
        granules = _counted(pages)
    elif last.whole and last.has_granule and last.granule >= max(1, reached):
        return Statement([(start, stop)], stated="decoder", notes=notes)
    elif opus:
        granules = {last: reached + last.opus}
    else:
        granules = {last: _UNKNOWN}  # only decoding tells
    pieces: Pieces = []
    for page, granule in granules.items():
        flags = page.flags | _LAST if page is last else page.flags
        pieces += [(start, page.start), _rewritten(source, page, flags, granule)]
        start = page.stop
    if start < stop and last.whole:
        pieces.append((start, stop))
    delay = int.from_bytes(source.read(first.start + _HEADER + 1 + 10, 2), "little") if opus else 0
    stated = max(0, last.granule - delay) if last.has_granule else None
    return Statement(pieces, stated, rate=_OPUS_RATE if opus else None, wrong=True, notes=notes)


def _order(pages: list[_Page], header_packets: int) -> list[str]:
    """What is doubtful about the numbers of a stream's pages, of which the first have so many packets of its header."""
    packets, audio = 0, []
    for page in pages:
        if packets >= header_packets:
            audio.append(page.number)
        packets += page.packets
    steps = [after - before for before, after in zip(audio, audio[1:])]
    if not any(steps):  # the encoder does not number them
        return []
    if any(step < 1 for step in steps):
        return ["its Ogg pages are not in order"]
    missing = sum(steps) - len(steps)
    return [f"{missing} of its Ogg pages {'is' if missing == 1 else 'are'} missing"] if missing else []


def _is_inconsistent(pages: list[_Page]) -> bool:
    """Whether a page of an Opus stream states fewer samples than are on it: decoders refuse the stream then."""
    reached = 0
    for page in pages:
        if page.opus and page.sound:
            if not page.has_granule or page.granule < reached + page.opus:
                return True
            reached = page.granule
    return False


def _counted(pages: list[_Page]) -> dict[_Page, int]:
    """The samples complete at the end of each page with audio, of an Opus stream."""
    granules, reached = {}, 0
    for page in pages:
        if page.opus and (page.sound or not page.whole):  # decoders pass over damaged pages
            reached += page.opus
            granules[page] = reached
    return granules


def _pages(source: Source, end: int) -> Iterator[_Page]:
    """The pages of a file up to a place, in order; what is none is left out."""
    at = 0
    opus: dict[bytes, int] = {}  # samples of the packet that the last page of each Opus stream left unfinished
    while at < end:
        header = source.read(at, _HEADER)
        if header[:5] != b"OggS\0" or len(header) < _HEADER:
            found = source.read(at + 1, 1 << 16).find(b"OggS")
            at = at + 1 + found if found >= 0 else at + (1 << 16) - 3
            continue
        flags, stream, number = header[5], header[14:18], int.from_bytes(header[18:22], "little")
        lacing = source.read(at + _HEADER, header[26])
        body = source.read(at + _HEADER + len(lacing), sum(lacing))
        whole = len(lacing) == header[26] and len(body) == sum(lacing)
        if flags & _FIRST and body.startswith(b"OpusHead"):
            opus[stream] = 0
        packets, samples = 0, 0
        begin = size = 0
        for index, segment in enumerate(lacing):
            size += segment
            ends = segment < 255
            if not ends and index < len(lacing) - 1:
                continue
            if begin + size > len(body):
                break
            if stream in opus and (begin or not flags & _CONTINUED) and size:
                opus[stream] = _opus_samples(body[begin : begin + 2])
            if ends:
                packets += 1
                samples += opus.get(stream, 0)
                begin, size = begin + size, 0
        sound = whole and _checksum(header[:22] + bytes(4) + header[26:] + lacing + body) == header[22:26]
        stop = at + _HEADER + len(lacing) + len(body)
        granule = int.from_bytes(header[6:14], "little")
        if samples and (body.startswith((b"OpusHead", b"OpusTags")) or granule == 0 and flags & _FIRST):
            samples = 0
        head = next((head for head in _HEADER_PACKETS if body.startswith(head)), b"")
        yield _Page(at, stop, flags, granule, stream, number, head, packets, samples, whole, sound)
        at = stop


def _opus_samples(begin: bytes) -> int:
    """Samples of an Opus packet that begins with these two bytes."""
    frames = (1, 2, 2, begin[1] & 63 if len(begin) > 1 else 0)[begin[0] & 3]
    return frames * _OPUS_FRAMES[begin[0] >> 3]


def _rewritten(source: Source, page: _Page, flags: int, granule: int) -> bytes:
    """A page with other flags and another granule, cut after its last whole packet."""
    header = source.read(page.start, _HEADER)
    lacing = source.read(page.start + _HEADER, header[26])
    body = source.read(page.start + _HEADER + len(lacing), sum(lacing))
    segments = bytes_kept = end = 0
    for index, segment in enumerate(lacing):
        end += segment
        if end > len(body):
            break
        if segment < 255 or page.whole:
            segments, bytes_kept = index + 1, end
    lacing, body = lacing[:segments], body[:bytes_kept]
    start = header[:5] + bytes([flags]) + granule.to_bytes(8, "little") + header[14:22]
    rest = bytes([len(lacing)]) + lacing + body
    return start + _checksum(start + bytes(4) + rest) + rest


def _checksum(page: bytes) -> bytes:
    """The checksum of a page with zeros in its place. It is zlib's, with the bits reversed and no complements."""
    reflected = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2).to_bytes(4, "little")
