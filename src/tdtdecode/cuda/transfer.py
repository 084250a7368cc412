"""Copies between the host and the device that nobody waits for one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from .device import Device, import_cupy

_ALIGNMENT = 16
_SMALLEST = 1 << 15


class Transfer:
    """Page-locked memory through which a decode sends its parameters and fetches its results.

    `Transfers.taken` lends one. Small arrays are collected and go to the device all at once. Their addresses are known
    before.

    Parameters
    ----------
    capacity:
        Bytes of all arrays together, each rounded up to 16.
    """

    def __init__(self, capacity: int):
        self._cuda = import_cupy().cuda
        self._sent = _page_locked(capacity)
        self._device = import_cupy().empty(capacity, np.uint8)
        self._address = int(self._device.data.ptr)
        self._used = 0
        self._fetched = _page_locked(0)

    def clear(self) -> None:
        """Begin anew, without arrays."""
        self._used = 0

    def put(self, array: np.ndarray) -> int:
        """Add an array. Returns the address that its copy on the device will have."""
        return self.copy(array)[1]

    def copy(self, array: np.ndarray) -> tuple[np.ndarray, int]:
        """Add a copy of an array, which the caller may still change before `send`. Returns as `room`."""
        room, address = self.room(array.dtype, array.size)
        # As bytes: NumPy would copy a structure field by field.
        start = address - self._address
        self._sent[start : start + array.nbytes] = np.frombuffer(np.ascontiguousarray(array), np.uint8)
        return room, address

    def room(self, dtype: np.dtype, count: int = 1) -> tuple[np.ndarray, int]:
        """Add an array ``dtype`` [count] that the caller fills, before `send`. Returns it, and its copy's address."""
        start = self._used
        end = start + dtype.itemsize * count
        assert end <= len(self._sent), "a transfer's capacity is too small"
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return np.frombuffer(self._sent, dtype, count, start), self._address + start

    def send(self) -> None:
        """Copy the arrays to the device, on CuPy's current stream. They must not change before that is done."""
        runtime, stream = self._cuda.runtime, self._cuda.get_current_stream()
        runtime.memcpyAsync(
            self._address, self._sent.ctypes.data, self._used, runtime.memcpyHostToDevice, stream.ptr
        )

    def upload(self, array: np.ndarray, address: int) -> None:
        """Copy an array of any size to an address on the device, on CuPy's current stream, instead of `send`."""
        runtime, stream = self._cuda.runtime, self._cuda.get_current_stream()
        data = np.frombuffer(np.ascontiguousarray(array), np.uint8)
        for start in range(0, len(data), len(self._sent)):
            if start:
                stream.synchronize()  # before the memory is used again
            part = data[start : start + len(self._sent)]
            self._sent[: len(part)] = part
            runtime.memcpyAsync(
                address + start, self._sent.ctypes.data, len(part), runtime.memcpyHostToDevice, stream.ptr
            )

    def fetch(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        """Wait for CuPy's current stream. Returns ``dtype`` [count] from an address; valid until the next call."""
        size = dtype.itemsize * count
        if len(self._fetched) < size:
            self._fetched = _page_locked(1 << (size - 1).bit_length())
        runtime, stream = self._cuda.runtime, self._cuda.get_current_stream()
        runtime.memcpyAsync(self._fetched.ctypes.data, address, size, runtime.memcpyDeviceToHost, stream.ptr)
        stream.synchronize()
        return np.frombuffer(self._fetched, dtype, count)

    def wait(self) -> None:
        """Wait for CuPy's current stream."""
        self._cuda.get_current_stream().synchronize()


class Transfers:
    """Transfers that are used again: page-locked memory is slow to make."""

    def __init__(self) -> None:
        self._free: dict[int, list[Transfer]] = {}

    @contextmanager
    def taken(self, capacity: int) -> Iterator[Transfer]:
        """Lend a transfer of at least that capacity. When this ends, its copies are done."""
        size = max(_SMALLEST, 1 << (capacity - 1).bit_length())
        free = self._free.setdefault(size, [])
        try:
            transfer = free.pop()
        except IndexError:
            transfer = Transfer(size)
        transfer.clear()
        try:
            yield transfer
        finally:
            transfer.wait()
        free.append(transfer)  # after an error it is dropped


@lru_cache(maxsize=None)
def transfers(card: Device) -> Transfers:
    """A card's transfers."""
    return Transfers()


def _page_locked(size: int) -> np.ndarray:
    memory: Any = import_cupy().cuda.alloc_pinned_memory(max(size, 1))
    return np.frombuffer(memory, np.uint8, size)
