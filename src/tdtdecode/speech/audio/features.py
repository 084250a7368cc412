"""The log-mel features of NeMo's and GigaAM's transducers, in NumPy.

Sources of NeMo's numbers: ``AudioToMelSpectrogramPreprocessor`` of NeMo 3.0.0, in evaluation mode, with the
settings of the Parakeet models; the mel filters are those of ``librosa.filters.mel(norm="slaney", htk=False)``.

Sources of GigaAM's: the ``FeatureExtractor`` of its three versions, which is torchaudio's ``MelSpectrogram`` with HTK's
mel scale. The third version stores window and filters in bfloat16, as onnx-asr computes them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...arguments import as_choice, as_integer, as_tuple, refusal
from ...cancellation import checkpoint
from ...reprs import one_line

SAMPLE_RATE = 16000
"""The rate, in Hz, that the features are defined for."""
HOP = 160
"""Samples from one feature frame to the next: 10 ms."""

MOST_MEL_BINS = 1024
"""The most mel filters that may be asked for."""
_SAMPLES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_LOG_FLOOR = np.float32(2.0**-24)
STD_FLOOR = 1e-5
_BLOCK = 256  # frames at a time: their spectra stay in the L2 cache, and working memory does not grow with the audio


@dataclass(frozen=True)
class Family:
    """What a family of models does with samples.

    Attributes
    ----------
    fft:
        Points of the transform. A window that is shorter comes first, which changes only phases.
    window:
        Makes the window, float64 [samples of a frame].
    filters:
        Makes the mel filters of a number of bins, float32 [mel_bins, fft // 2 + 1].
    frames:
        The number of frames of so many samples.
    margin:
        How many values the signal has before the first sample and after the last. The first frame begins with them.
    edges:
        What these values are: ``"constant"``, zeros; or ``"reflect"``, the recording mirrored.
    emphasis:
        The share of the sample before that is subtracted from each sample.
    clamped:
        How the logarithm is kept from 0: energies are clamped to 1e-9 .. 1e9, or 2^-24 is added to them.
    padding:
        Frames of zeros behind the longest recording.
    """

    fft: int
    window: Callable[[], np.ndarray]
    filters: Callable[[int], np.ndarray]
    frames: Callable[[int], int]
    margin: int
    edges: Literal["constant", "reflect"]
    emphasis: float
    clamped: bool
    padding: int = 0

    def emphasized(self, samples: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The signal of samples float32 [n], ``before`` being the sample before them, [1], or nothing, [0]."""
        signal = samples.astype(np.float32)
        if self.emphasis:
            share = np.float32(self.emphasis)
            signal[1:] -= share * samples[:-1]
            signal[: len(before)] -= share * before
        return signal

    def logarithm(self, mel: np.ndarray, out: np.ndarray) -> None:
        """Write the logarithm of mel energies to ``out``. The energies are changed."""
        if self.clamped:
            np.clip(mel, np.float32(1e-9), np.float32(1e9), out=mel)
        else:
            mel += _LOG_FLOOR
        np.log(mel, out=out)


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 with the precision of bfloat16: rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


_FAMILIES = {
    "nemo": Family(
        512, lambda: np.hanning(400), lambda mel_bins: mel_filters(mel_bins), lambda n: n // HOP, 200, "constant", 0.97,
        False, padding=1,
    ),
    "gigaam": Family(
        320, lambda: _bfloat16(np.hanning(321)[:-1]), lambda mel_bins: _bfloat16(htk_filters(mel_bins, 320)),
        lambda n: max((n - 320) // HOP + 1, 0), 0, "constant", 0.0, True,
    ),
    "gigaam-v2": Family(
        400, lambda: np.hanning(401)[:-1], lambda mel_bins: htk_filters(mel_bins, 400),
        lambda n: n // HOP + 1 if n > 200 else 0,  # there must be as much to mirror
        200, "reflect", 0.0, True,
    ),
}  # fmt: skip

FAMILIES = tuple(_FAMILIES)
"""The families of features, by the models that take them: NeMo's; GigaAM's third version; its first and second."""


class FeatureExtractor:
    """Log-mel features for a batch of recordings of different lengths, computed as the models' own code does it.

    ``"nemo"``: pre-emphasis ``y[n] = x[n] - 0.97 x[n-1]``; power spectrum of centred frames (512 points, symmetric Hann
    window of 400 samples, every 160, zeros beyond the ends); Slaney mel filters from 0 to 8000 Hz; ``ln(m + 2^-24)``;
    then, per mel bin, ``(x - mean) / (std + 1e-5)`` over the frames of the recording, with the N - 1 estimate.

    ``"gigaam"``: power spectrum of frames that begin with the recording (320 points, periodic Hann window, every 160);
    HTK mel filters from 0 to 8000 Hz; ``ln`` of what is clamped to 1e-9 .. 1e9. ``"gigaam-v2"``: the same with centred
    frames of 400 points, the recording mirrored at its ends.

    A recording's features do not depend on the others in the batch. A recording of one frame has no standard
    deviation and gets zeros, as in NeMo. Digital silence gets exact zeros too, where NeMo returns the rounding error
    of the mean divided by 1e-5.

    Parameters
    ----------
    mel_bins:
        Number of mel filters: 80 or 128 in the NeMo models known, 64 in GigaAM.
    normalize:
        ``"per_feature"``, or None to leave the logarithms as they are.
    family:
        One of `FAMILIES`.

    Attributes
    ----------
    definition:
        What the family does.
    window:
        float32 [samples of a frame].

    Raises
    ------
    InputError
        If ``mel_bins`` is not positive, or ``normalize`` or ``family`` is none of those.
    """

    def __init__(self, mel_bins: int, normalize: str | None = "per_feature", family: str = "nemo"):
        mel_bins = as_integer("mel_bins", mel_bins, low=1, high=MOST_MEL_BINS)
        if normalize is not None:
            as_choice("normalize", normalize, ["per_feature"], "or None")
        as_choice("family", family, FAMILIES)
        self.mel_bins = mel_bins
        self.normalize = normalize
        self.family = family
        self.definition = _FAMILIES[family]
        self.window = self.definition.window().astype(np.float32)
        self._filters = _SparseFilters(self.definition.filters(mel_bins))

    def __reduce__(self) -> tuple[type[FeatureExtractor], tuple[int, str | None, str]]:
        return type(self), (self.mel_bins, self.normalize, self.family)

    def frames(self, samples: int) -> int:
        """The number of feature frames of so many samples: in NeMo, for example, ``samples // 160``."""
        return self.definition.frames(samples)

    def __repr__(self) -> str:
        normalized = "normalised per feature" if self.normalize else "not normalised"
        return one_line(self, f"{self.mel_bins} mel bins every 10 ms at 16 kHz", normalized)

    def __call__(self, recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features of a batch.

        Parameters
        ----------
        recordings:
            B arrays float32 [n] of samples at 16 kHz, of any lengths, 0 included.

        Returns
        -------
        features:
            float32 [B, mel_bins, T], zero past each recording's end. In NeMo, T is ``longest // 160 + 1``; in GigaAM,
            the frames of the longest.
        lengths:
            int64 [B], valid frames, as `frames` gives them.
        """
        recordings = checked_recordings(recordings)
        lengths, width = self.shape_of(recordings)
        features = np.zeros((len(recordings), self.mel_bins, width), dtype=np.float32)
        for out, samples, length in zip(features, recordings, lengths, strict=True):
            if length:
                signal = self.definition.emphasized(samples, samples[:0])
                self._transform(np.pad(signal, self.definition.margin, mode=self.definition.edges), out[:, :length])
                if self.normalize:
                    _standardize(out[:, :length])
        return features, lengths

    def shape_of(self, recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
        """The shape of the features of a batch, as `__call__` takes it.

        Returns
        -------
        int64 [B], the frames of each recording; and T.

        Raises
        ------
        InputError
            If a recording is no array of samples.
        """
        checked_recordings(recordings)
        lengths = np.array([self.frames(len(samples)) for samples in recordings], dtype=np.int64)
        return lengths, int(lengths.max(initial=0)) + self.definition.padding if len(recordings) else 0

    def stream(self) -> FeatureStream:
        """The features of a recording that comes in pieces."""
        return FeatureStream(self)

    def _transform(self, signal: np.ndarray, out: np.ndarray) -> None:
        """Write log-mel frames to ``out``, float32 [mel_bins, frames], of a signal that begins with the first frame."""
        frames, window = out.shape[1], len(self.window)
        # torch.stft puts a short window in the middle of the points. Here it comes first, which changes only the phases
        # and not the power.
        windows = np.lib.stride_tricks.sliding_window_view(signal, window)[::HOP][:frames]
        padded = np.zeros((min(_BLOCK, frames), self.definition.fft), dtype=np.float32)
        for start in range(0, frames, _BLOCK):
            checkpoint()
            block = windows[start : start + _BLOCK]
            points = padded[: len(block)]
            np.multiply(block, self.window, out=points[:, :window])
            spectrum = np.fft.rfft(points)
            power = np.square(spectrum.real, dtype=np.float32)
            power += np.square(spectrum.imag, dtype=np.float32)
            self.definition.logarithm(self._filters(power), out[:, start : start + len(block)])


def checked_recordings(recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The recordings, or an InputError if they are not arrays of samples."""
    recordings = as_tuple("recordings", recordings, "a list of arrays of samples")
    for i, samples in enumerate(recordings):
        if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype not in _SAMPLES:
            advice = "tdtdecode.speech.audio.as_samples makes them" if not isinstance(samples, float) else (
                "give one array for each recording, [samples] for a single one"
            )
            raise refusal(f"recordings[{i}]", f"float32 [n], samples at {SAMPLE_RATE} Hz", samples, advice)
    return recordings


class FeatureStream:
    """The features of a recording that comes in pieces: to the bit those of the whole, before normalisation.

    Parameters
    ----------
    extractor:
        Whose features they are.

    Attributes
    ----------
    samples:
        How many samples have come so far.
    frames:
        How many feature frames have been given so far.
    """

    def __init__(self, extractor: FeatureExtractor):
        self.samples = self.frames = 0
        self._extract = extractor
        self._last = np.zeros(0, np.float32)
        self._signal = np.zeros(0, np.float32)
        self._has_beginning = False

    def add(self, samples: np.ndarray) -> np.ndarray:
        """The feature frames that can be computed now, float32 [mel_bins, n], of samples float32 [n] at 16 kHz."""
        family = self._extract.definition
        if len(samples):
            self._signal = np.concatenate([self._signal, family.emphasized(samples, self._last)])
            self._last = samples[-1:].astype(np.float32)
            self.samples += len(samples)
        if not self._has_beginning and self.samples > family.margin:  # as many samples as can be mirrored
            self._has_beginning = True
            self._signal = np.pad(self._signal, (family.margin, 0), mode=family.edges)
        window = len(self._extract.window)
        return self._given((len(self._signal) - window) // HOP + 1 if self._has_beginning else 0)

    def end(self) -> np.ndarray:
        """The last feature frames, float32 [mel_bins, n]."""
        family = self._extract.definition
        count = family.frames(self.samples) - self.frames
        if count:
            beginning = 0 if self._has_beginning else family.margin
            self._signal = np.pad(self._signal, (beginning, family.margin), mode=family.edges)
        return self._given(count)

    def _given(self, count: int) -> np.ndarray:
        out = np.empty((self._extract.mel_bins, max(count, 0)), np.float32)
        if count > 0:
            self._extract._transform(self._signal, out)
            self._signal = self._signal[count * HOP :]
            self.frames += count
        return out


class _SparseFilters:
    """The product of mel filters with power spectra, over the weights that are not zero.

    It is no matrix product on purpose. NumPy hands those to BLAS, whose pool of threads is shared by the whole process:
    a fork in one thread shuts the pool down while another thread waits for it, which then waits for ever. It is faster
    as well: each frequency lies in at most two filters.

    Parameters
    ----------
    filters:
        float32 [mel_bins, frequencies].
    """

    def __init__(self, filters: np.ndarray):
        used = filters > 0
        used[~used.any(axis=1), 0] = True  # `reduceat` cannot sum nothing: a filter without weights gets a zero
        rows, self._bins = np.nonzero(used)
        self._weights = filters[used][:, None]
        self._starts = np.flatnonzero(np.diff(rows, prepend=-1))

    def __call__(self, power: np.ndarray) -> np.ndarray:
        """Mel energies float32 [mel_bins, frames] of power spectra float32 [frames, frequencies]."""
        weighted = power.T[self._bins]
        weighted *= self._weights
        return np.add.reduceat(weighted, self._starts, axis=0)


def _standardize(mel: np.ndarray) -> None:
    """Bring each mel bin of float32 [mel_bins, frames] to mean 0 and deviation 1, in place and in two passes."""
    mean = mel.mean(axis=1, dtype=np.float64, keepdims=True)
    np.subtract(mel, mean, out=mel, casting="same_kind")
    variance = np.sum(mel * mel, axis=1, dtype=np.float64, keepdims=True) / max(mel.shape[1] - 1, 1)
    np.divide(mel, np.sqrt(variance) + STD_FLOOR, out=mel, casting="same_kind")


def mel_filters(mel_bins: int) -> np.ndarray:
    """Triangular filters on the Slaney mel scale from 0 to 8000 Hz, each of unit area: float32 [mel_bins, 257].

    Source: Slaney, "Auditory Toolbox" (1998), as in ``librosa.filters.mel``.
    """
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), mel_bins + 2))
    return (_triangles(edges, 512) * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def htk_filters(mel_bins: int, fft: int) -> np.ndarray:
    """Triangular filters of height 1 on HTK's mel scale from 0 to 8000 Hz: float32 [mel_bins, fft // 2 + 1].

    Source: ``torchaudio.functional.melscale_fbanks(norm=None, mel_scale="htk")``; HTK's scale is
    ``2595 log10(1 + f / 700)``.
    """
    highest = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, highest, mel_bins + 2) / 2595.0) - 1.0)
    return _triangles(edges, fft).astype(np.float32)


def _triangles(edges: np.ndarray, fft: int) -> np.ndarray:
    """Triangles that rise from each edge to the next and fall to the one after, by frequency of a transform."""
    bins = np.fft.rfftfreq(fft, 1.0 / SAMPLE_RATE)
    widths = np.diff(edges)
    distances = edges[:, None] - bins
    rising = -distances[:-2] / widths[:-1, None]
    falling = distances[2:] / widths[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


# The Slaney scale: linear with 3 mels per 200 Hz up to 1000 Hz, then logarithmic with 27 mels per factor of 6.4.
_MELS_PER_HERTZ = 3.0 / 200.0
_BREAK_HERTZ = 1000.0
_BREAK_MELS = _BREAK_HERTZ * _MELS_PER_HERTZ
_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    """Mels of one frequency at or above 1000 Hz."""
    return float(_BREAK_MELS + np.log(hertz / _BREAK_HERTZ) / _LOG_STEP)


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    above = _BREAK_HERTZ * np.exp(_LOG_STEP * (mels - _BREAK_MELS))
    return np.where(mels < _BREAK_MELS, mels / _MELS_PER_HERTZ, above)
