"""Predictor states on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .device import import_cupy


@dataclass(frozen=True, eq=False)
class DeviceState:
    """Rows of a predictor's state on the device. A value: nothing changes it in place.

    Attributes
    ----------
    arrays:
        What `networks.state.ArrayState` holds, on the device; more rows than these, perhaps.
    axes:
        The row axis of each.
    index:
        int64 [B] on the host: which rows of the arrays these are. So picking rows costs nothing before they are used.
    """

    arrays: tuple[Any, ...]
    axes: tuple[int, ...]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def select(self, index: np.ndarray) -> DeviceState:
        return DeviceState(self.arrays, self.axes, self.index[index])

    def join(self, others: list[DeviceState]) -> DeviceState:
        if not others:
            return self
        columns = zip(*(state.gathered() for state in (self, *others)))
        concatenate = import_cupy().concatenate
        rows = sum(map(len, (self, *others)))
        arrays = tuple(concatenate(column, axis) for column, axis in zip(columns, self.axes))
        return DeviceState(arrays, self.axes, np.arange(rows))

    def like(self, other: Any) -> bool:
        return isinstance(other, DeviceState) and self._form() == other._form()

    def gathered(self) -> tuple[Any, ...]:
        """The arrays of these rows alone."""
        places = import_cupy().asarray(np.ascontiguousarray(self.index, np.int64))
        return tuple(array.take(places, axis) for array, axis in zip(self.arrays, self.axes))

    def _form(self) -> list[tuple[np.dtype, tuple[int, ...]]]:
        """Each array's dtype, and its shape without the row axis."""
        return [(a.dtype, a.shape[:axis] + a.shape[axis + 1 :]) for a, axis in zip(self.arrays, self.axes)]


def uploaded(*arrays: np.ndarray, axes: tuple[int, ...]) -> DeviceState:
    """Arrays of a state, brought to the device."""
    asarray = import_cupy().asarray
    rows = arrays[0].shape[axes[0]]
    return DeviceState(tuple(asarray(np.ascontiguousarray(array)) for array in arrays), axes, np.arange(rows))
