"""The features of k2's models: Kaldi's filter banks, computed by the package kaldi-native-fbank.

Source of the settings: sherpa-onnx's ``FeatureExtractorConfig``, which are those that icefall's recipes train with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...arguments import as_integer
from ...cancellation import checkpoint
from ...optional import needed
from ...reprs import one_line
from .features import HOP, MOST_MEL_BINS, SAMPLE_RATE, checked_recordings

FAMILY = "kaldi"

_HIGHEST_BELOW_NYQUIST = -400.0
_LOWEST = 20.0
_PIECE = 10 * SAMPLE_RATE


class KaldiExtractor:
    """Log-mel features for a batch of recordings, as sherpa-onnx computes them for k2's models.

    Frames of 25 ms every 10 ms, the first centred at 5 ms, the recording mirrored at its ends; in each, the mean is
    subtracted, then pre-emphasis of 0.97; Povey's window; power spectrum of 512 points; mel filters from 20 to 7600 Hz;
    logarithm. There is no dither, samples are between -1 and 1, and nothing is normalised.

    Parameters
    ----------
    mel_bins:
        Number of mel filters, 80 in the models known.

    Raises
    ------
    InputError
        If ``mel_bins`` is not positive.
    MissingDependencyError
        If kaldi-native-fbank is not installed.
    """

    normalize = None
    family = FAMILY

    def __init__(self, mel_bins: int):
        self.mel_bins = as_integer("mel_bins", mel_bins, low=1, high=MOST_MEL_BINS)
        with needed("kaldi-native-fbank", "kaldi", "Computing the features of k2's models"):
            import kaldi_native_fbank
        self._fbank = kaldi_native_fbank

    def __reduce__(self) -> tuple[type[KaldiExtractor], tuple[int]]:
        return type(self), (self.mel_bins,)

    def __repr__(self) -> str:
        return one_line(self, f"{self.mel_bins} mel bins every 10 ms at 16 kHz", "not normalised")

    def frames(self, samples: int) -> int:
        """The number of feature frames of so many samples: the frames whose centres lie in the recording."""
        return (samples + HOP // 2) // HOP

    def __call__(self, recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features of a batch: float32 [B, mel_bins, T], zero past each recording's end, and lengths int64 [B].

        Parameters
        ----------
        recordings:
            B arrays float32 [n] of samples at 16 kHz, of any lengths, 0 included.
        """
        recordings = checked_recordings(recordings)
        lengths = np.array([self.frames(len(samples)) for samples in recordings], dtype=np.int64)
        features = np.zeros((len(recordings), self.mel_bins, int(lengths.max(initial=0))), np.float32)
        for out, samples, length in zip(features, recordings, lengths, strict=True):
            stream = self.stream()
            parts = [stream.add(samples[i : i + _PIECE]) for i in range(0, len(samples), _PIECE)]
            out[:, :length] = np.concatenate([*parts, stream.end()], axis=1)
        return features, lengths

    def stream(self) -> KaldiStream:
        """The features of a recording that comes in pieces."""
        options = self._fbank.FbankOptions()
        options.frame_opts.samp_freq = SAMPLE_RATE
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = self.mel_bins
        options.mel_opts.low_freq = _LOWEST
        options.mel_opts.high_freq = _HIGHEST_BELOW_NYQUIST
        return KaldiStream(self._fbank.OnlineFbank(options), self.mel_bins)


class KaldiStream:
    """The features of a recording that comes in pieces: to the bit those of the whole.

    Attributes
    ----------
    samples:
        How many samples have come so far.
    frames:
        How many feature frames have been given so far.
    """

    def __init__(self, fbank: Any, mel_bins: int):
        self.samples = self.frames = 0
        self._fbank = fbank
        self._mel_bins = mel_bins

    def add(self, samples: np.ndarray) -> np.ndarray:
        """The feature frames that can be computed now, float32 [mel_bins, n], of samples float32 [n] at 16 kHz."""
        checkpoint()
        if len(samples):
            self._fbank.accept_waveform(SAMPLE_RATE, np.ascontiguousarray(samples, np.float32))
            self.samples += len(samples)
        return self._given()

    def end(self) -> np.ndarray:
        """The last feature frames, float32 [mel_bins, n]."""
        self._fbank.input_finished()
        return self._given()

    def _given(self) -> np.ndarray:
        ready = self._fbank.num_frames_ready
        out = np.empty((self._mel_bins, ready - self.frames), np.float32)
        for i in range(self.frames, ready):
            out[:, i - self.frames] = self._fbank.get_frame(i)
        self._fbank.pop(ready - self.frames)
        self.frames = ready
        return out
