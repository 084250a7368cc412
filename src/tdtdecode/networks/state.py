"""Predictor states as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class ArrayState:
    """N predictor states as arrays. ``axes`` has each array's axis of length N. Networks choose the arrays."""

    arrays: tuple[np.ndarray, ...]
    axes: tuple[int, ...]

    def __len__(self) -> int:
        return self.arrays[0].shape[self.axes[0]]

    def select(self, index: np.ndarray) -> ArrayState:
        return ArrayState(tuple(a.take(index, axis) for a, axis in zip(self.arrays, self.axes)), self.axes)

    def join(self, others: list[ArrayState]) -> ArrayState:
        columns = zip(*(state.arrays for state in (self, *others)))
        return ArrayState(tuple(np.concatenate(c, axis) for c, axis in zip(columns, self.axes)), self.axes)

    def like(self, other: Any) -> bool:
        return isinstance(other, ArrayState) and self._form() == other._form()

    def _form(self) -> list[tuple[np.dtype, tuple[int, ...]]]:
        """Each array's dtype, and its shape without the axis of length N."""
        return [(a.dtype, a.shape[:axis] + a.shape[axis + 1 :]) for a, axis in zip(self.arrays, self.axes)]


def array_state(first: np.ndarray, states: tuple[np.ndarray, ...]) -> ArrayState:
    """N states of which one array is [N, ...] and the others are [L, N, H]."""
    return ArrayState((first, *states), (0, *(1 for _ in states)))
