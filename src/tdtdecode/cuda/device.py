"""The card that CuPy would use, and kernels compiled for it."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..errors import DeviceError, MissingDependencyError

MAX_THREADS = 512
"""Threads of a block; the kernels are compiled for at most so many."""

_STATIC_SHARED = 48 * 1024
"""Bytes of dynamic shared memory that a kernel gets without asking."""


def import_cupy() -> Any:
    """The module cupy.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise MissingDependencyError("cupy-cuda13x", "gpu", "device 'cuda'") from None


@dataclass(frozen=True)
class Device:
    """A card.

    Attributes
    ----------
    index:
        Its number among those that CUDA sees.
    name:
        What it is called.
    capability:
        Compute capability, 90 for 9.0.
    multiprocessors:
        How many there are.
    shared_memory:
        Bytes that one block can have at most.
    threads:
        Of a block, as the kernels use it.
    cooperative:
        Whether blocks of one launch can wait for each other.
    """

    index: int
    name: str
    capability: int
    multiprocessors: int
    shared_memory: int
    threads: int
    cooperative: bool


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
    except Exception as error:  # CuPy's own: no driver, no permission, ...
        raise DeviceError(f"device 'cuda' cannot be used: {error}; use device='cpu'") from error
    return _device(index)


@lru_cache(maxsize=None)
def _device(index: int) -> Device:
    cupy = import_cupy()
    attributes = cupy.cuda.Device(index).attributes
    return Device(
        index,
        cupy.cuda.runtime.getDeviceProperties(index)["name"].decode(),
        int(cupy.cuda.Device(index).compute_capability),
        attributes["MultiProcessorCount"],
        attributes["MaxSharedMemoryPerBlockOptin"],
        min(MAX_THREADS, attributes["MaxThreadsPerBlock"]),
        bool(attributes["CooperativeLaunch"]),
    )


@lru_cache(maxsize=None)
def shared_stream(index: int) -> Any:
    """The stream that all sessions on a card share: what follows them there comes after them.

    It is not the default stream, whose address, 0, ONNX Runtime takes for none.
    """
    return import_cupy().cuda.Stream(non_blocking=True)


class Kernels:
    """The kernels of one source file.

    Parameters
    ----------
    file:
        A file in ``csrc/cuda``.
    defines:
        Macros with their values.
    cooperative:
        Whether the blocks of a launch wait for each other.
    """

    def __init__(self, file: str, defines: tuple[tuple[str, str | int], ...] = (), cooperative: bool = False):
        self.file = file
        self.defines = defines
        self.cooperative = cooperative
        self._functions: dict[str, Any] = {}

    def load(self, names: Iterable[str], shared: int = 0) -> None:
        """Compile kernels, and let their blocks have that much shared memory (bytes)."""
        for name in names:
            function = self._functions.get(name)
            if function is None:
                function = self._functions.setdefault(name, self._module.get_function(name))
            if shared > _STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
                function.max_dynamic_shared_size_bytes = shared

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch a kernel on CuPy's current stream; ``shared`` in bytes."""
        self.load((name,), shared)
        self._functions[name]((blocks,), (threads,), tuple(arguments), shared_mem=shared)

    @cached_property
    def _module(self) -> Any:
        folder = source_folder()
        # CuPy keeps compiled kernels by their source and options, and does not look at what they include.
        options = [f"-D{name}={value}" for name, value in self.defines]
        options += ["-std=c++17", f"-I{folder}", f"-I{folder / 'cuda'}", f"-DTDT_SOURCES={_fingerprint(folder)}"]
        source = (folder / "cuda" / self.file).read_text()
        return import_cupy().RawModule(
            code=source, options=tuple(options), enable_cooperative_groups=self.cooperative
        )


@lru_cache(maxsize=None)
def kernels(file: str, defines: tuple[tuple[str, str | int], ...] = (), cooperative: bool = False) -> Kernels:
    """The kernels of a source file, compiled once."""
    return Kernels(file, defines, cooperative)


@lru_cache(maxsize=None)
def source_folder() -> Path:
    """Where the kernels' sources are: in the installed package, or in the repository that is being worked on."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "csrc", package.parent.parent / "csrc"):
        if (folder / "cuda").is_dir():
            return folder
    raise DeviceError(f"the kernels' sources are missing from {package / 'csrc'}: install the package again")


@lru_cache(maxsize=None)
def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*(folder / "tdt").iterdir(), *(folder / "cuda").iterdir()]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return "0x" + digest.hexdigest()[:12]
