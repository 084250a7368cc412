"""Weights found in exported graphs, by structure."""

from .expressions import CannotLift
from .tracing import lift

__all__ = ["CannotLift", "lift"]
