"""How fast a model is decoded on this machine, and how fast it could be: measuring, and drawing what was measured."""

from .environment import environment
from .measuring import alternate, floor_seconds, random_encoder_out, stream_bandwidth, summary

__all__ = ["alternate", "environment", "floor_seconds", "random_encoder_out", "stream_bandwidth", "summary"]
