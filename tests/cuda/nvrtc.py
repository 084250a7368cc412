"""Device code compiled on machines without a GPU, by CUDA's run-time compiler from its wheel."""

from __future__ import annotations

from pathlib import Path

from benches.gpu.build import compiled, load_nvrtc

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

__all__ = ["ARCHITECTURES", "compile_source", "load_nvrtc"]


def compile_source(
    source: str, name: str, architecture: int, include: list[Path], cubin: bool = False, **defines: str | int
) -> bytes:
    """PTX of a source, or with ``cubin`` the machine code for sm_<architecture>, compiled as CuPy does.

    RuntimeError with the compiler's log if it does not compile.
    """
    options = ["-std=c++17", f"-arch={'sm' if cubin else 'compute'}_{architecture}", "-ftz=true"]
    options += [f"-I{folder}" for folder in include]
    options += [f"-D{macro}={value}" for macro, value in defines.items()]
    return compiled(source, name, options, "CUBIN" if cubin else "PTX")[0]
