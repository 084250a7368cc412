"""Recordings as mono float32 samples at the rate a model wants."""

from __future__ import annotations

import logging
import os
import struct
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...errors import InputError, MissingDependencyError

Audio: TypeAlias = str | PathLike[str] | tuple[Any, int]
"""A recording: the path of an audio file, or (samples, rate in Hz)."""

_EXPECTED = "expected a recording as WAV, FLAC, OGG or MP3"
_LOUDEST = 2.0**31
"""The largest sample accepted. Integer PCM that was converted to float without scaling stays below it, and the powers
in the features stay far below the end of float32."""
_UNKNOWN_SIZE = 0x7FFF0000
"""Programs that write WAV to a pipe do not know its size. They put 0 or a number from here up into the header."""
_MOST_CHANNELS = 256
_BLOCK_FRAMES = 1 << 20

_log = logging.getLogger(__name__)


def read_audio(path: str | PathLike[str], sample_rate: int = 16000) -> np.ndarray:
    """Read an audio file: the mean of its channels, resampled.

    Parameters
    ----------
    path:
        A WAV, FLAC, OGG or MP3 file (or another format of libsndfile).
    sample_rate:
        Rate wanted, in Hz.

    Returns
    -------
    numpy.ndarray
        float32 [n]; empty for a recording without samples.

    Raises
    ------
    InputError
        If there is no such file, or it is not a recording, is cut short, or holds NaN or infinity. The message starts
        with the path. MP3 and OGG files have no reliable length: one that is cut short is decoded as far as it goes,
        and a warning is logged if its header promises more samples or the end of its stream is missing.
    MissingDependencyError
        If soundfile is not installed, or soxr is not and the file's rate has to be changed.
    """
    with _open(path) as file:
        rate = file.samplerate
        try:
            samples = _read_mono(file)
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be decoded to its end ({error}); it may be damaged") from error
        if len(samples) < file.frames:
            if file.format != "MP3":
                raise InputError(f"{path}: cut short: {len(samples)} samples where its header promises {file.frames}")
            _log.warning("%s: %d samples where its header promises %d", path, len(samples), file.frames)
        if file.format == "OGG" and not _ends_ogg_stream(Path(path)):
            _log.warning("%s: the end of its OGG stream is missing", path)
    _check_values(samples, path)
    return _resample(samples, rate, sample_rate)


def audio_seconds(audio: Audio) -> float:
    """Length of a recording in seconds. A file's header tells it, so nothing is decoded.

    Raises
    ------
    InputError
        As for `read_audio` and `as_samples`, as far as an error shows without decoding.
    MissingDependencyError
        If a file is given and soundfile is not installed.
    """
    if isinstance(audio, (str, PathLike)):
        with _open(audio) as file:
            return file.frames / file.samplerate
    samples, rate = _pair(audio)
    return len(samples) / rate


def as_samples(audio: Audio, sample_rate: int = 16000) -> np.ndarray:
    """Samples of a recording given as a path or as (array, rate).

    Parameters
    ----------
    audio:
        The path of an audio file (see `read_audio`), or (array, rate in Hz). The array is [n] or [n, channels] and
        holds floats around -1 to 1, or int16 or int32 PCM, which is scaled to that range.
    sample_rate:
        Rate wanted, in Hz.

    Returns
    -------
    numpy.ndarray
        float32 [n], the mean of the channels.

    Raises
    ------
    InputError
        If the array's dtype, shape or values are none of these, or the rate is not a positive integer. For a path, as
        `read_audio`.
    MissingDependencyError
        As for `read_audio`.
    """
    if isinstance(audio, (str, PathLike)):
        return read_audio(audio, sample_rate)
    array, rate = _pair(audio)
    samples = _to_float32(array)
    if samples.ndim == 2:
        samples = samples.mean(axis=1, dtype=np.float32)
    _check_values(samples, "audio")
    return _resample(samples, rate, sample_rate)


def _open(path: str | PathLike[str]) -> Any:
    """Open an audio file with soundfile."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: soundfile is installed without its library libsndfile
        raise MissingDependencyError("soundfile", "cpu", "reading audio files") from error
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file; {_EXPECTED}")
    if not os.path.isfile(path):
        raise InputError(f"{path}: not a file; {_EXPECTED}")
    try:
        file = soundfile.SoundFile(os.fspath(path))
    except (RuntimeError, TypeError, OSError) as error:  # TypeError: soundfile knows a headerless format by its suffix
        raise InputError(f"{path}: not a recording that can be read ({error}); {_EXPECTED}") from error
    if file.format == "WAV" and (missing := _missing_wav_bytes(Path(path))):
        file.close()
        raise InputError(f"{path}: cut short: it has {missing} bytes of samples fewer than its header promises")
    return file


def _missing_wav_bytes(path: Path) -> int:
    """How many bytes a RIFF file's data chunk lacks. libsndfile reads what is there and says nothing."""
    with path.open("rb") as file:
        riff = file.read(12)
        order = {b"RIFF": "<", b"RIFX": ">"}.get(riff[:4])
        while order and len(header := file.read(8)) == 8:
            name, size = struct.unpack(f"{order}4sI", header)
            if name == b"data":
                missing = size - (os.fstat(file.fileno()).st_size - file.tell())
                return missing if 0 < missing and size < _UNKNOWN_SIZE else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _ends_ogg_stream(path: Path) -> bool:
    """Whether the last page of an OGG file is marked as the last (RFC 3533: the third bit of its flags)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        tail = file.read()
    flags = tail.rfind(b"OggS") + 5
    return 5 <= flags < len(tail) and bool(tail[flags] & 4)


def _read_mono(file: Any) -> np.ndarray:
    """Decode block by block to the mean of the channels, so that many channels need no more memory than one."""
    blocks = []
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _pair(audio: object) -> tuple[np.ndarray, int]:
    """Check an (array, rate) input for everything but its values."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise InputError(f"audio must be the path of a file or (samples, rate), got {type(audio).__name__}")
    array, rate = np.asarray(audio[0]), audio[1]
    if isinstance(rate, bool) or not isinstance(rate, Integral) or rate <= 0:
        raise InputError(f"audio: the sample rate must be a positive integer (Hz), got {rate!r}")
    if array.dtype not in (np.float16, np.float32, np.float64, np.int16, np.int32):
        raise InputError(f"audio: samples must be float32, or int16 or int32 PCM, got {array.dtype}")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise InputError(f"audio: samples must be [n] or [n, channels], got shape {list(array.shape)}")
    if array.ndim == 2 and array.shape[1] > _MOST_CHANNELS:
        raise InputError(f"audio: samples must be [n, channels], got shape {list(array.shape)}: transpose the array")
    return array, int(rate)


def _to_float32(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.integer):
        full_scale = -float(np.iinfo(array.dtype).min)
        return (array / full_scale).astype(np.float32)
    return array.astype(np.float32, copy=False)


def _check_values(samples: np.ndarray, name: object) -> None:
    # NaN fails the comparison too.
    if len(samples) and not np.abs(samples).max() <= _LOUDEST:
        raise InputError(f"{name}: samples must be finite and around -1 to 1, found NaN, infinity or a huge number")


def _resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted or not len(samples):
        return samples
    try:
        import soxr
    except ImportError as error:
        raise MissingDependencyError("soxr", "cpu", f"resampling from {rate} Hz to {wanted} Hz") from error
    return soxr.resample(samples, rate, wanted, quality="HQ")
