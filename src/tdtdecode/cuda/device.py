"""The card that CuPy uses."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import DeviceError
from ..optional import needed

MAX_THREADS = 512
"""Most threads of a block: the kernels are compiled for no more."""


def import_cupy() -> Any:
    """The module cupy.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    if "cupy" in sys.modules:  # asked for many times in each decode; another thread may not have imported all of it yet
        return importlib.import_module("cupy")
    with needed("cupy-cuda13x", "gpu", "device 'cuda'"):
        return importlib.import_module("cupy")


@dataclass(frozen=True)
class Device:
    """A card.

    Attributes
    ----------
    index:
        Its number among the cards that CUDA sees.
    name:
        Its product name.
    capability:
        Compute capability, 90 for 9.0.
    multiprocessors:
        Number of multiprocessors.
    shared_memory:
        Most bytes of shared memory that one block can have.
    threads:
        Threads of a block as the kernels are launched, at most `MAX_THREADS`.
    memory:
        Bytes of its memory.
    cooperative:
        Whether the card can launch cooperatively: all blocks run at once and may wait for each other.
    """

    index: int
    name: str
    capability: int
    multiprocessors: int
    shared_memory: int
    threads: int
    memory: int
    cooperative: bool

    def current(self) -> AbstractContextManager[object]:
        """Within it, CuPy uses this card in this thread.

        CUDA's current card belongs to a thread, and is the first card in a new one. What uses a card's memory or
        kernels must make it current first.
        """
        check_process()
        card: AbstractContextManager[object] = import_cupy().cuda.Device(self.index)
        return card


def current_device() -> Device:
    """The card that CuPy uses at the moment.

    Raises
    ------
    MissingDependencyError
        If CuPy is not installed.
    DeviceError
        If there is no card, or no driver for it.
    """
    cupy = import_cupy()
    try:
        if not cupy.cuda.runtime.getDeviceCount():
            raise DeviceError("device 'cuda': no CUDA device is visible; use device='cpu'")
        index = int(cupy.cuda.runtime.getDevice())
    except DeviceError:
        raise
    except Exception as error:  # an error of CuPy: no driver, no permission, ...
        raise DeviceError(f"device 'cuda' cannot be used: {error}; use device='cpu'") from error
    return _device(index)


def check_process() -> None:
    """Raise a DeviceError in a process that was forked after CUDA was used: CUDA does not survive that."""
    if _first_process() != os.getpid():
        raise DeviceError(
            "device 'cuda' cannot be used here: this process was forked after CUDA was used. Start processes with "
            "multiprocessing's 'spawn' or 'forkserver', or load the model only after the fork"
        )


@lru_cache(maxsize=None)
def _first_process() -> int:
    """The process that asked first."""
    return os.getpid()


@lru_cache(maxsize=None)
def _device(index: int) -> Device:
    check_process()
    cupy = import_cupy()
    attributes = cupy.cuda.Device(index).attributes
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    return Device(
        index,
        properties["name"].decode(),
        int(cupy.cuda.Device(index).compute_capability),
        attributes["MultiProcessorCount"],
        attributes["MaxSharedMemoryPerBlockOptin"],
        min(MAX_THREADS, attributes["MaxThreadsPerBlock"]),
        int(properties["totalGlobalMem"]),
        bool(attributes["CooperativeLaunch"]),
    )


def cuda_errors() -> tuple[type[Exception], ...]:
    """What CuPy raises where CUDA fails."""
    cuda = import_cupy().cuda
    return cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError


def decoding_failed(card: Device, error: Exception) -> DeviceError:
    """The error that a decode failed on a card, which says what to do."""
    return DeviceError(
        f"decoding on {card.name} failed: {error}; most of CUDA's errors end its use in this process, so start "
        "another; with the environment variable TDTDECODE_CUDA_LAUNCH=phases no block waits for others"
    )


@lru_cache(maxsize=None)
def shared_stream(index: int) -> Any:
    """The stream that all ONNX Runtime sessions on a card share: kernels launched on it later run after them.

    It is not the default stream. The default stream's address is 0, which ONNX Runtime takes for no stream.
    """
    cupy = import_cupy()
    with cupy.cuda.Device(index):
        return cupy.cuda.Stream(non_blocking=True)


@contextmanager
def own_stream(card: Device) -> Iterator[Any]:
    """Within it, CuPy's current stream is one that nobody else uses. Its work is done when this ends.

    The card prefers its work to that of `shared_stream`. Streams are used again, since CuPy keeps freed memory for each
    stream by itself.
    """
    free = _free_streams(card.index)
    try:
        stream = free.pop()
    except IndexError:
        stream = import_cupy().cuda.Stream(non_blocking=True, priority=_PREFERRED)
    try:
        with stream:
            yield stream
    finally:
        stream.synchronize()
        free.append(stream)


_PREFERRED = -1
"""A priority above that of streams for which none is stated: lower numbers come first."""


@lru_cache(maxsize=None)
def _free_streams(index: int) -> list[Any]:
    """A card's streams that are free for `own_stream`."""
    return []
