"""Audio while it comes: from a pipe, or from a microphone."""

from __future__ import annotations

import os
import queue
import struct
import threading
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import numpy as np

from ...errors import DeviceError, InputError, MissingDependencyError
from ...optional import needed
from .decoders import FORMATS, MEDIA, forward_file, import_av, import_soundfile, opening
from .features import SAMPLE_RATE

_PIECE_SECONDS = 0.05
_FIRST_BYTES = 4096
"""What FFmpeg looks at to find out what a pipe brings."""
_LEAST_BYTES = 44
_PIPE_BYTES = 4096
"""Read at once: a tenth of a second of PCM, or less."""


def piped(source: BinaryIO, name: str) -> Generator[tuple[int, np.ndarray]]:
    """The samples of a recording that comes through a pipe, as they come.

    soundfile reads them where libsndfile can do that without going back: WAV, AU, Ogg, MP3. PyAV reads the rest: FLAC,
    media, and WAV whose header states no length.

    Parameters
    ----------
    source:
        A binary stream; it is read as it comes.
    name:
        What messages call it.

    Yields
    ------
    The rate in Hz, and float32 [n, channels], about 50 ms at a time.

    Raises
    ------
    InputError
        If it is no recording, or none that can be read from a pipe.
    MissingDependencyError
        If the package that is needed is not installed.
    """
    first = b""
    while len(first) < _FIRST_BYTES and not _has_header(first):
        more = _read(source, _FIRST_BYTES - len(first))
        if not more:
            break
        first += more
    if not first:
        return
    if _is_for_soundfile(first):
        yield from _with_soundfile(first, source, name)
    else:
        yield from _with_av(first, source, name)


def _has_header(first: bytes) -> bool:
    """Whether the first bytes tell the format; for a WAV, also whether it states a length."""
    return _stated_bytes(first) is not None if _is_wav(first) else len(first) >= _LEAST_BYTES


def _is_wav(first: bytes) -> bool:
    return first[:4] in (b"RIFF", b"RIFX") and (len(first) < 12 or first[8:12] == b"WAVE")


def _stated_bytes(first: bytes) -> int | None:
    """How many bytes of samples the header of a WAV states; None if these bytes do not reach so far."""
    place = first.find(b"data", 12)
    if place < 0 or len(first) < place + 8:
        return None
    return int(struct.unpack_from("<I" if first[:4] == b"RIFF" else ">I", first, place + 4)[0])


def _is_for_soundfile(first: bytes) -> bool:
    if _is_wav(first):
        return _stated_bytes(first) != 0  # libsndfile believes recorders that write 0 where they do not know the length
    is_mpeg = len(first) > 1 and first[0] == 0xFF and first[1] & 0xE0 == 0xE0
    return first[:4] in (b".snd", b"OggS") or first[:3] == b"ID3" or is_mpeg


def _read(source: BinaryIO, count: int) -> bytes:
    """What there is by now, at most so many bytes; empty at the end."""
    reader = getattr(source, "read1", source.read)
    return reader(count) or b""


def _with_soundfile(first: bytes, source: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    soundfile = import_soundfile()
    into, out = _passed_on(first, source)
    try:
        try:
            file = forward_file(soundfile)(into)
        except soundfile.SoundFileRuntimeError as error:
            raise InputError(f"{name}: not a recording that can be read from a pipe ({error})") from error
        with file:
            if not file.frames:
                raise InputError(f"{name}: its header states that there is no audio in it")
            piece = np.empty((max(int(file.samplerate * _PIECE_SECONDS), 1), file.channels), np.float32)
            while len(block := file.read(out=piece)):
                yield file.samplerate, block.copy()
    finally:
        out.close()


_pipes: set[int] = set()
"""The ends into which senders write. Whoever reads waits for the end of all copies of them."""


def _close_inherited_pipes() -> None:
    while _pipes:
        os.close(_pipes.pop())


if hasattr(os, "register_at_fork"):
    # The thread that writes does not exist in the child. The child's copy would keep the pipe open as long as it lives.
    os.register_at_fork(after_in_child=_close_inherited_pipes)


class _Sender:
    """Passes on what a stream brings to a pipe, whose other end libsndfile reads."""

    def __init__(self, first: bytes, source: BinaryIO, pipe: int):
        self._source, self._pipe, self._first = source, pipe, first
        self._closed = False
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        try:
            block = self._first
            while block and not self._closed:
                while block:
                    block = block[os.write(self._pipe, block) :]
                block = _read(self._source, _PIPE_BYTES)
        except (OSError, ValueError):  # the reader has gone, or the stream was closed
            pass
        finally:
            with opening:
                _pipes.discard(self._pipe)
                os.close(self._pipe)

    def close(self) -> None:
        self._closed = True


def _passed_on(first: bytes, source: BinaryIO) -> tuple[int, _Sender]:
    with opening:
        into, out = os.pipe()
        _pipes.add(out)
    return into, _Sender(first, source, out)


class _Reader:
    """What PyAV reads: the first bytes, and then what comes."""

    def __init__(self, first: bytes, source: BinaryIO):
        self._first, self._source = first, source

    def read(self, count: int) -> bytes:
        if self._first:
            found, self._first = self._first[:count], self._first[count:]
            return found
        return _read(self._source, count)


def _with_av(first: bytes, source: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    try:
        av = import_av()
    except MissingDependencyError as error:
        raise InputError(
            f"{name}: cannot be read from a pipe by soundfile; {MEDIA}, FLAC and WAV without a length need the package "
            "'av' there: pip install 'tdtdecode[media]'"
        ) from error
    options = {
        "format_whitelist": FORMATS, "protocol_whitelist": "none", "probesize": str(_FIRST_BYTES),
        "analyzeduration": "0",
    }  # fmt: skip
    try:
        container = av.open(_Reader(first, source), options=options, metadata_errors="ignore", buffer_size=_PIPE_BYTES)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{name}: not a recording that can be read from a pipe ({error})") from error
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise InputError(f"{name}: there is no audio in it that FFmpeg decodes")
        stream.codec_context.thread_count = 1
        side_by_side = av.AudioResampler(format="flt")
        try:
            for frame in container.decode(stream):
                frame.pts = None
                for packed in side_by_side.resample(frame):
                    yield packed.sample_rate, packed.to_ndarray().reshape(-1, packed.layout.nb_channels)
        except av.EOFError:
            return
        except (av.FFmpegError, IndexError) as error:  # PyAV fails on packets of streams that come late
            raise InputError(f"{name}: cannot be decoded to its end ({error})") from error


def microphone(device: int | str | None = None) -> Generator[tuple[int, np.ndarray]]:
    """What a microphone hears, until the iterator is closed.

    Parameters
    ----------
    device:
        The microphone's number or a part of its name, as sounddevice lists them; None: the system's default.

    Yields
    ------
    The rate in Hz, and float32 [n, 1], about 50 ms at a time.

    Raises
    ------
    DeviceError
        If there is no such microphone, or it cannot be opened.
    MissingDependencyError
        If sounddevice is not installed, or the library PortAudio is not.
    """
    try:
        with needed("sounddevice", "mic", "listening to a microphone"):
            import sounddevice
    except OSError as error:  # sounddevice is installed without PortAudio
        raise MissingDependencyError("sounddevice", "mic", "listening to a microphone", str(error)) from error
    pieces: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def heard(block: Any, *_: Any) -> None:
        pieces.put(block.copy())

    def opened(rate: int) -> Any:
        return sounddevice.InputStream(
            rate, max(int(rate * _PIECE_SECONDS), 1), device, 1, "float32", callback=heard
        )  # fmt: skip

    try:
        try:
            stream, rate = opened(SAMPLE_RATE), SAMPLE_RATE
        except sounddevice.PortAudioError:  # many microphones have one rate alone
            rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
            stream = opened(rate)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise DeviceError(f"no microphone can be opened ({error})") from error
    with stream:
        while True:
            yield rate, pieces.get()
