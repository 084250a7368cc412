"""Recordings in, log-mel features out."""

from .features import FeatureExtractor
from .reading import as_samples, read_audio

__all__ = ["FeatureExtractor", "as_samples", "read_audio"]
