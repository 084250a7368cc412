"""Lifting: finding the weights of predictor and joint in exported graphs, so that they can run without these graphs."""

from .expressions import CannotLift
from .tracing import lift

__all__ = ["CannotLift", "lift"]
