"""Where someone speaks: Silero's voice activity detector."""

from .silero import SileroVad, SpeechSegment

__all__ = ["SileroVad", "SpeechSegment"]
