"""Predictor states on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .device import import_cupy


@dataclass(frozen=True, eq=False)
class DeviceState:
    """Predictor states of N utterances or hypotheses on the device. A value: nothing changes it in place.

    Attributes
    ----------
    arrays:
        The arrays of `networks.state.ArrayState`, on the device. They may hold other states too.
    axes:
        For each array, the axis along which the states lie.
    index:
        int64 [N] on the host: where the N states lie along that axis. So selecting states copies nothing until they are
        used.
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
        concatenate = import_cupy().concatenate
        count = sum(map(len, (self, *others)))
        with self.arrays[0].device:  # the caller may be in a thread of which another card is current
            columns = zip(*(state.gathered() for state in (self, *others)))
            arrays = tuple(concatenate(column, axis) for column, axis in zip(columns, self.axes))
        return DeviceState(arrays, self.axes, np.arange(count))

    def like(self, other: Any) -> bool:
        same_card = isinstance(other, DeviceState) and self.arrays[0].device == other.arrays[0].device
        return same_card and self._form() == other._form()

    def gathered(self) -> tuple[Any, ...]:
        """Copies of the arrays that hold these N states only, in their order."""
        places = import_cupy().asarray(np.ascontiguousarray(self.index, np.int64))
        return tuple(array.take(places, axis) for array, axis in zip(self.arrays, self.axes))

    def _form(self) -> list[tuple[np.dtype, tuple[int, ...]]]:
        """Each array's dtype, and its shape without the axis of the states."""
        return [(a.dtype, a.shape[:axis] + a.shape[axis + 1 :]) for a, axis in zip(self.arrays, self.axes)]


def uploaded(*arrays: np.ndarray, axes: tuple[int, ...]) -> DeviceState:
    """Copy the arrays of states to the device."""
    asarray = import_cupy().asarray
    count = arrays[0].shape[axes[0]]
    return DeviceState(tuple(asarray(np.ascontiguousarray(array)) for array in arrays), axes, np.arange(count))
