"""NVRTC, CUDA's run-time compiler, from its wheel. It compiles device code on machines without a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import lru_cache
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


@lru_cache(maxsize=None)
def load_nvrtc() -> ctypes.CDLL:
    """The library in the nvidia-cuda-nvrtc wheel; ImportError if it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for path in sorted(Path(folder).glob("**/libnvrtc.so.*"), reverse=True):
            return ctypes.CDLL(str(path))
    raise ImportError("the nvidia-cuda-nvrtc wheel is not installed")


def compile_source(
    source: str, name: str, architecture: int, include: list[Path], cubin: bool = False, **defines: str | int
) -> bytes:
    """PTX of a source, or with ``cubin`` the machine code for sm_<architecture>, compiled as CuPy does.

    RuntimeError with the compiler's log if it does not compile.
    """
    nvrtc, program = load_nvrtc(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    options = ["-std=c++17", f"-arch={'sm' if cubin else 'compute'}_{architecture}", "-ftz=true"]
    options += [f"-I{folder}" for folder in include]
    options += [f"-D{macro}={value}" for macro, value in defines.items()]
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), arguments):
            raise RuntimeError(f"{name} for sm_{architecture}:\n{_output(program, 'ProgramLog').decode()}")
        return _output(program, "CUBIN" if cubin else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _output(program: ctypes.c_void_p, what: str) -> bytes:
    nvrtc, size = load_nvrtc(), ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw.rstrip(b"\0") if what != "CUBIN" else buffer.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC failed with status {status}")
