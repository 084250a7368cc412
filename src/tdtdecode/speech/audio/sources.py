"""Where a recording's bytes come from: a file, a pipe, bytes in memory, or a file object of Python's."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from os import PathLike
from typing import Any, BinaryIO, TypeAlias, TypeGuard

from ...arguments import as_number, refusal
from ...errors import InputError, printable
from ...forks import cached_property

File: TypeAlias = str | PathLike[str] | bytes | BinaryIO
"""An encoded recording: the path of a file or a pipe, its bytes, or a binary file object."""

EXPECTED = "expected a recording as WAV, FLAC, OGG or MP3"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+[^/]")  # a drive's letter is no scheme; `Path` turns "//" into "/"
_MOST_SPOOLED = 16 << 30
"""The most bytes taken from a pipe. Whoever writes more has no end."""
_SPOOLED_IN_MEMORY = 64 << 20
_COPIED_AT_ONCE = 1 << 20
_LINES = str.maketrans({"\n": r"\n", "\t": r"\t"})
_BINARY = "open it with mode 'rb'"


@dataclass(frozen=True)
class Source:
    """The bytes of one recording.

    Attributes
    ----------
    name:
        What messages call the recording. It can be printed, even if the file's name cannot.
    stream:
        A binary stream that can be sought.
    path:
        The file's path; None if the bytes do not come from a file.
    begin:
        Where the recording begins in the stream: tags may come before it.
    """

    name: str
    stream: BinaryIO
    path: str | bytes | None = None
    begin: int = 0

    @cached_property
    def size(self) -> int:
        """The number of bytes."""
        with self._failing():
            self.stream.seek(0, os.SEEK_END)
            return self.stream.tell() - self.begin

    def read(self, start: int, count: int) -> bytes:
        """The bytes from a position on: ``count`` of them, or fewer at the end.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        if start >= self.size:  # headers state places that no file can have
            return b""
        with self._failing():
            self.stream.seek(self.begin + start)
            found = _chunk(self.stream, count, self.name)
            while len(found) < count and (more := _chunk(self.stream, count - len(found), self.name)):
                found += more
            return found[:count]

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # whatever a caller's file object raises
            raise InputError(f"{self.name}: cannot be read to its end ({error})") from error


@dataclass(frozen=True)
class Segment:
    """A part of an encoded recording. Of WAV, FLAC and other formats that can be sought, only this part is read.

    Attributes
    ----------
    audio:
        The recording: the path of a file, its bytes, or a binary file object.
    start:
        Where the part begins, in seconds.
    duration:
        Its length in seconds; None: to the end of the recording. A part that ends more than a tenth of a second after
        the recording is shorter, with an `AudioWarning`.

    Raises
    ------
    InputError
        If `audio` is no encoded recording, or a time is out of range.
    """

    audio: File | Source
    start: float = 0.0
    duration: float | None = None

    def __post_init__(self) -> None:
        if not is_file(self.audio):
            raise refusal("audio", "a recording: a path, bytes or a binary file object", self.audio, "slice arrays")
        most = sys.float_info.max
        as_number("start", self.start, "a number of seconds of at least 0", low=0, high=most)
        if self.duration is not None:
            as_number("duration", self.duration, "a number of seconds above 0, or None", above=0, high=most)

    @property
    def times(self) -> str:
        """Its times, for messages."""
        return f"from {self.start:g} s" + ("" if self.duration is None else f" to {self.start + self.duration:g} s")


def is_file(audio: object) -> TypeGuard[File | Source]:
    """Whether an input is an encoded recording, rather than samples."""
    return isinstance(audio, (str, PathLike, bytes, bytearray, memoryview, Source)) or hasattr(audio, "read")


def name_of(audio: object) -> str:
    """What messages call an input: one line that can be printed."""
    if isinstance(audio, Source):
        return audio.name
    if isinstance(audio, Segment):
        return f"{name_of(audio.audio)} {audio.times}"
    if isinstance(audio, (str, PathLike)):
        return printable(os.fsdecode(os.fspath(audio))).translate(_LINES) or "''"
    name = getattr(audio, "name", None)
    if isinstance(name, (str, bytes)) and name:
        return name_of(os.fsdecode(name))
    return f"<{type(audio).__name__}>"


def held(audio: Any) -> Any:
    """The same input in a form that can be read more than once: what comes out of a pipe is kept in a temporary file.

    Raises
    ------
    InputError
        If there is nothing to read: no such file, a folder, a device, a URL, a file object that is closed or opened as
        text.
    """
    if isinstance(audio, Segment):
        return replace(audio, audio=held(audio.audio))
    if not is_file(audio) or isinstance(audio, Source):
        return audio
    if isinstance(audio, (str, PathLike)):
        return audio if stat.S_ISREG(_status(audio).st_mode) else _spooled_path(audio)
    if isinstance(audio, (bytes, bytearray, memoryview)) or _is_seekable(audio, name_of(audio)):
        return audio
    return _spooled(audio, name_of(audio))


@contextlib.contextmanager
def opened(audio: File | Source) -> Iterator[Source]:
    """The bytes of an encoded recording. A caller's file object is left open, where it was.

    Raises
    ------
    InputError
        As `held`; and if reading fails.
    """
    audio = held(audio)
    if isinstance(audio, Source):
        yield audio
    elif isinstance(audio, (bytes, bytearray, memoryview)):
        content = audio.tobytes() if isinstance(audio, memoryview) else audio  # it may have gaps
        yield Source(name_of(audio), io.BytesIO(content))
    elif isinstance(audio, (str, PathLike)):
        name = name_of(audio)
        with _open(audio, name) as stream:
            yield Source(name, stream, os.fspath(audio) if os.name == "nt" else os.fsencode(audio))
    else:
        position = audio.tell()
        try:
            yield Source(name_of(audio), audio)
        finally:
            audio.seek(position)


class View(io.RawIOBase):
    """A stream put together of pieces: bytes, and ranges ``(start, stop)`` of a source.

    Decoders read recordings through it. A failure to read does not pass through them, so it is kept here in `failure`
    and looks like the end of the stream to them.
    """

    def __init__(self, source: Source, pieces: list[bytes | tuple[int, int]]):
        self._source = source
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._ends = list(accumulate(map(_length, self._pieces)))
        self._position = 0
        self.failure: BaseException | None = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._ends[-1] if self._ends else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, count: int = -1, /) -> bytes:
        """The bytes at the position. Decoders ask for as many as a damaged header states, without looking."""
        left = max(0, self.size - self._position)
        return super().read(left if count < 0 else min(count, left)) or b""

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer. Decoders take a buffer that is not full for the end."""
        out = memoryview(buffer).cast("B")
        filled = 0
        try:
            while filled < len(out) and (chunk := self._read(len(out) - filled)):
                out[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
                self._position += len(chunk)
        except KeyboardInterrupt as error:  # a library that calls this would print it and go on
            self.failure = error
        return filled

    def head(self, count: int) -> bytes:
        """The bytes at the beginning; the position stays."""
        position, self._position = self._position, 0
        found = self.read(count)
        self._position = position
        return found

    def _read(self, most: int) -> bytes:
        """Bytes at the position, from one piece; none at the end."""
        index = bisect_right(self._ends, self._position)
        if index == len(self._ends) or self.failure is not None:
            return b""
        piece, left = self._pieces[index], self._ends[index] - self._position
        if isinstance(piece, bytes):
            return piece[len(piece) - left :][:most]
        try:
            return self._source.read(piece[1] - left, min(left, most))
        except InputError as error:
            self.failure = error
            return b""


def _length(piece: bytes | tuple[int, int]) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]


def _status(path: str | PathLike[str]) -> os.stat_result:
    """What the system says of a path that is a file or a pipe."""
    name = name_of(path)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
        if _URL.match(name):
            raise InputError(
                f"{name}: is a URL, and nothing is downloaded here; download it first, or pipe it in: "
                "curl -L URL | tdtdecode transcribe -"
            ) from error
        raise InputError(f"{name}: no such file; {EXPECTED}") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); {EXPECTED}") from error
    for is_kind, kind in ((stat.S_ISDIR, "a folder"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")):
        if is_kind(status.st_mode):
            raise InputError(f"{name}: is {kind}, not a file; {EXPECTED}")
    return status


def _open(path: str | PathLike[str], name: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=1 << 16)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); {EXPECTED}") from error


def _is_seekable(stream: Any, name: str) -> bool:
    """Whether a file object can be sought, as far as it can be read at all."""
    if isinstance(stream, io.TextIOBase):
        raise InputError(f"{name}: is opened as text; {_BINARY}")
    try:
        readable = stream.readable() if hasattr(stream, "readable") else True
        if hasattr(stream, "seekable"):
            seekable = bool(stream.seekable())
        else:
            seekable = _returns(stream)
    except Exception as error:  # a closed file, or whatever a caller's file object raises
        raise InputError(f"{name}: cannot be read ({error})") from error
    if not readable:
        raise InputError(f"{name}: cannot be read (it is open for writing only)")
    return seekable


def _returns(stream: Any) -> bool:
    """Whether a file object goes to where it is."""
    try:
        stream.seek(stream.tell())
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return False
    return True


def _chunk(stream: Any, count: int, name: str) -> bytes:
    """What a file object gives when it is read once; nothing at its end."""
    found = stream.read(count)
    if found is None:
        raise InputError(f"{name}: has nothing to read yet, as it does not block; read it when all of it is there")
    if isinstance(found, str):
        raise InputError(f"{name}: is opened as text; {_BINARY}")
    if not isinstance(found, (bytes, bytearray, memoryview)):
        raise InputError(f"{name}: cannot be read (its read() returned {type(found).__name__}, expected bytes)")
    return bytes(found)


def _spooled_path(path: str | PathLike[str]) -> Source:
    name = name_of(path)
    with _open(path, name) as stream:
        return _spooled(stream, name)


def _spooled(stream: Any, name: str) -> Source:
    """All that a stream has to give, in a temporary file, which goes when the source does."""
    kept: Any = tempfile.SpooledTemporaryFile(_SPOOLED_IN_MEMORY)
    try:
        while chunk := _chunk(stream, _COPIED_AT_ONCE, name):
            kept.write(chunk)
            if kept.tell() > _MOST_SPOOLED:
                raise InputError(f"{name}: more than {_MOST_SPOOLED >> 30} GiB came out of it and no end")
    except Exception as error:  # whatever a caller's file object raises; a disk that is full
        kept.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: cannot be read to its end ({error})") from error
    source = Source(name, kept)
    weakref.finalize(source, kept.close)
    return source
