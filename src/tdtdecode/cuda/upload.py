"""Small arrays and structures for kernels, copied to the device all at once."""

from __future__ import annotations

import numpy as np

from .device import import_cupy

_ALIGNMENT = 16


class Upload:
    """Collects small arrays and copies them to the device all at once. Their addresses are known before the copy.

    Parameters
    ----------
    capacity:
        Bytes of all arrays together, each rounded up to 16.
    """

    def __init__(self, capacity: int):
        self._host = np.zeros(capacity + _ALIGNMENT, np.uint8)
        self._device = import_cupy().empty(len(self._host), np.uint8)
        self._used = 0

    def put(self, array: np.ndarray) -> int:
        """Add an array. Returns the address that its copy on the device will have."""
        data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        self._host[start : start + len(data)] = data
        self._used = start + len(data)
        return int(self._device.data.ptr) + start

    def send(self) -> None:
        """Copy the arrays, on CuPy's current stream."""
        self._device.set(self._host)
