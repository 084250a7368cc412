"""Where someone speaks: Silero's voice activity detector."""

from .silero import SileroVad

__all__ = ["SileroVad"]
