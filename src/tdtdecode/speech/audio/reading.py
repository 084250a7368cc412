"""Recordings as mono float32 samples at the rate a model wants."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterable
from numbers import Integral
from os import PathLike
from typing import Any, TypeAlias

import numpy as np

from ...arguments import as_integer, as_number, refusal, shown
from ...cancellation import checkpoint
from ...errors import AudioWarning, InputError, MissingDependencyError, TdtDecodeError
from ...optional import needed
from .containers import Statement, statements, without_tags
from .decoders import CannotDecode, Decoder, MediaDecoder, SoundfileDecoder
from .mixing import Mixer
from .sources import EXPECTED, File, Segment, Source, View, is_file, opened

Audio: TypeAlias = File | Segment | tuple[Any, int]
"""A recording: the path of an audio file, its bytes, a binary file object, a part of one of these, or (samples, rate in
Hz)."""

_RECORDING = "a recording: a path, bytes, a binary file object, or (samples, rate in Hz)"
_LOUDEST = 2.0**31
"""The largest sample accepted. Integer PCM that was converted to float without scaling stays below it, and the powers
in the features stay far below the end of float32."""
_MOST_CHANNELS = 256
_FEW_CHANNELS = 32
"""So many channels an array may have if it has fewer samples than channels. With more it is the wrong way round."""
_LEAST_BYTES = 1 << 12
"""So many bytes hold a sample of any kind."""
_FLAC = b"fLaC"
_SHORTER = 0.1
"""So many seconds a segment may lack without a warning: lists of recordings round their times."""
_LIVE_SECONDS = 0.1
_RATES = (1_000, 1_000_000)
"""The rates accepted, in Hz. A lower one, in a header that is wrong, would be resampled to a huge recording."""


def read_audio(
    path: File | Source | Segment, sample_rate: int = 16000, most_seconds: float | None = None
) -> np.ndarray:
    """Read a recording: the mean of its channels, resampled.

    What is there is read, whatever the header says of its length. A doubt gives one `AudioWarning`, which names the
    recording: the header states another length than there is, the rest cannot be decoded, the end is missing, the
    channels cancel each other (then one of them is taken instead of their mean).

    Parameters
    ----------
    path:
        WAV, FLAC, OGG, MP3 or another format of libsndfile; with the extra ``[media]`` also m4a, mp4, webm, mkv, aac
        and what else FFmpeg reads, videos among them. The path of a file or a pipe, the bytes, or a binary file object,
        which is read from its beginning. Or a `Segment` of one of these.
    sample_rate:
        Rate wanted, in Hz.
    most_seconds:
        A longer recording is refused as soon as so much of it has been decoded, whatever its header says; None: there
        is no limit.

    Returns
    -------
    numpy.ndarray
        float32 [n]; empty for a recording without samples.

    Raises
    ------
    InputError
        If there is no such file, or it is no recording, none of it can be decoded, its rate is not between 1 kHz and
        1 MHz, or it holds NaN or infinity, or it ends before the segment begins, or it is too long. The message starts
        with the path.
    MissingDependencyError
        If soundfile is not installed, or soxr is not and the recording's rate has to be changed.
    """
    sample_rate = checked_sample_rate(sample_rate)
    most_seconds = _checked_most(most_seconds)
    if isinstance(path, Segment):
        with opened(path.audio) as source:
            return _read_segment(source, sample_rate, path, most_seconds)
    if not is_file(path):
        raise refusal("path", "a recording: a path, bytes or a binary file object", path, "as_samples takes arrays")
    with opened(path) as source:
        return _read(source, sample_rate, most_seconds)


def _checked_most(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    return as_number("most_seconds", seconds, "a number of seconds above 0, or None", above=0)


def audio_seconds(audio: Audio) -> float:
    """Length of a recording in seconds.

    Nothing is decoded where the header states the length. That may be wrong; `read_audio` warns of it. A `Segment` that
    has a duration is not even opened.

    Raises
    ------
    InputError
        As for `read_audio` and `as_samples`, as far as an error shows without decoding.
    MissingDependencyError
        If a file is given and soundfile is not installed.
    """
    if isinstance(audio, Segment):
        if audio.duration is not None:
            return audio.duration
        with opened(audio.audio) as source:
            return max(0.0, _seconds(source) - audio.start)
    if not is_file(audio):
        samples, rate = _pair(audio)
        return len(samples) / rate
    with opened(audio) as source:
        return _seconds(source)


def check_audio(name: str, audio: object) -> None:
    """Raise an `InputError` unless something is a recording, as far as can be told without opening a file."""
    if not is_file(audio) and not isinstance(audio, Segment):
        _pair(audio, name)


def is_recording(path: File) -> bool:
    """Whether a file holds a recording that can be read here, whatever its name. Its first second is decoded."""
    try:
        with opened(path) as source, contextlib.closing(_decoders(source)) as found:
            return next(found, None) is not None
    except TdtDecodeError:
        return False


def as_samples(audio: Audio, sample_rate: int = 16000, most_seconds: float | None = None) -> np.ndarray:
    """Samples of a recording given as a file or as (array, rate).

    Parameters
    ----------
    audio:
        A path, bytes, file object or `Segment` (see `read_audio`), or (array, rate in Hz). The array is [n] or [n,
        channels] and holds floats around -1 to 1, or int16 or int32 PCM, which is scaled to that range, in either byte
        order.
    sample_rate:
        Rate wanted, in Hz.
    most_seconds:
        A longer recording is refused, as by `read_audio`; None: there is no limit.

    Returns
    -------
    numpy.ndarray
        float32 [n], the mean of the channels; one channel, with an `AudioWarning`, where they cancel each other.

    Raises
    ------
    InputError
        If the array's dtype, shape or values are none of these, or the rate is no whole number from 1 kHz to 1 MHz. For
        a file, as `read_audio`.
    MissingDependencyError
        As for `read_audio`.
    """
    sample_rate = checked_sample_rate(sample_rate)
    most_seconds = _checked_most(most_seconds)
    if isinstance(audio, Segment) or is_file(audio):
        return read_audio(audio, sample_rate, most_seconds)
    assembly = Assembly("audio", sample_rate, most_seconds=most_seconds)
    assembly.add_array(audio)
    found = assembly.samples()
    assembly.warn([])
    return found


class Assembly:
    """A recording put together from blocks: mixed, checked and resampled as they come.

    Parameters
    ----------
    name:
        What messages call the recording.
    sample_rate:
        The rate wanted, in Hz.
    live:
        Whether someone waits for the samples: several channels are mixed in shorter pieces then.
    most_seconds:
        More is refused; None: there is no limit.
    """

    def __init__(self, name: str, sample_rate: int, live: bool = False, most_seconds: float | None = None):
        self.name = name
        self._most_seconds = most_seconds
        self._counts: dict[int, int] = {}
        self._wanted = sample_rate
        self._mix = Mixer(_LIVE_SECONDS) if live else Mixer()
        self._rate = sample_rate
        self._resampler: Any = None
        self._parts: list[np.ndarray] = []

    @property
    def seconds(self) -> float:
        """How much has come so far."""
        return sum(count / rate for rate, count in self._counts.items())

    def add_array(self, audio: object) -> None:
        """Add (samples, rate) as `as_samples` takes them.

        Raises
        ------
        InputError
            As `as_samples`. Nothing of it has been added then.
        """
        array, rate = _pair(audio)
        samples = _to_float32(array).reshape(-1, 1 if array.ndim == 1 else array.shape[1])
        blocks = [samples[start : start + rate] for start in range(0, len(samples), rate)]
        for block in blocks:
            self._check(block)
        for block in blocks:
            self.add(block, rate)

    def add(self, block: np.ndarray, rate: int) -> None:
        """Add samples float32 [n, channels] of that rate."""
        checkpoint()
        if rate != self._rate:
            self._finish()
            self._rate = _checked_rate(rate, self.name)
            self._resampler = None if rate == self._wanted else _resampler(rate, self._wanted)
        elif self._mix.channels not in (None, block.shape[1]):
            self._take(self._mix.rest())
        self._take(self._mix(block, rate))
        self._counts[rate] = self._counts.get(rate, 0) + len(block)
        if self._most_seconds is not None and self.seconds > self._most_seconds:
            raise InputError(f"{self.name}: is longer than {self._most_seconds:g} s, the most that is taken here")

    def _take(self, samples: np.ndarray) -> None:
        """Resample what was mixed."""
        self._check(samples)
        self._parts.append(samples if self._resampler is None else self._resampler.resample_chunk(samples))

    def _check(self, samples: np.ndarray) -> None:
        if samples.size and not np.abs(samples).max() <= _LOUDEST:  # NaN fails the comparison too
            raise InputError(
                f"{self.name}: samples must be finite and around -1 to 1, found NaN, infinity or a huge number"
            )

    def samples(self) -> np.ndarray:
        """The whole, or what came since `taken`; float32 [n]."""
        self._finish()
        return self.taken()

    def taken(self) -> np.ndarray:
        """The samples that are there by now, float32 [n]. They are not kept here any longer."""
        parts, self._parts = self._parts or [np.zeros(0, np.float32)], []
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def warn(self, doubts: list[str]) -> None:
        """Say once what is doubtful about the recording."""
        if (cancelled := self._mix.cancelled_seconds) and self._mix.channel is not None:
            doubts = [
                *doubts,
                f"its channels cancel each other in {cancelled:.2f} s: there channel {self._mix.channel + 1} is taken "
                "instead of their mean",
            ]
        if doubts:
            text = f"{self.name}: {'; '.join(doubts)}; {self.seconds:.2f} s are read"
            warnings.warn(text, AudioWarning, stacklevel=4)

    def _finish(self) -> None:
        """Get the samples that the mixer and the resampler still hold."""
        self._take(self._mix.rest())
        if self._resampler is not None:
            self._parts.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None


def _read(source: Source, sample_rate: int, most_seconds: float | None) -> np.ndarray:
    """Decode a recording."""
    assembly = Assembly(source.name, sample_rate, most_seconds=most_seconds)
    doubts: list[str] = []
    for statement, view, decoder in _decoders(source):
        seconds, problem = 0.0, None
        try:
            for rate, block in decoder.blocks():
                assembly.add(block, rate)
                seconds += len(block) / rate
        except CannotDecode as error:
            problem = str(error)
        _check_failure(view)
        doubts += _doubts(statement, decoder, round(seconds * decoder.rate), problem)
    samples = assembly.samples()
    if doubts and not assembly.seconds:
        raise InputError(f"{source.name}: no audio can be read from it: {'; '.join(doubts)}")
    assembly.warn(doubts)
    return samples


def _seconds(source: Source) -> float:
    """The length of a recording."""
    total = 0.0
    for statement, view, decoder in _decoders(source):
        frames = decoder.frames
        stated = None if statement.wrong or statement.unit == "bytes" else statement.stated
        if frames is None and isinstance(stated, int):
            frames = stated * decoder.rate // (statement.rate or decoder.rate)
        if frames is None:
            with contextlib.suppress(CannotDecode):
                for rate, block in decoder.blocks():
                    total += len(block) / rate
        else:
            total += frames / decoder.rate
        _check_failure(view)
    return total


def _read_segment(source: Source, sample_rate: int, segment: Segment, most_seconds: float | None) -> np.ndarray:
    """Decode a part of a recording, or what there is of it. Its samples are counted as NeMo does, by rounding down."""
    found = _read_sought(source, sample_rate, segment, most_seconds)
    if found is not None:
        return found
    assembly = Assembly(source.name, sample_rate, most_seconds=most_seconds)
    doubts: list[str] = []
    end = None if segment.duration is None else segment.start + segment.duration
    reached = 0.0
    for statement, view, decoder in _decoders(source):
        rate = decoder.rate
        first = max(0, int((segment.start - reached) * rate))
        stop = None if end is None else int((end - reached) * rate)
        if segment.duration is not None and segment.start >= reached:
            stop = first + int(segment.duration * rate)
        at, problem = decoder.skip(first), None
        try:
            for block_rate, block in decoder.blocks():
                low, high = max(first - at, 0), len(block) if stop is None else stop - at
                if low < min(high, len(block)):
                    assembly.add(block[low:high], block_rate)
                at += len(block)
                if stop is not None and at >= stop:
                    break
        except CannotDecode as error:
            problem = str(error)
        _check_failure(view)
        reached += at / rate
        if stop is not None and at >= stop:
            break
        doubts += _doubts(statement, decoder, at, problem)
    samples = assembly.samples()
    if not assembly.seconds and (segment.start or doubts):
        why = f"; {'; '.join(doubts)}" if doubts else ""
        raise InputError(f"{source.name}: it ends at {reached:.2f} s, before the part {segment.times} begins{why}")
    if end is not None and reached < end - _SHORTER:
        doubts.append(f"it ends at {reached:.2f} s, before the part {segment.times} does")
    assembly.warn(doubts)
    return samples


def _read_sought(
    source: Source, sample_rate: int, segment: Segment, most_seconds: float | None
) -> np.ndarray | None:
    """Decode a part of a FLAC file that its header says is there; None if that is another file, or it is not there.

    To read FLAC to its end, all of it has to be looked at: others may be joined to it, and its header may be wrong.
    """
    source = without_tags(source)
    if segment.duration is None or source.read(0, len(_FLAC)) != _FLAC:
        return None
    view = View(source, [(0, source.size)])
    try:
        decoder = SoundfileDecoder(source, view)
    except CannotDecode:
        _check_failure(view)
        return None
    with contextlib.closing(decoder):
        first, count = int(segment.start * decoder.rate), int(segment.duration * decoder.rate)
        if decoder.frames is None or first + count > decoder.frames:
            return None
        assembly = Assembly(source.name, sample_rate, most_seconds=most_seconds)
        at, left = decoder.skip(first), count
        try:
            for rate, block in decoder.blocks():
                part = block[max(first - at, 0) :][:left]
                at += len(block)
                left -= len(part)
                if len(part):
                    assembly.add(part, rate)
                if not left:
                    break
        except CannotDecode:
            pass
        _check_failure(view)
        if left:
            return None
    found = assembly.samples()
    assembly.warn([])
    return found


def _decoders(source: Source) -> Generator[tuple[Statement, View, Decoder]]:
    """What decodes a recording, or each of several that are joined end to end.

    soundfile comes first. What it cannot read, PyAV may.
    """
    source = without_tags(source)
    found = statements(source)
    for number, statement in enumerate(found, 1):
        view = View(source, statement.pieces)
        try:
            decoder: Decoder = SoundfileDecoder(source, view)
        except CannotDecode as error:
            _check_failure(view)
            if number == 1:
                whole = Statement([(0, source.size)], notes=[note for part in found for note in part.notes])
                yield from _media(source, statement if len(found) == 1 else whole, str(error))
                return
            statement.notes.append(f"the recording that is joined to it as number {number} cannot be read ({error})")
            continue
        with contextlib.closing(decoder):
            yield statement, view, decoder


def _media(source: Source, statement: Statement, problem: str) -> Generator[tuple[Statement, View, Decoder]]:
    """PyAV for a recording that soundfile cannot read; ``problem`` says why."""
    view = View(source, statement.pieces)
    wanted = EXPECTED
    try:
        decoder = MediaDecoder(view)
    except MissingDependencyError as missing:
        cause: Exception = missing
        wanted += f"; {missing}"
    except CannotDecode as error:
        cause = error
        problem += f"; FFmpeg: {error}"
    else:
        with contextlib.closing(decoder):
            yield statement, view, decoder
        return
    _check_failure(view)
    problem = "; ".join([problem, *statement.notes])
    raise InputError(f"{source.name}: not a recording that can be read ({problem}); {wanted}") from cause


def _check_failure(view: View) -> None:
    """Raise what reading the bytes raised: to the decoder it was the end of the recording."""
    if view.failure is not None:
        raise view.failure


def _doubts(statement: Statement, decoder: Decoder, count: int, problem: str | None) -> list[str]:
    """What is doubtful about a recording of which ``count`` samples were decoded, until ``problem``."""
    doubts = []
    stated = decoder.frames if statement.stated == "decoder" else statement.stated
    there = statement.there or 0
    if statement.unit == "bytes" and stated != there:
        if stated is not None and (count or stated):
            seconds = count / decoder.rate * stated / max(there, 1)
            doubts.append(f"its header states {stated:,} bytes of audio ({seconds:.2f} s), the file has {there:,}")
        stated = None
    elif statement.unit == "bytes" and not count and there >= _LEAST_BYTES:
        doubts.append(f"none of its {there:,} bytes of audio can be decoded")
    elif stated is not None:
        if statement.unit == "bytes":
            stated = count if decoder.frames is None else decoder.frames
        else:
            stated = stated * decoder.rate // (statement.rate or decoder.rate)
        if abs(stated - count) > max(decoder.tolerance, statement.tolerance):
            seconds = stated / decoder.rate
            doubts.append(f"its header states {stated:,} samples ({seconds:.2f} s), the file has {count:,}")
    if problem is not None and (stated is None or count < stated):
        doubts.append(f"it cannot be decoded to its end ({problem})")
    return [*doubts, *statement.notes, *decoder.notes]


def _pair(audio: object, name: str = "audio") -> tuple[np.ndarray, int]:
    """Check an (array, rate) input for everything but its values."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise refusal(name, _RECORDING, audio, _advice(audio))
    if isinstance(audio[0], (str, PathLike)):
        raise refusal(name, _RECORDING, audio, _advice(audio))
    rate = audio[1]
    if isinstance(rate, bool) or not isinstance(rate, Integral) or rate <= 0:
        swapped = f"{name}: the order is (samples, rate)" if isinstance(audio[0], Integral) else ""
        raise refusal(f"{name}: the sample rate", "a positive integer (Hz)", rate, swapped)
    try:
        array = np.asarray(audio[0])
    except Exception as error:  # a list of unequal lists; an array on a GPU, whose package has errors of its own
        raise InputError(f"{name}: samples must be an array; {type(audio[0]).__name__} is not ({error})") from error
    if array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64, np.int16, np.int32):
        raise InputError(f"{name}: samples must be float32, or int16 or int32 PCM, got {array.dtype}")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise InputError(f"{name}: samples must be [n] or [n, channels], got shape {list(array.shape)}")
    most = _MOST_CHANNELS if len(array) > _MOST_CHANNELS else max(len(array), _FEW_CHANNELS)
    if array.ndim == 2 and array.shape[1] > most:
        raise InputError(f"{name}: samples must be [n, channels], got shape {list(array.shape)}: transpose the array")
    return array, _checked_rate(int(rate), name)


def _advice(audio: object) -> str:
    """What to do with something that is no recording."""
    if isinstance(audio, dict) and "array" in audio:
        return "give (audio['array'], audio['sampling_rate'])"
    if isinstance(audio, np.ndarray) or hasattr(audio, "__dlpack__"):
        return "give the samples with their rate in Hz, (samples, 16000)"
    if isinstance(audio, (int, float)):
        return "give (samples, rate) for one recording of samples"
    if isinstance(audio, Iterable):
        return "give several recordings as a list, [one, another]"
    return ""


def checked_sample_rate(rate: int) -> int:
    """The rate that is wanted, as an int, or an InputError."""
    return as_integer("sample_rate", rate, low=_RATES[0], high=_RATES[1])


def _checked_rate(rate: int, name: str) -> int:
    low, high = _RATES
    if not low <= rate <= high:
        given = f"{rate:,}" if rate < 1 << 64 else shown(rate)
        raise InputError(f"{name}: a sample rate of {given} Hz; expected {low:,} to {high:,} Hz")
    return rate


def _to_float32(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.integer):
        full_scale = -float(np.iinfo(array.dtype).min)
        return (array / full_scale).astype(np.float32)
    with np.errstate(over="ignore"):  # what becomes infinite is refused by name
        return array.astype(np.float32, copy=False)


def _resampler(rate: int, wanted: int) -> Any:
    """What changes the rate of samples that come block by block. It keeps no threads."""
    with needed("soxr", "cpu", f"resampling from {rate} Hz to {wanted} Hz"):
        import soxr
    return soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
