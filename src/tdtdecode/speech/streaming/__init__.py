"""Live recordings: words as they are spoken, for one stream or many at once."""

from .latency import Latency
from .live import News
from .stream import Stream, Streams

__all__ = ["Latency", "News", "Stream", "Streams"]
