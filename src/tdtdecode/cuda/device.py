"""The card that CuPy uses, and kernels compiled for it."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import DeviceError
from ..forks import cached_property
from ..optional import needed

MAX_THREADS = 512
"""Most threads of a block: the kernels are compiled for no more."""

_DEFAULT_SHARED = 48 * 1024
"""Bytes of dynamic shared memory that a block may have unless the kernel is allowed more."""


def import_cupy() -> Any:
    """The module cupy.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
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
    cooperative:
        Whether the card can launch cooperatively: all blocks run at once and may wait for each other.
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
    except Exception as error:  # an error of CuPy: no driver, no permission, ...
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
    """The stream that all ONNX Runtime sessions on a card share: kernels launched on it later run after them.

    It is not the default stream. The default stream's address is 0, which ONNX Runtime takes for no stream.
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
        Whether launches are cooperative: all blocks run at once and may wait for each other.
    """

    def __init__(self, file: str, defines: tuple[tuple[str, str | int], ...] = (), cooperative: bool = False):
        self.file = file
        self.defines = defines
        self.cooperative = cooperative
        self._functions: dict[str, Any] = {}

    def load(self, names: Iterable[str], shared: int = 0) -> None:
        """Compile kernels, and allow their blocks ``shared`` bytes of dynamic shared memory."""
        for name in names:
            function = self._functions.get(name)
            if function is None:
                function = self._functions.setdefault(name, self._module.get_function(name))
            if shared > _DEFAULT_SHARED and function.max_dynamic_shared_size_bytes < shared:
                function.max_dynamic_shared_size_bytes = shared

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch a kernel on CuPy's current stream, each block with ``shared`` bytes of dynamic shared memory."""
        self.load((name,), shared)
        self._functions[name]((blocks,), (threads,), tuple(arguments), shared_mem=shared)

    @cached_property
    def _module(self) -> Any:
        folder = source_folder()
        # CuPy caches compiled kernels by source and options. It does not see changed headers, so an option names them.
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
    """The folder ``csrc`` with the kernels' sources: in the installed package, or else in the repository."""
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
