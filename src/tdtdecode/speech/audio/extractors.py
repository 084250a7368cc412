"""The features of a model, of whatever family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from . import kaldi
from .features import FeatureExtractor


class FeatureSource(Protocol):
    """The features of a recording that comes in pieces: to the bit those of the whole, before normalisation."""

    samples: int
    """How many samples have come so far."""
    frames: int
    """How many feature frames have been given so far."""

    def add(self, samples: np.ndarray) -> np.ndarray:
        """The feature frames that can be computed now, float32 [mel_bins, n], of samples float32 [n] at 16 kHz."""

    def end(self) -> np.ndarray:
        """The last feature frames, float32 [mel_bins, n]."""


class Extractor(Protocol):
    """Computes the features of recordings: a `FeatureExtractor` or a `KaldiExtractor`."""

    mel_bins: int

    @property
    def normalize(self) -> str | None:
        """``"per_feature"``, or None for features that are not normalised."""

    def frames(self, samples: int) -> int:
        """The number of feature frames of so many samples."""

    def __call__(self, recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [B, mel_bins, T] of a batch, and their lengths int64 [B]."""

    def stream(self) -> FeatureSource:
        """The features of a recording that comes in pieces."""


def extractor(mel_bins: int, normalize: str | None, family: str) -> Extractor:
    """The extractor of a family of features, as `tdtdecode.bundle.description.FeatureSettings` names it.

    Raises
    ------
    InputError
        If there is no such family, or an option is wrong.
    MissingDependencyError
        If a package that the family needs is not installed.
    """
    return kaldi.KaldiExtractor(mel_bins) if family == kaldi.FAMILY else FeatureExtractor(mel_bins, normalize, family)
