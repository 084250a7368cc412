"""The log-mel features of NeMo's transducers, in NumPy.

Source of every number: ``AudioToMelSpectrogramPreprocessor`` of NeMo 3.0.0, in evaluation mode, with the
settings of the Parakeet models; the mel filters are those of ``librosa.filters.mel(norm="slaney", htk=False)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arguments import as_choice, as_integer, as_tuple, refusal
from ...reprs import one_line

SAMPLE_RATE = 16000
"""The rate, in Hz, that the features are defined for."""
HOP = 160
"""Samples from one feature frame to the next: 10 ms."""

_MOST_MEL_BINS = 1024
_FFT = 512
_WINDOW = 400
_SAMPLES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_PRE_EMPHASIS = np.float32(0.97)
_LOG_FLOOR = np.float32(2.0**-24)
STD_FLOOR = 1e-5
_BLOCK = 256  # frames at a time: their spectra stay in the L2 cache, and working memory does not grow with the audio


class FeatureExtractor:
    """Log-mel features as NeMo computes them, for a batch of recordings of different lengths.

    Pre-emphasis ``y[n] = x[n] - 0.97 x[n-1]``; power spectrum of centred frames (512 points, symmetric Hann window
    of 400 samples, every 160, zeros beyond the ends); Slaney mel filters from 0 to 8000 Hz; ``ln(m + 2^-24)``;
    then, per mel bin, ``(x - mean) / (std + 1e-5)`` over the frames of the recording, with the N - 1 estimate.

    A recording's features do not depend on the others in the batch. A recording of one frame has no standard
    deviation and gets zeros, as in NeMo. Digital silence gets exact zeros too, where NeMo returns the rounding error
    of the mean divided by 1e-5.

    Parameters
    ----------
    mel_bins:
        Number of mel filters, 80 or 128 in the models known.
    normalize:
        ``"per_feature"``, or None to leave the logarithms as they are.

    Raises
    ------
    InputError
        If ``mel_bins`` is not positive or ``normalize`` is neither of the two.
    """

    def __init__(self, mel_bins: int, normalize: str | None = "per_feature"):
        mel_bins = as_integer("mel_bins", mel_bins, low=1, high=_MOST_MEL_BINS)
        if normalize is not None:
            as_choice("normalize", normalize, ["per_feature"], "or None")
        self.mel_bins = mel_bins
        self.normalize = normalize
        self._window = np.hanning(_WINDOW).astype(np.float32)
        self._filters = _SparseFilters(mel_filters(mel_bins))

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
            float32 [B, mel_bins, T], zero past each recording's end. T is ``longest // 160 + 1``, NeMo's width.
        lengths:
            int64 [B], valid frames: ``n // 160``.
        """
        recordings = as_tuple("recordings", recordings, "a list of arrays of samples")
        for i, samples in enumerate(recordings):
            if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype not in _SAMPLES:
                advice = "tdtdecode.speech.audio.as_samples makes them" if not isinstance(samples, float) else (
                    "give one array for each recording, [samples] for a single one"
                )
                raise refusal(f"recordings[{i}]", f"float32 [n], samples at {SAMPLE_RATE} Hz", samples, advice)
        lengths = np.array([len(samples) // HOP for samples in recordings], dtype=np.int64)
        width = max((len(samples) // HOP + 1 for samples in recordings), default=0)
        features = np.zeros((len(recordings), self.mel_bins, width), dtype=np.float32)
        for out, samples, length in zip(features, recordings, lengths, strict=True):
            if length:
                self._log_mel(samples, out[:, :length])
                if self.normalize:
                    _standardize(out[:, :length])
        return features, lengths

    def _log_mel(self, samples: np.ndarray, out: np.ndarray) -> None:
        """Write the logarithms of one recording's mel energies to ``out``, float32 [mel_bins, frames]."""
        margin = _WINDOW // 2
        signal = np.zeros(len(samples) + _WINDOW, dtype=np.float32)
        emphasized = signal[margin : margin + len(samples)]
        emphasized[:] = samples
        emphasized[1:] -= _PRE_EMPHASIS * samples[:-1]
        self._transform(signal, out)

    def _transform(self, signal: np.ndarray, out: np.ndarray) -> None:
        """Write log-mel frames to ``out``, float32 [mel_bins, frames], of a signal that begins with the first frame."""
        frames = out.shape[1]
        # torch.stft puts the 400 samples in the middle of the 512 points. Here they come first, which changes only the
        # phases and not the power.
        windows = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::HOP][:frames]
        padded = np.zeros((min(_BLOCK, frames), _FFT), dtype=np.float32)
        for start in range(0, frames, _BLOCK):
            block = windows[start : start + _BLOCK]
            points = padded[: len(block)]
            np.multiply(block, self._window, out=points[:, :_WINDOW])
            spectrum = np.fft.rfft(points)
            power = np.square(spectrum.real, dtype=np.float32)
            power += np.square(spectrum.imag, dtype=np.float32)
            mel = self._filters(power)
            mel += _LOG_FLOOR
            np.log(mel, out=out[:, start : start + len(block)])


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
        self._signal = np.zeros(_WINDOW // 2, np.float32)

    def add(self, samples: np.ndarray) -> np.ndarray:
        """The feature frames that can be computed now, float32 [mel_bins, n], of samples float32 [n] at 16 kHz."""
        if not len(samples):
            return self._given(0)
        emphasized = samples.astype(np.float32)
        emphasized[1:] -= _PRE_EMPHASIS * samples[:-1]
        if len(self._last):
            emphasized[:1] -= _PRE_EMPHASIS * self._last
        self._last = samples[-1:].astype(np.float32)
        self.samples += len(samples)
        self._signal = np.concatenate([self._signal, emphasized])
        return self._given((len(self._signal) - _WINDOW) // HOP + 1)

    def end(self) -> np.ndarray:
        """The last feature frames, float32 [mel_bins, n]."""
        self._signal = np.concatenate([self._signal, np.zeros(_WINDOW, np.float32)])
        return self._given(self.samples // HOP - self.frames)

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
    as well: each of the 257 frequencies lies in at most two filters.

    Parameters
    ----------
    filters:
        float32 [mel_bins, 257].
    """

    def __init__(self, filters: np.ndarray):
        used = filters > 0
        used[~used.any(axis=1), 0] = True  # `reduceat` cannot sum nothing: a filter without weights gets a zero
        rows, self._bins = np.nonzero(used)
        self._weights = filters[used][:, None]
        self._starts = np.flatnonzero(np.diff(rows, prepend=-1))

    def __call__(self, power: np.ndarray) -> np.ndarray:
        """Mel energies float32 [mel_bins, frames] of power spectra float32 [frames, 257]."""
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
    bins = np.fft.rfftfreq(_FFT, 1.0 / SAMPLE_RATE)
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), mel_bins + 2))
    widths = np.diff(edges)
    distances = edges[:, None] - bins
    rising = -distances[:-2] / widths[:-1, None]
    falling = distances[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


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
