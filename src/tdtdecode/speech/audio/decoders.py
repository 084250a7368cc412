"""The libraries that decode recordings: soundfile, and PyAV for what soundfile cannot read."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np

from ...optional import needed
from .sources import Source, View

MEDIA = "m4a, mp4, webm, mkv, aac, amr, ac3, ts, wma and other media"
"""What PyAV is for, in words."""

_BLOCK_VALUES = 1 << 21
"""The most values in a block, over all channels: a header's numbers do not decide how much memory is taken."""
_UNKNOWN_FRAMES = 1 << 61
_HEADERLESS = (".gsm", ".vox", ".vox6", ".vox8", ".au", ".snd")
"""Recordings without a header, which libsndfile knows by these ends of their names alone."""
_BITS = {
    "PCM_S8": 8, "PCM_U8": 8, "ULAW": 8, "ALAW": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64,
}  # fmt: skip
_ARRAYS = ("u8", "s16", "s32", "flt", "dbl")
"""The formats of samples that PyAV makes an array of, as FFmpeg calls them."""
_COMPRESSED = ("FLAC", "OGG", "MP3")

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,loas,latm,amr,amrnb,amrwb,ac3,eac3,dts,dtshd,truehd,mlp,"
    "mpegts,mpeg,asf,avi,flv,live_flv,mp3,ogg,flac,wav,w64,aiff,au,caf,voc,nistsphere,ape,wv,tta,tak,"
    "mpc,mpc8,rm,mxf,gxf,nut,gsm,dsf,shn,qcp,oma,xwma,wtv,dss,spdif,dhav,ilbc"
)
"""The containers that FFmpeg may open. Others are text, images, or playlists, which open further files and URLs."""
_STATE_LENGTH = {"mov": b"", "matroska": rb"\x44\x89[\x84\x88]", "caf": b"", "wv": b"", "tta": b"", "ape": b""}
"""The containers that state a length, and what stands in the header if it does so. For others FFmpeg guesses it.

In Matroska that is the element of the duration (RFC 9559). AVI states a number, which is any number where the length is
not known.
"""
_HEADER_BYTES = 1 << 16
_INEXACT_FRAMES = 2
_INEXACT_SECONDS = 0.05
"""Encoders pad recordings by so many frames, and containers round their lengths."""

_LEAST_AV = (17, 1)
"""Earlier releases of PyAV write beyond an array where FFmpeg finds further streams after it has opened a file."""
_LEAST_AV_TEXT = ".".join(map(str, _LEAST_AV))

opening = threading.Lock()
"""Held while files are opened. No fork happens meanwhile."""
if hasattr(os, "register_at_fork"):
    # soundfile and FFmpeg hold locks while they open a file. A fork would leave them locked in the child.
    os.register_at_fork(
        before=opening.acquire, after_in_parent=opening.release, after_in_child=opening.release
    )  # fmt: skip


class CannotDecode(Exception):
    """A library cannot decode a recording, or not beyond this point; the message says why."""


class Decoder(Protocol):
    """One recording, being decoded.

    Attributes
    ----------
    rate:
        Samples in a second, as the header states.
    frames:
        How many samples each channel has, as the header states; None if it does not.
    tolerance:
        By how many samples that number may be wrong in a sound recording.
    notes:
        Doubts about the recording, each a sentence.
    """

    rate: int
    frames: int | None
    tolerance: int
    notes: list[str]

    def skip(self, count: int) -> int:
        """Leave out the first samples, if that can be done exactly and without decoding them; before `blocks`.

        Returns
        -------
        How many are left out: as many as were asked for, or none.
        """

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The samples, about a second at a time: their rate, and float32 [n, channels].

        Raises
        ------
        CannotDecode
            If the rest cannot be decoded.
        """

    def close(self) -> None:
        """Let go of the library's memory."""


class SoundfileDecoder:
    """A recording decoded by soundfile, from a view or, for recordings without a header, from a file.

    Raises
    ------
    CannotDecode
        If libsndfile does not know the format, or cannot decode the first second.
    MissingDependencyError
        If soundfile is not installed.
    """

    tolerance = 0

    def __init__(self, source: Source, view: View):
        self.notes: list[str] = []
        self._source, self._view = source, view
        self._open()

    def _open(self) -> None:
        soundfile, source, view = import_soundfile(), self._source, self._view
        self._error = soundfile.SoundFileRuntimeError
        view.seek(0)
        with opening:
            try:
                self._file = forward_file(soundfile)(view)
            except soundfile.SoundFileRuntimeError as error:
                if not _is_headerless(source):
                    raise CannotDecode(_reason(error)) from error
                try:
                    self._file = forward_file(soundfile)(source.path)
                except (soundfile.SoundFileRuntimeError, TypeError) as again:
                    raise CannotDecode(_reason(again)) from again
        self.rate: int = self._file.samplerate
        frames = self._file.frames
        self._channels: int = self._file.channels
        self._most = frames
        bits = _BITS.get(self._file.subtype) if self._file.format not in _COMPRESSED else None
        if bits is not None:
            self._most = min(frames, view.size * 8 // (bits * self._channels))
        self._exact = bits is not None or self._file.format == "FLAC"
        guessed = self._file.subtype.startswith("MPEG") and self._file.format != "MP3"
        self.frames = frames if frames < _UNKNOWN_FRAMES and not guessed else None
        self._blocks = self._decoded(self._most)
        self._first = next(self._blocks, None)
        if self._first is None and frames:
            raise CannotDecode("none of its samples can be decoded")

    def skip(self, count: int) -> int:
        decoded = 0 if self._first is None else len(self._first[1])
        if not self._exact or self.frames is None or not decoded <= count < self._most:
            return 0
        try:
            self._file.seek(count)
            self._blocks = self._decoded(self._most - count)
            self._first = next(self._blocks)
            return count
        except (self._error, CannotDecode, StopIteration):  # the way there may be damaged, and all before it sound
            self._file.close()
            self._open()
            return 0

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        if self._first is not None:
            yield self._first
            yield from self._blocks

    def _decoded(self, left: int) -> Iterator[tuple[int, np.ndarray]]:
        size = max(1, min(self.rate, _BLOCK_VALUES // self._channels))
        problem = None
        while left > 0:
            # libsndfile does not say how much it decoded before an error: it is what is no longer NaN.
            out = np.full((min(size, left), self._channels), np.nan, np.float32)
            try:
                block = self._file.read(out=out)
            except self._error as error:
                empty = np.flatnonzero(np.isnan(out[:, 0]))
                block, problem = out[: empty[0]] if len(empty) else out, error
            if not len(block):
                if problem is not None:
                    raise CannotDecode(_reason(problem)) from problem
                return
            left -= len(block)
            yield self.rate, block

    def close(self) -> None:
        self._file.close()


class MediaDecoder:
    """A recording, or the sound of a video, decoded by FFmpeg through PyAV.

    Raises
    ------
    CannotDecode
        If FFmpeg does not know the format, or there is no audio in it.
    MissingDependencyError
        If PyAV is not installed.
    """

    def __init__(self, view: View):
        self._av = import_av()
        self._view = view
        # No protocol is allowed, so that nothing but the view is opened.
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        try:
            with opening:
                self._container = self._av.open(view, options=options, metadata_errors="ignore")
        except (self._av.FFmpegError, ValueError) as error:
            raise CannotDecode(getattr(error, "strerror", None) or str(error)) from error
        try:
            self._stream = self._container.streams.best("audio")
            if self._stream is None or self._stream.codec_context is None:
                raise CannotDecode("there is no audio in it that FFmpeg decodes")
            self._stream.codec_context.thread_count = 1  # threads of a pool do not survive a fork
            self.rate = int(self._stream.codec_context.sample_rate or 0)
            self.frames = self._stated_frames()
            inexact = _INEXACT_FRAMES * (self._stream.codec_context.frame_size or 0)
            self.tolerance = max(inexact, int(_INEXACT_SECONDS * self.rate))
            self.notes = []
            self._packer: tuple[Any, Any] = None, None
            self._blocks = self._decoded()
            self._first = next(self._blocks, None)
            if self._first is None:
                raise CannotDecode("none of its samples can be decoded")
            if (count := len(self._container.streams.audio)) > 1:
                self.notes.append(f"it has {count} audio tracks, of which one is read")
        except BaseException:
            self._container.close()
            raise

    def _stated_frames(self) -> int | None:
        marks = [_STATE_LENGTH[name] for name in self._container.format.name.split(",") if name in _STATE_LENGTH]
        if not marks or not re.search(marks[0], self._view.head(_HEADER_BYTES), re.DOTALL):
            return None
        stream, container = self._stream, self._container
        if stream.duration:
            return int(stream.duration * stream.time_base * self.rate)
        alone = len(container.streams) == 1  # else the picture may be longer than the sound
        return int(container.duration * self.rate // self._av.time_base) if alone and container.duration else None

    def skip(self, count: int) -> int:
        return 0  # FFmpeg seeks to some frame nearby

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        assert self._first is not None
        yield self._first
        yield from self._blocks

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        waiting: list[np.ndarray] = []
        rate, channels, size = 0, 0, 0
        problem = None
        frames = self._frames()
        while problem is None:
            try:
                frame = next(frames, None)
            except CannotDecode as error:
                frame, problem = None, error
            samples = _values(self._packed(frame)) if frame is not None else np.zeros((0, 0), np.float32)
            if waiting and (frame is None or (frame.sample_rate, samples.shape[1]) != (rate, channels) or size >= rate):
                yield rate, np.concatenate(waiting)
                waiting, size = [], 0
            if frame is None:
                break
            rate, channels = frame.sample_rate, samples.shape[1]
            waiting.append(samples)
            size += len(samples)
        if problem is not None:
            raise problem

    def _packed(self, frame: Any) -> Any:
        """A frame that PyAV makes an array of.

        It reads beyond the end of a frame that has 8 planes or more, and knows no whole numbers of 64 bits.
        """
        if frame.format.packed.name in _ARRAYS and (frame.layout.nb_channels < 8 or not frame.format.is_planar):
            return frame
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._packer[0]:
            self._packer = kind, self._av.AudioResampler(format="flt")
        frame.pts = None
        return self._packer[1].resample(frame)[0]

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        bad, reached = 0, -1
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except self._av.BlockingIOError as error:  # "try again": what it found was no part of the recording
                if self._view.tell() <= reached:
                    raise CannotDecode(error.strerror) from error
                reached = self._view.tell()
                packets = self._container.demux(self._stream)
                continue
            except self._av.FFmpegError as error:
                raise CannotDecode(error.strerror) from error
            except IndexError as error:  # FFmpeg found another stream after PyAV had listed them
                raise CannotDecode("a stream begins in its middle") from error
            try:
                yield from packet.decode()
                bad += packet.is_corrupt
            except self._av.EOFError:
                break
            except self._av.FFmpegError:
                bad += 1
        if bad:
            self.notes.append(f"{bad} of its packets {'is' if bad == 1 else 'are'} damaged")

    def close(self) -> None:
        self._container.close()


def import_soundfile() -> Any:
    """The module soundfile.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or cannot be imported.
    """
    with needed("soundfile", "cpu", "reading audio files"):
        import soundfile
    return soundfile


def import_av() -> Any:
    """The module av.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or cannot be imported.
    """
    with needed("av", "media", f"reading {MEDIA}"):
        import av

        if tuple(map(int, re.findall(r"\d+", av.__version__)[:2])) < _LEAST_AV:
            raise ImportError(f"version {av.__version__} crashes on some files; expected {_LEAST_AV_TEXT} or newer")
    return av


def libavformat_version() -> str:
    """The version of FFmpeg's libavformat in PyAV; errors as `import_av`."""
    import_av()
    from av import library_versions

    return ".".join(map(str, library_versions["libavformat"]))


def forward_file(soundfile: Any) -> Any:
    """soundfile's class for reading from the beginning to the end.

    It would seek after each block, which fails after the last one of a FLAC file without a length, and would stop where
    the header says that the recording ends.
    """
    return type("ForwardFile", (soundfile.SoundFile,), {"seekable": lambda self: False})


def _is_headerless(source: Source) -> bool:
    return source.path is not None and PurePath(os.fsdecode(source.path)).suffix.lower() in _HEADERLESS


def _reason(error: Exception) -> str:
    """What libsndfile says, without what soundfile puts before it."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")


def _values(frame: Any) -> np.ndarray:
    """The samples of one of FFmpeg's frames, of fewer than 8 planes, float32 [n, channels]."""
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype == np.uint8:
        return ((array.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(array.dtype, np.integer):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    return array.astype(np.float32)
