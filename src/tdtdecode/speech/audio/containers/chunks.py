"""Containers that keep samples in one run of bytes and state its size: WAV and its relatives, AIFF, CAF, AU, SPHERE."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..sources import Source
from .statement import Statement, end_without_tags, is_padding, patched

_UNKNOWN = {4: 0x7FFF0000, 8: 1 << 62}
"""Programs that cannot seek back do not know a size. They write a number from here up: by the bytes of a size."""
_MOST_CHUNKS = 10_000
_TAIL = 1 << 20
"""How far from the end of a file with a wrong size the chunks after its audio are looked for."""


def _names(text: str) -> frozenset[bytes]:
    return frozenset(name.encode().ljust(4) for name in text.split(","))


@dataclass(frozen=True)
class _Dialect:
    """How chunks are written: name, size, content.

    Attributes
    ----------
    first:
        Where the first chunk begins.
    size:
        The format of a size, as `struct` names it.
    audio:
        The chunk that holds the samples.
    prefix:
        How many bytes of that chunk come before the samples.
    others:
        Chunks known to follow the samples.
    name_ends:
        What follows the four letters of a name.
    counts_itself:
        Whether a size includes name and size.
    align:
        Chunks begin at multiples of so many bytes.
    header_follows:
        Whether what a decoder must know may come after the samples.
    """

    first: int
    size: str
    audio: bytes
    others: frozenset[bytes]
    prefix: int = 0
    name_ends: bytes = b""
    counts_itself: bool = False
    align: int = 2
    header_follows: bool = False

    @property
    def size_bytes(self) -> int:
        return struct.calcsize(self.size)

    @property
    def header_bytes(self) -> int:
        return 4 + len(self.name_ends) + self.size_bytes


_RIFF = _names(
    "LIST,INFO,id3,ID3,bext,fact,cue,smpl,inst,PEAK,iXML,_PMX,afsp,JUNK,junk,PAD,FLLR,minf,elm1,regn,umid,DISP,acid,"
    "axml,chna,cart,levl,MD5,note,labl,plst,strc,MEXT,LGWV,ResU,SAUR,Cr8r,AFAn"
)
_FORM = _names("COMM,ANNO,NAME,AUTH,(c),MARK,INST,MIDI,APPL,COMT,ID3,PEAK,AESD,CHAN,FVER,SAXL,VHDR,CHRS")
_CAF = _names("info,free,pakt,peak,mark,strg,uuid,chan,kuki,edct,midi,ovvw,regn,umid,inst")
_W64 = _names("list,LIST,levl,junk,bext,fact,cue,mark")
_AUDIO = _names("RIFF,RIFX,RF64,FORM,data,SSND")
"""More audio, if they come after the samples."""

_DIALECTS = {
    (b"RIFF", b"WAVE"): _Dialect(12, "<I", b"data", _RIFF),
    (b"RF64", b"WAVE"): _Dialect(12, "<I", b"data", _RIFF),
    (b"BW64", b"WAVE"): _Dialect(12, "<I", b"data", _RIFF),
    (b"RIFX", b"WAVE"): _Dialect(12, ">I", b"data", _RIFF),
    (b"FORM", b"AIFF"): _Dialect(12, ">I", b"SSND", _FORM, prefix=8, header_follows=True),
    (b"FORM", b"AIFC"): _Dialect(12, ">I", b"SSND", _FORM, prefix=8, header_follows=True),
    (b"FORM", b"8SVX"): _Dialect(12, ">I", b"BODY", _FORM),
    (b"FORM", b"16SV"): _Dialect(12, ">I", b"BODY", _FORM),
    (b"caff", b"desc"): _Dialect(8, ">q", b"data", _CAF, prefix=4, align=1, header_follows=True),
    (b"riff", b"\xa5\xd6\x28\xdb"): _Dialect(
        40, "<q", b"data", _W64, name_ends=bytes.fromhex("f3acd3118cd100c04f8edb8a"), counts_itself=True, align=8
    ),
}
"""By the first four bytes of the file, and the four bytes from the ninth on."""


@dataclass(frozen=True)
class _Chunk:
    """A chunk: its name, where its content begins, and how long its content is; a negative size is unknown."""

    name: bytes
    start: int
    size: int


def statement(source: Source) -> Statement | None:
    """What a recording in one of these containers states; None if it is in none, or its header makes no sense."""
    head = source.read(0, 12)
    if head[:4] in (b".snd", b"dns."):
        return _au(source)
    if head[:7] == b"NIST_1A":
        return _sphere(source)
    dialect = _DIALECTS.get((head[:4], head[8:12]))
    if dialect is not None:
        return _chunked(source, dialect, head[:4])
    if head[:4] == b"RIFF" and len(head) == 12:  # a video, perhaps: only the file's size is stated
        total, size = source.size, int.from_bytes(head[4:8], "little") + 8
        return Statement([(0, total)], size if total < size < _UNKNOWN[4] else total, total, "bytes")
    return None


def _chunked(source: Source, dialect: _Dialect, magic: bytes) -> Statement | None:
    long_size: _Chunk | None = None  # where RF64 keeps a size that does not fit into 32 bits
    for chunk in _chunks(source, dialect, dialect.first):
        if chunk.name == b"ds64":
            long_size = _Chunk(b"ds64", chunk.start + 8, 8)
        if chunk.name == dialect.audio:
            break
    else:
        return None
    total = source.size
    start = chunk.start + dialect.prefix
    if start > total:
        return None
    limit = max(start, end_without_tags(source))
    if long_size is None:
        size: int | None = None if chunk.size < 0 else max(0, chunk.size - dialect.prefix)
        unknown = _UNKNOWN[dialect.size_bytes]
    else:
        size, unknown = int.from_bytes(source.read(long_size.start, 8), "little"), _UNKNOWN[8]
    if size is not None and size >= unknown and start + size > total:
        size = None
    end = limit if size is None else _end_of_audio(source, dialect, start, start + size, limit)
    names = _chain(source, dialect, end, limit, cut=True) or []
    notes = []
    if more := _AUDIO.intersection(names):
        notes.append(f"more audio follows in a chunk {min(more).decode()!r}, which is not read")

    changes = {0: b"RF64"} if magic == b"BW64" else {}  # libsndfile knows it by its older name
    if end - start != size:
        if long_size is not None:
            changes[long_size.start] = (end - start).to_bytes(8, "little")
        else:
            whole = end - chunk.start + (dialect.header_bytes if dialect.counts_itself else 0)
            largest = 0xFFFFFFFF if dialect.size_bytes == 4 else (1 << 63) - 1
            changes[chunk.start - dialect.size_bytes] = struct.pack(dialect.size, min(whole, largest))
    follows = dialect.header_follows and (names or _is_known(source, dialect, end, limit))
    stop = total if follows else end
    return Statement(patched(0, stop, changes), size, end - start, "bytes", notes=notes)


def _end_of_audio(source: Source, dialect: _Dialect, start: int, stated: int, limit: int) -> int:
    """Where the samples end, of which the header says that they end at ``stated``.

    What follows that place is audio too, if it is neither chunks nor padding: then the size is wrong.
    """
    if stated >= limit:
        return limit
    if _chain(source, dialect, stated, limit, cut=True) is not None:
        return stated
    if stated > start and (is_padding(source, stated, limit) or _is_known(source, dialect, stated, limit)):
        return stated
    known = b"|".join(re.escape(name + dialect.name_ends) for name in dialect.others)
    from_here = max(stated, limit - _TAIL)
    for match in re.finditer(known, source.read(from_here, limit - from_here)):
        if _chain(source, dialect, from_here + match.start(), limit, cut=False) is not None:
            return from_here + match.start()
    return limit


def _chain(source: Source, dialect: _Dialect, at: int, limit: int, cut: bool) -> list[bytes] | None:
    """The names of the chunks after samples that end at ``at``, if there is nothing but chunks to the end of the file.

    ``cut``: the last chunk may be cut short.
    """
    for begin in (-(-at // dialect.align) * dialect.align, at):  # not all programs keep the alignment
        if (names := _chain_from(source, dialect, begin, limit, cut)) is not None:
            return names
    return None


def _chain_from(source: Source, dialect: _Dialect, at: int, limit: int, cut: bool) -> list[bytes] | None:
    names: list[bytes] = []
    for chunk in _chunks(source, dialect, at):
        if not re.fullmatch(rb"[ -~]{4}", chunk.name) or chunk.size < 0:
            break
        names.append(chunk.name)
        at = chunk.start + chunk.size
        if at > limit and not (cut and chunk.name in dialect.others):
            return None
        at = -(-at // dialect.align) * dialect.align
    return names if names and (at >= limit or is_padding(source, at, limit)) else None


def _is_known(source: Source, dialect: _Dialect, at: int, limit: int) -> bool:
    """Whether a known chunk stands at a place, whatever comes after it."""
    for begin in (-(-at // dialect.align) * dialect.align, at):
        chunk = next(_chunks(source, dialect, begin), None)
        if chunk is not None and chunk.name in dialect.others and 0 <= chunk.start + chunk.size <= limit:
            return True
    return False


def _chunks(source: Source, dialect: _Dialect, at: int) -> Iterator[_Chunk]:
    """The chunks from a place on, as far as they can be followed."""
    for _ in range(_MOST_CHUNKS):
        header = source.read(at, dialect.header_bytes)
        if len(header) < dialect.header_bytes or (at and header[4 : -dialect.size_bytes] != dialect.name_ends):
            return
        (size,) = struct.unpack(dialect.size, header[-dialect.size_bytes :])
        start = at + dialect.header_bytes
        if size >= 0 and dialect.counts_itself:
            size = max(0, size - dialect.header_bytes)
        yield _Chunk(header[:4], start, size)
        if size < 0:
            return
        at = -(-(start + size) // dialect.align) * dialect.align


def _au(source: Source) -> Statement | None:
    """Sun's and NeXT's AU: the size stands in the header, and 0xFFFFFFFF means that it is unknown."""
    order: str = ">" if source.read(0, 4) == b".snd" else "<"
    numbers = source.read(4, 8)
    if len(numbers) < 8:
        return None
    start, size = struct.unpack(f"{order}II", numbers)
    total = source.size
    if not 24 <= start <= total:
        return Statement([(0, total)], "decoder", notes=[f"its header says that the samples begin at byte {start:,}"])
    return _to_the_end(source, start, None if size >= _UNKNOWN[4] and start + size > total else size, {8: b"\xff" * 4})


def _sphere(source: Source) -> Statement | None:
    """NIST SPHERE: a header of text, which states the number of samples of each channel. libsndfile ignores it."""
    header = source.read(0, 1024).split(b"end_head")[0]
    numbers = {}
    for name in (b"sample_count", b"channel_count", b"sample_n_bytes"):
        match = re.search(name + rb" -i (\d{1,12})\s", header)
        if match is None:
            return None
        numbers[name] = int(match[1])
    length = re.match(rb"NIST_1A\s+(\d{1,9})\s", header)
    if length is None or int(length[1]) > source.size or b"embedded" in header:
        return None
    size = numbers[b"sample_count"] * numbers[b"channel_count"] * numbers[b"sample_n_bytes"]
    return _to_the_end(source, int(length[1]), size, {})


def _to_the_end(source: Source, start: int, size: int | None, unknown: dict[int, bytes]) -> Statement:
    """Audio that nothing follows but padding; ``unknown`` makes the header say that it does not know the size."""
    limit = max(start, end_without_tags(source))
    end = limit
    if size and start + size < limit and is_padding(source, start + size, limit):
        end = start + size
    if end - start == size:
        return Statement([(0, source.size)], size, size, "bytes")
    return Statement(patched(0, end, unknown), size, end - start, "bytes")
