"""The kernel sets: which ones exist, and which ones this machine can run."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from ..arguments import as_choice, refusal
from ..errors import InputError
from ..optional import needed
from ..reprs import one_line

ISA_VARIABLE = "TDTDECODE_ISA"
"""Environment variable that forces the instruction set behind ``kernels="cpu"``."""


@dataclass(frozen=True)
class KernelSet:
    """One implementation of the search kernels. `reference.py` and `reference_beam.py` specify what they do."""

    name: str
    isa: str | None
    decide: Callable
    advance: Callable
    beam_engine: Callable

    def __repr__(self) -> str:
        return one_line(self, self.name, f"C++ for {self.isa}" if self.isa else "")


def available() -> list[KernelSet]:
    """Every kernel set for joint rows on the CPU that this machine can run, slowest first. ``"auto"`` is the last."""
    names = ["reference", *(["jit"] if importlib.util.find_spec("numba") else []), *_cpu_names()]
    return [get(name) for name in names]


@lru_cache(maxsize=None)
def _load(name: str) -> KernelSet:
    if name in ("reference", "jit"):
        with needed("numba", "numba", "the kernel set 'jit'"):
            module = importlib.import_module(f".{name}", __package__)
        return KernelSet(name, None, module.decide, module.advance, module.BeamEngine)
    from . import _beam, _cpu

    if name == "cuda":
        from .cuda import decide

        cpu = get("cpu")
        return KernelSet(name, None, decide, cpu.advance, cpu.beam_engine)
    isa = name.removeprefix("cpu-")
    return KernelSet(name, isa, _cpu.RowDecider(isa), _cpu.advance, partial(_beam.BeamEngine, _cpu.rank_row(isa)))


def get(name: str = "auto", device: str = "cpu") -> KernelSet:
    """The kernel set with a name.

    Parameters
    ----------
    name:
        - ``"reference"``: NumPy;
        - ``"jit"``: Numba;
        - ``"cpu"``: C++ for the best instruction set of this machine, or for the one that the environment variable
          TDTDECODE_ISA names;
        - ``"cpu-baseline"``, ``"cpu-avx2"``, ...: C++ for that instruction set;
        - ``"cuda"``: CUDA C++, for joint rows on a GPU;
        - ``"auto"``: ``"cpu"`` or ``"cuda"``, whichever is the ``device``.
    device:
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        If this machine has no such set. The message lists those that it has.
    MissingDependencyError
        If the name is ``"jit"`` and Numba is not installed, or ``"cuda"`` and CuPy is not.
    DeviceError
        If the name is ``"cuda"`` and there is no card.
    """
    if not isinstance(name, str):
        raise refusal("kernels", "the name of a kernel set, such as 'auto' or 'cpu'", name)
    as_choice("device", device, ("cpu", "cuda"))
    if name == "auto":
        name = device
    if name == "cuda":
        from ..cuda.device import current_device

        current_device()
        return _load(name)
    if name == "cpu":
        forced = os.environ.get(ISA_VARIABLE)
        name = f"cpu-{forced}" if forced else _cpu_names()[-1]
        if name not in _cpu_names():
            raise InputError(f"{ISA_VARIABLE}={forced} names no instruction set of this machine: {_isas()}")
    if name not in ("reference", "jit", *_cpu_names()):
        names = ", ".join(("auto", "reference", "jit", "cpu", *_cpu_names(), "cuda"))
        raise InputError(f"no kernel set {name!r} on this machine: {names}")
    return _load(name)


@lru_cache(maxsize=None)
def _cpu_names() -> tuple[str, ...]:
    from . import _cpu

    return tuple(f"cpu-{isa}" for isa, supported in _cpu.instruction_sets() if supported)


def _isas() -> str:
    return ", ".join(name.removeprefix("cpu-") for name in _cpu_names())


def as_kernels(kernels: KernelSet | str) -> KernelSet:
    """A kernel set, or the one of a name."""
    return kernels if isinstance(kernels, KernelSet) else get(kernels)
