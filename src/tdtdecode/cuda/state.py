"""Predictor states on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .device import import_cupy


@dataclass(frozen=True, eq=False)
class DeviceState:
    """Rows of a predictor's state as arrays on the device, each with its row axis; as `networks.state.ArrayState`."""

    arrays: tuple[Any, ...]
    axes: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.arrays[0].shape[self.axes[0]])

    def select(self, index: np.ndarray) -> DeviceState:
        places = import_cupy().asarray(np.ascontiguousarray(index, np.int64))
        return DeviceState(tuple(array.take(places, axis) for array, axis in zip(self.arrays, self.axes)), self.axes)

    def join(self, others: list[DeviceState]) -> DeviceState:
        columns = zip(*(state.arrays for state in (self, *others)))
        concatenate = import_cupy().concatenate
        return DeviceState(tuple(concatenate(c, axis) for c, axis in zip(columns, self.axes)), self.axes)

    def like(self, other: Any) -> bool:
        return isinstance(other, DeviceState) and self._form() == other._form()

    def _form(self) -> list[tuple[np.dtype, tuple[int, ...]]]:
        """Each array's dtype, and its shape without the row axis."""
        return [(a.dtype, a.shape[:axis] + a.shape[axis + 1 :]) for a, axis in zip(self.arrays, self.axes)]


def complete(state: DeviceState) -> DeviceState:
    """The state, once it is computed: it may be gone on from on any stream."""
    import_cupy().cuda.get_current_stream().synchronize()
    return state


def uploaded(*arrays: np.ndarray, axes: tuple[int, ...]) -> DeviceState:
    """Arrays of a state, brought to the device."""
    asarray = import_cupy().asarray
    return DeviceState(tuple(asarray(np.ascontiguousarray(array)) for array in arrays), axes)
