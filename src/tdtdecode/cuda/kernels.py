"""Kernels compiled for a card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import DeviceError
from ..forks import Lock, cached_property
from .device import Device, import_cupy
from .structs import agreement

Defines: TypeAlias = tuple[tuple[str, str | int], ...]
"""Macros with their values."""
_DEFAULT_SHARED = 48 * 1024
"""Bytes of dynamic shared memory that a block may have unless the kernel is allowed more."""


class Kernels:
    """The kernels of one source file on a card.

    Parameters
    ----------
    card:
        The card. It must be current where kernels are loaded or launched.
    file:
        A file in ``csrc/cuda``.
    defines:
        Macros with their values.
    cooperative:
        Whether launches are cooperative: all blocks run at once and may wait for each other.
    """

    def __init__(self, card: Device, file: str, defines: Defines = (), cooperative: bool = False):
        self.card = card
        self.file = file
        self.defines = defines
        self.cooperative = cooperative
        self._functions: dict[str, Any] = {}

    def load(self, names: Iterable[str]) -> None:
        """Compile kernels. Their blocks may have all of the card's shared memory."""
        for name in names:
            if name in self._functions:
                continue
            function = self._module.get_function(name)
            # Set before other threads see the kernel, and never changed again.
            if self.card.shared_memory > _DEFAULT_SHARED:
                function.max_dynamic_shared_size_bytes = self.card.shared_memory
            self._functions[name] = function

    def launch(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch a kernel on CuPy's current stream, each block with ``shared`` bytes of dynamic shared memory."""
        self.load((name,))
        self._functions[name]((blocks,), (threads,), tuple(arguments), shared_mem=shared)

    @cached_property
    def _module(self) -> Any:
        folder = source_folder()
        # CuPy caches compiled kernels by source and options. It does not see changed headers, so an option names them.
        options = [f"-D{name}={value}" for name, value in self.defines]
        options += ["-std=c++17", f"-I{folder}", f"-I{folder / 'cuda'}", f"-DTDT_SOURCES={_fingerprint(folder)}"]
        source = (folder / "cuda" / self.file).read_text("utf-8") + agreement(self.file)
        return import_cupy().RawModule(
            code=source, options=tuple(options), enable_cooperative_groups=self.cooperative
        )


@lru_cache(maxsize=None)
def kernels(card: Device, file: str, defines: Defines = (), cooperative: bool = False) -> Kernels:
    """The kernels of a source file on a card, compiled once."""
    return Kernels(card, file, defines, cooperative)


@lru_cache(maxsize=None)
def cooperative_launches(card: Device) -> Lock:
    """Who holds it may launch cooperatively on a card, until the launch is done.

    The blocks of such a launch wait for each other and fill the card. If blocks of two launches shared it, neither
    might ever get room for the rest of its own.
    """
    return Lock()


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
