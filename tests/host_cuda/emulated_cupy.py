"""As much of CuPy as the package uses, on the host: `host_cuda.h` runs the kernels, and NumPy arrays hold the data.

As on a card, arrays of the device and of the host do not mix: NumPy cannot read device arrays, and operations on device
arrays refuse NumPy arrays. There may be several cards. Each has its own memory and streams, each thread its current
card, and a launch that reads what does not belong to the current card is an error.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.shared import made_once

HERE = Path(__file__).parent

DEVICE = SimpleNamespace(
    multiprocessors=3, threads=64, shared_memory=100 * 1024, cooperative=True, capability="90", name=b"emulated",
    memory=16 << 30, count=1,
)  # fmt: skip
"""The emulated card. Tests change it."""

TRANSFERS = {"to_host": 0, "to_device": 0, "launches": 0, "replays": 0}
"""How often memory was copied, kernels were launched and graphs replayed."""

EVENTS: collections.deque[tuple] = collections.deque(maxlen=1 << 16)
"""What happened on streams last, in order: (what, stream, more). ``more`` is the name of the kernel, the number of
bytes, or the event that is recorded or waited for."""


def happened(what: str, stream, more=None) -> None:
    EVENTS.append((what, stream, more))


_thread = threading.local()
"""Each thread's current card and its stack of streams."""


def current_card() -> int:
    return getattr(_thread, "card", 0)


class Device:
    """A card. Within it, it is the thread's current one; ``used`` counts that."""

    used = 0

    def __init__(self, index: int | None = None):
        self.id = current_card() if index is None else index
        if not 0 <= self.id < DEVICE.count:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.compute_capability = DEVICE.capability
        self._before: list[int] = []

    @property
    def attributes(self):
        return {
            "MultiProcessorCount": DEVICE.multiprocessors,
            "MaxSharedMemoryPerBlockOptin": DEVICE.shared_memory,
            "MaxThreadsPerBlock": DEVICE.threads,
            "CooperativeLaunch": int(DEVICE.cooperative),
        }

    def use(self):
        _thread.card = self.id

    def __enter__(self):
        Device.used += 1
        self._before.append(current_card())
        self.use()
        return self

    def __exit__(self, *_):
        _thread.card = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None


class Memory:
    """The memory of all cards: which addresses are in use, and on which card."""

    def __init__(self):
        self._blocks: dict[int, tuple[weakref.ref, int, int]] = {}
        self._lock = threading.RLock()  # a block may be freed while another is added

    def card_of(self, array: np.ndarray) -> int:
        """The card that an array lies on. An array that is new lies on the current card."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        begin = array.ctypes.data
        with self._lock:
            block = self._blocks.get(begin)
            if block is None or block[0]() is not array:
                block = weakref.ref(array, lambda ref: self._freed(begin, ref)), array.nbytes, current_card()
                self._blocks[begin] = block
            return block[2]

    def check(self, address: int, count: int = 1) -> None:
        """Raise an AssertionError unless an address is null or its bytes are in the current card's memory."""
        with self._lock:
            blocks = list(self._blocks.items())
        for begin, (_, size, card) in blocks:
            if begin <= address < begin + max(size, 1):
                assert card == current_card(), f"memory of card {card} is used on card {current_card()}"
                assert address + count <= begin + max(size, 1), "past the end of a block of memory"
                return
        assert address == 0, f"there is no memory at {address:#x}"

    def _freed(self, begin, ref):
        with self._lock:
            if self._blocks.get(begin, (None,))[0] is ref:
                del self._blocks[begin]


MEMORY = Memory()


class Flags:
    def __init__(self, array):
        self.c_contiguous = array.flags.c_contiguous


class ndarray:  # noqa: N801 - CuPy's name
    """An array on the device."""

    __array_ufunc__ = None

    def __init__(self, array):
        self._array = array
        self._card = MEMORY.card_of(array)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    strides = property(lambda self: self._array.strides)
    size = property(lambda self: self._array.size)
    ndim = property(lambda self: self._array.ndim)
    nbytes = property(lambda self: self._array.nbytes)
    flags = property(lambda self: Flags(self._array))
    device = property(lambda self: Device(self._card))

    @property
    def data(self):
        return SimpleNamespace(ptr=self._array.ctypes.data)

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        return ndarray(self._array[_index(index)])

    def __setitem__(self, index, value):
        self._array[_index(index)] = value._array if isinstance(value, ndarray) else _scalar(value)

    def take(self, index, axis=None):
        self._check()
        return ndarray(self._array.take(index._array, axis))

    def view(self, dtype):
        return ndarray(self._array.view(dtype))

    def reshape(self, *shape):
        return ndarray(self._array.reshape(*shape))

    def transpose(self, *axes):
        return ndarray(self._array.transpose(*axes))

    def astype(self, dtype, copy=True):
        return ndarray(self._array.astype(dtype, copy=copy))

    def copy(self):
        return ndarray(self._array.copy())

    def fill(self, value):
        self._check()
        self._array.fill(value)

    def _check(self):
        assert self._card == current_card(), f"an array of card {self._card} is used on card {current_card()}"

    def set(self, host):
        assert type(host) is np.ndarray and host.dtype == self.dtype and host.shape == self.shape
        self._check()
        TRANSFERS["to_device"] += 1
        self._array[...] = host

    def __dlpack_device__(self):
        return 2, self._card

    def __dlpack__(self, stream=None):
        return self._array.__dlpack__()


def _scalar(value):
    assert np.isscalar(value), "a host array was assigned to a device array"
    return value


def _index(index):
    parts = index if isinstance(index, tuple) else (index,)
    assert not any(isinstance(part, np.ndarray) for part in parts), "a host array indexes a device array"
    return tuple(part._array if isinstance(part, ndarray) else part for part in parts)


def asarray(array):
    if isinstance(array, ndarray):
        return array
    TRANSFERS["to_device"] += 1
    return ndarray(np.array(array, order="C"))


def asnumpy(array):
    TRANSFERS["to_host"] += 1
    return array._array.copy()


def from_dlpack(array):
    return ndarray(np.from_dlpack(array._array if isinstance(array, ndarray) else array))


def empty(shape, dtype=float):
    """An array filled with bytes 0xFF, NaN as floats, so that a kernel that reads it before it writes is noticed."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).reshape(-1)[...] = 0xFF if array.size else 0
    return ndarray(array)


def zeros(shape, dtype=float):
    return ndarray(np.zeros(shape, dtype))


def concatenate(arrays, axis=0):
    for array in arrays:
        array._check()
    return ndarray(np.concatenate([array._array for array in arrays], axis))


def ascontiguousarray(array, dtype=None):
    return ndarray(np.ascontiguousarray(array._array, dtype))


_pinned: dict[int, tuple[weakref.ref, int]] = {}
"""Page-locked memory by address, with its size."""


def alloc_pinned_memory(size):
    memory = np.zeros(size, np.uint8)
    _pinned[memory.ctypes.data] = weakref.ref(memory), size
    return memory


def _is_pinned(address: int, size: int) -> bool:
    return any(
        memory() is not None and begin <= address and address + size <= begin + room
        for begin, (memory, room) in list(_pinned.items())
    )


def memcpyAsync(target, source, size, kind, stream):  # noqa: N802 - CuPy's name
    to_device = kind == HOST_TO_DEVICE
    TRANSFERS["to_device" if to_device else "to_host"] += 1
    happened("to_device" if to_device else "to_host", get_current_stream(), size)
    assert stream == get_current_stream().ptr, "a copy on another stream than the current one"
    assert _is_pinned(source if to_device else target, size), "an asynchronous copy of memory that is not page-locked"
    MEMORY.check(target if to_device else source, size)
    ctypes.memmove(target, source, size)


def memsetAsync(target, value, size, stream):  # noqa: N802 - CuPy's name
    MEMORY.check(target, size)
    ctypes.memset(target, value, size)


HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


class CUDARuntimeError(RuntimeError):
    pass


class Event:
    stream = None

    def record(self, stream=None):
        self.time = time.perf_counter()

    def synchronize(self):
        happened("synchronize_event", get_current_stream(), self)


def get_elapsed_time(begin, end):
    return (end.time - begin.time) * 1e3


class Graph:
    def __init__(self, launches):
        self._launches = launches

    def launch(self, stream=None):
        TRANSFERS["replays"] += 1
        for launch in self._launches:
            launch()


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr = 0 if null else id(self) & 0xFFFFFFF0
        self.null, self.priority = null, priority or 0
        self.card = current_card()
        self.captured = None
        self.waited_for = []

    def __enter__(self):
        self._check()
        _streams().append(self)
        return self

    def __exit__(self, *_):
        _streams().pop()

    def _check(self):
        assert self.null or self.card == current_card(), f"a stream of card {self.card} on card {current_card()}"

    def begin_capture(self, mode=None):
        self.captured = []

    def end_capture(self):
        launches, self.captured = self.captured, None
        return Graph(launches)

    def record(self, event=None):
        event = event or Event()
        event.stream = self
        event.record()
        happened("record", self, event)
        return event

    def wait_event(self, event):
        happened("wait_event", self, event)
        self.waited_for.append(event.stream)

    def synchronize(self):
        self._check()
        happened("synchronize", self)
        assert self.captured is None


def _streams() -> list:
    """The thread's stack of current streams on its current card."""
    stacks = vars(_thread).setdefault("streams", {})
    return stacks.setdefault(current_card(), [])


NULL = Stream(null=True)


def get_current_stream():
    return _streams()[-1] if _streams() else NULL


_ONE_LAUNCH = threading.Lock()
"""All fibers share one thread of the host, so launches of several threads run one after the other."""


class RawKernel:
    def __init__(self, function, cooperative, name):
        self._function, self._cooperative, self._name = function, cooperative, name
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid, block, args, shared_mem=0):
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= max(48 * 1024, DEVICE.shared_memory)
        assert block[0] <= DEVICE.threads, "more threads than the card has"
        if self._cooperative:
            assert grid[0] <= DEVICE.multiprocessors, "a cooperative grid that the card cannot hold"
        values = [self._argument(value) for value in args]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))

        def launch(values=values):
            TRANSFERS["launches"] += 1
            with _ONE_LAUNCH:
                self._function(grid[0], block[0], ctypes.c_size_t(shared_mem), int(self._cooperative), pointers)

        stream = get_current_stream()
        happened("launch", stream, self._name)
        if stream.captured is not None:
            stream.captured.append(launch)
        else:
            launch()

    @staticmethod
    def _argument(value):
        if isinstance(value, ndarray):
            value._check()
            return ctypes.c_uint64(value.data.ptr)
        if isinstance(value, np.ndarray):  # a structure by value
            assert value.size == 1 and value.itemsize <= 4096, "kernels take a structure's array [1], of up to 4 KB"
            return (ctypes.c_ubyte * value.nbytes).from_buffer_copy(value.tobytes())
        assert isinstance(value, np.generic), f"kernels take arrays and NumPy's numbers, got {type(value)}"
        if isinstance(value, np.uint64):
            MEMORY.check(int(value))
        return (ctypes.c_ubyte * value.nbytes).from_buffer_copy(value.tobytes())


class RawModule:
    def __init__(self, code, options=(), enable_cooperative_groups=False):
        self._library = compiled(code, options)
        self._cooperative = enable_cooperative_groups

    def get_function(self, name):
        return RawKernel(getattr(self._library, f"emulated_{name}"), self._cooperative, name)


LIBRARIES: dict[str, ctypes.CDLL] = {}


def compiled(code: str, options=(), extra=tuple(os.environ.get("TDT_EMULATION_FLAGS", "").split())) -> ctypes.CDLL:
    """A source file built for the host. For each kernel it has a function that launches the kernel."""
    headers = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.h")))
    key = hashlib.sha256(repr((code, options, extra)).encode() + headers).hexdigest()[:20]
    if key not in LIBRARIES:
        library = made_once(f"{key}.so", lambda file: _build(code, [*extra, *options], file))
        LIBRARIES[key] = ctypes.CDLL(str(library))
    return LIBRARIES[key]


def kernels_in(code: str, phases: bool = False) -> list[str]:
    """The names of a source's kernels; ``phases``: those that are launched phase by phase, where it has both kinds."""
    kept = re.sub(
        r"#if !TDT_PHASES[^\n]*\n(.*?)#else(.*?)#endif", lambda found: found[1 + phases], code, flags=re.DOTALL
    )
    return re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(", kept)


def _build(code: str, options: list[str], library: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler (g++) to emulate a card with")
    kernels = kernels_in(code, "-DTDT_PHASES=1" in options)
    glue = "".join(
        f'extern "C" void emulated_{name}(unsigned grid, unsigned block, std::size_t shared, int cooperative, '
        f"void** arguments) {{ tdt::host::launch({name}, grid, block, shared, cooperative, arguments); }}\n"
        for name in kernels
    )
    command = ["g++", "-x", "c++", "-std=c++17", "-O1", "-g1", "-shared", "-fPIC", "-DTDT_HOST_CUDA", f"-I{HERE}"]
    command += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", *options, "-", "-o", str(library)]
    done = subprocess.run(command, input=code + "\n" + glue, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[:6000])


def module() -> ModuleType:
    """A module that takes CuPy's place."""
    cupy = ModuleType("cupy")
    names = (ndarray, asarray, asnumpy, from_dlpack, empty, zeros, concatenate, ascontiguousarray, RawModule)
    for item in names:
        setattr(cupy, item.__name__, item)
    cupy.cuda = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        get_elapsed_time=get_elapsed_time,
        get_current_stream=get_current_stream,
        Device=Device,
        alloc_pinned_memory=alloc_pinned_memory,
        driver=SimpleNamespace(CUDADriverError=CUDARuntimeError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyAsync=memcpyAsync,
            memsetAsync=memsetAsync,
            memcpyHostToDevice=HOST_TO_DEVICE,
            memcpyDeviceToHost=DEVICE_TO_HOST,
            getDeviceCount=lambda: DEVICE.count,
            getDevice=current_card,
            streamCaptureModeThreadLocal=1,
            getDeviceProperties=lambda index: {"name": DEVICE.name, "totalGlobalMem": DEVICE.memory},
        ),
    )
    return cupy


def _forget_cards() -> None:
    """Empty the package's caches, so that nothing is carried over from one card to another."""
    for name, loaded in list(sys.modules.items()):
        if name.startswith(("tdtdecode.cuda", "tdtdecode.networks.cuda")):
            for kept in vars(loaded).values():
                if hasattr(kept, "cache_clear"):
                    kept.cache_clear()
                elif isinstance(kept, weakref.WeakKeyDictionary):
                    kept.clear()


@contextlib.contextmanager
def installed(**device):
    """Within it this module takes CuPy's place. The card is `DEVICE`, with the attributes in ``device`` changed."""
    before, found = dict(vars(DEVICE)), sys.modules.get("cupy")
    vars(DEVICE).update(device)
    sys.modules["cupy"] = module()
    _forget_cards()
    try:
        yield sys.modules["cupy"]
    finally:
        _forget_cards()
        vars(DEVICE).update(before)
        sys.modules.pop("cupy")
        if found is not None:
            sys.modules["cupy"] = found
