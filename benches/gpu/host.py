"""The host's share of a decode: everything but the kernels, which do nothing here. It runs anywhere.

An imitation of CuPy takes its place. Its arrays lie in main memory, copies are made there, and a launch costs nothing.
The kernel of greedy search leaves a result that was made beforehand. So the times are those of this package's own code.
CuPy and the driver add their own for each launch and copy, which are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

import tdtdecode as tdt
from tdtdecode.weights import Affine, LstmLayer, TransducerWeights

FRAMES, TOKENS = 423, 114
"""Frames of an utterance, and the tokens that it gives: 33.8 s of speech with a Parakeet."""
_MULTIPROCESSORS, _SHARED_MEMORY, _BLOCK_NEEDS, _MEMORY = 132, 232_448, 60_000, 80 << 30

CALLS: Any = Counter()
"""How often memory was made or copied, and kernels were launched. Also the seconds in the imitated kernel, which do not
count as the host's."""


class Array:
    """As much of cupy.ndarray as the package uses."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.shape, self.dtype, self.strides = array.shape, array.dtype, array.strides
        self.nbytes, self.size, self.ndim = array.nbytes, array.size, array.ndim
        self.data = SimpleNamespace(ptr=array.ctypes.data)
        self.device = _Device()

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Array:
        return Array(self.array[index])

    def view(self, dtype: Any) -> Array:
        return Array(self.array.view(dtype))

    def reshape(self, *shape: Any) -> Array:
        return Array(self.array.reshape(*shape))

    def fill(self, value: Any) -> None:
        self.array.fill(value)

    def set(self, host: np.ndarray) -> None:
        CALLS["copies"] += 1
        self.array[...] = host


class _Device:
    id = 0

    def __init__(self, index: int = 0):
        self.compute_capability = "90"
        self.attributes = {
            "MultiProcessorCount": _MULTIPROCESSORS, "MaxSharedMemoryPerBlockOptin": _SHARED_MEMORY,
            "MaxThreadsPerBlock": 1024, "CooperativeLaunch": 1,
        }  # fmt: skip

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Stream:
    ptr = 0

    def __init__(self, **_: Any):
        pass

    def synchronize(self) -> None:
        CALLS["synchronisations"] += 1


class _Kernel:
    max_dynamic_shared_size_bytes = 0

    def __init__(self, name: str):
        self._name = name

    def __call__(self, grid: Any, block: Any, arguments: tuple, shared_mem: int = 0) -> None:
        CALLS["launches"] += 1
        if self._name.endswith("_room"):
            _at(int(arguments[1]), np.dtype(np.int32), 1)[0] = _BLOCK_NEEDS
        elif self._name == "fused_greedy":
            begin = time.perf_counter()
            _leave_result(arguments[0][0])
            CALLS["seconds in the kernel"] += time.perf_counter() - begin


def _at(address: int, dtype: np.dtype, count: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_ubyte * (dtype.itemsize * count)).from_address(address), dtype)


def _leave_result(search: np.void) -> None:
    """What the kernel leaves when `TOKENS` tokens were emitted in each utterance."""
    batch, capacity = int(search["waiting"]), int(search["capacity"])
    log = _LOGS.get(batch)
    if log is None:
        utterances, tokens = np.tile(np.arange(batch), TOKENS), np.arange(batch * TOKENS) % 1000
        frames = np.repeat(np.arange(TOKENS) * (FRAMES // TOKENS), batch)
        log = _LOGS[batch] = np.stack([utterances, tokens, frames, np.ones_like(tokens)]).astype(np.int32)
    count = log.shape[1]
    _at(int(search["log"]), np.dtype(np.int32), 4 * capacity).reshape(4, capacity)[:, :count] = log
    _at(int(search["logprobs"]), np.dtype(np.float32), 2 * capacity).reshape(2, capacity)[:, :count] = -0.25
    _at(int(search["summary"]), np.dtype(np.int32), 3)[:] = count, 0, batch
    ends = _at(int(search["ends"]), np.dtype(np.int32), 3 * int(search["batch"]))
    ends.reshape(3, -1)[0] = FRAMES


_LOGS: dict[int, np.ndarray] = {}


def _imitation() -> ModuleType:
    cupy: Any = ModuleType("cupy")

    def made(array: np.ndarray) -> Array:
        CALLS["arrays"] += 1
        return Array(array)

    def copied(array: Any, dtype: Any = None) -> Any:
        if isinstance(array, Array):
            return array
        CALLS["copies"] += 1
        return made(np.array(array, dtype, order="C"))

    def as_numpy(array: Array) -> np.ndarray:
        CALLS["copies"] += 1
        return array.array.copy()

    def copy_memory(target: int, source: int, size: int, kind: int, stream: int) -> None:
        CALLS["copies"] += 1
        ctypes.memmove(target, source, size)

    cupy.ndarray, cupy.asarray, cupy.asnumpy = Array, copied, as_numpy
    cupy.empty = lambda shape, dtype=float: made(np.empty(shape, dtype))
    cupy.zeros = lambda shape, dtype=float: made(np.zeros(shape, dtype))
    cupy.RawModule = lambda **_: SimpleNamespace(get_function=_Kernel)
    stream = _Stream()
    cupy.cuda = SimpleNamespace(
        Device=_Device, Stream=_Stream, get_current_stream=lambda: stream,
        alloc_pinned_memory=lambda size: bytearray(size),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: 1, getDevice=lambda: 0, memcpyAsync=copy_memory, memcpyHostToDevice=1,
            memcpyDeviceToHost=2, CUDARuntimeError=RuntimeError,
            getDeviceProperties=lambda index: {"name": b"no card", "totalGlobalMem": _MEMORY},
        ),
        driver=SimpleNamespace(CUDADriverError=RuntimeError),
    )  # fmt: skip
    return cupy


@contextlib.contextmanager
def imitated() -> Iterator[Any]:
    """Within it the imitation is the module cupy."""
    cupy = _imitation()
    with mock.patch.dict(sys.modules, {"cupy": cupy}):
        yield cupy


def _decoder(vocab_size: int) -> tdt.Decoder:
    """A decoder with the sizes of a Parakeet. Its weights are zeros: nothing is computed with them."""
    from tdtdecode.networks.cuda.fused import FusedCudaNetwork

    def affine(outputs: int, inputs: int) -> Affine:
        return Affine(np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32))

    size, encoder_size = 640, 1024
    spec = tdt.TransducerSpec(vocab_size, encoder_size=encoder_size)
    square = np.zeros((4 * size, size), np.float32)
    layer = LstmLayer(square, square, np.zeros(4 * size, np.float32))
    weights = TransducerWeights(
        embedding=np.zeros((vocab_size + 1, size), np.float32), layers=(layer, layer), prediction=affine(size, size),
        encoder=affine(size, encoder_size), output=affine(spec.joint_width, size), activation="relu",
    )  # fmt: skip
    return tdt.Decoder(FusedCudaNetwork(weights, spec, "float16"), spec)


def measure(batches: tuple[int, ...] = (1, 8, 32, 128), runs: int = 200) -> dict[str, dict[str, Any]]:
    """For each batch: the median of microseconds of a greedy decode, and what it asks of CuPy and the driver."""
    results: dict[str, dict[str, Any]] = {}
    with imitated() as cupy:
        decoder = _decoder(1024)
        for batch in batches:
            frames = cupy.empty((batch, 1024, FRAMES), np.float32)
            for _ in range(5):
                decoder.decode(frames)
            seconds = []
            CALLS.clear()
            for _ in range(runs):
                begin, before = time.perf_counter(), CALLS["seconds in the kernel"]
                decoder.decode(frames)
                kernel = CALLS["seconds in the kernel"] - before
                seconds.append(time.perf_counter() - begin - kernel)
            del CALLS["seconds in the kernel"]
            calls = {name: count / runs for name, count in sorted(CALLS.items())}
            tracemalloc.start()
            traced = tracemalloc.get_traced_memory()[0]
            for _ in range(20):
                decoder.decode(frames)
            kept = tracemalloc.get_traced_memory()[0] - traced
            tracemalloc.stop()
            results[str(batch)] = {"us": float(np.median(seconds)) * 1e6, **calls, "bytes_kept": kept}
    return results
