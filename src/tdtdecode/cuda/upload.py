"""Parameters of a launch: small arrays and structures, brought to the device in one copy."""

from __future__ import annotations

import numpy as np

from .device import import_cupy

_ALIGNMENT = 16


class Upload:
    """Small arrays brought to the device in one copy; their addresses are known before."""

    def __init__(self, capacity: int):
        self._host = np.zeros(capacity + _ALIGNMENT, np.uint8)
        self._device = import_cupy().empty(len(self._host), np.uint8)
        self._used = 0

    def put(self, array: np.ndarray) -> int:
        """The address that a copy of the array will have."""
        data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        self._host[start : start + len(data)] = data
        self._used = start + len(data)
        return int(self._device.data.ptr) + start

    def send(self) -> None:
        """Copy, on the current stream."""
        self._device.set(self._host)
