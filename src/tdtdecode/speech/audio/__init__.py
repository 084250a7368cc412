"""Recordings in, log-mel features out."""

from .features import FeatureExtractor
from .reading import Audio, as_samples, audio_seconds, check_audio, is_recording, read_audio
from .sources import Segment, held, is_file, name_of

__all__ = [
    "Audio",
    "FeatureExtractor",
    "Segment",
    "as_samples",
    "audio_seconds",
    "check_audio",
    "held",
    "is_file",
    "is_recording",
    "name_of",
    "read_audio",
]
