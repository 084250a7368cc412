"""Recordings in, log-mel features out."""

from .features import FeatureExtractor
from .reading import Audio, as_samples, audio_seconds, held, name_of, read_audio

__all__ = ["Audio", "FeatureExtractor", "as_samples", "audio_seconds", "held", "name_of", "read_audio"]
