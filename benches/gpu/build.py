"""What it costs to compile the kernels for a card, and what comes out: seconds, registers, spills, bytes of code.

    python -m benches.gpu.build [--architecture 90] [--save]

Needs NVIDIA's run-time compiler (the wheel nvidia-cuda-nvrtc), but no card. A user pays these seconds once, on first
use, since CuPy keeps compiled kernels. They are processor time, which other programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from tdtdecode.cuda.kernels import source_folder
from tdtdecode.cuda.structs import agreement

from ..report import environment, installed, save
from .sass import code_bytes

VARIANTS: dict[str, dict[str, Any]] = {
    "frames.cu, float32": {"TDT_WEIGHT": "Float32"},
    "frames.cu, float16": {"TDT_WEIGHT": "Float16"},
    "fused_greedy.cu, float32": {"TDT_WEIGHT": "Float32", "TDT_PHASES": 0},
    "fused_greedy.cu, float16": {"TDT_WEIGHT": "Float16", "TDT_PHASES": 0},
    "fused_greedy.cu, float16, phases": {"TDT_WEIGHT": "Float16", "TDT_PHASES": 1},
    "fused_beam.cu, float32": {"TDT_WEIGHT": "Float32", "TDT_PHASES": 0},
    "fused_beam.cu, float16": {"TDT_WEIGHT": "Float16", "TDT_PHASES": 0},
    "fused_beam.cu, float16, malsd": {"TDT_WEIGHT": "Float16", "TDT_PHASES": 0, "TDT_STRATEGY": "malsd"},
    "fused_beam.cu, float16, phases": {"TDT_WEIGHT": "Float16", "TDT_PHASES": 1},
    "beam.cu": {},
    "fusion.cu": {},
    "greedy.cu": {},
    "rows.cu": {},
    "gather.cu": {},
    "features.cu": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.gpu.build", description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", type=int, default=90, help="compute capability without its point")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    results = {}
    for name, defines in VARIANTS.items():
        results[name] = measure(name.partition(",")[0], options.architecture, defines)
        print(f"{name:<36} {results[name]['seconds']:6.2f} s  {results[name]['kernels']}", flush=True)
    if options.save:
        versions = [name for name in ("nvidia-cuda-nvrtc",) if installed(name)]
        save("gpu_build", environment(*versions) | {"architecture": options.architecture, "sources": results})


def measure(file: str, architecture: int, defines: dict[str, Any]) -> dict[str, Any]:
    """Compile a source file, and return the seconds, and for each kernel its registers, spills and bytes of code."""
    folder = source_folder()
    source = (folder / "cuda" / file).read_text("utf-8") + agreement(file)
    options = ["-std=c++17", f"-arch=sm_{architecture}", "-ftz=true", f"-I{folder}", f"-I{folder / 'cuda'}"]
    options += ["--ptxas-options=-v", *(f"-D{name}={value}" for name, value in defines.items())]
    begin = time.process_time()
    code, log = compiled(source, file, options)
    seconds, kernels = time.process_time() - begin, _kernels(log)
    for name, size in code_bytes(code).items():
        kernels[name]["code_bytes"] = size
    return {"seconds": seconds, "cubin_bytes": len(code), "kernels": kernels}


def _kernels(log: str) -> dict[str, dict[str, int]]:
    """What the assembler says of each kernel."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name = match[1]
            found[name] = {}
        elif match := re.search(r"Function properties for (\w+)", line):
            name = match[1]
        if name not in found:
            continue
        for key, pattern in (
            ("registers", r"Used (\d+) registers"),
            ("stack_bytes", r"(\d+) bytes stack frame"),
            ("spill_bytes", r"(\d+) bytes spill stores"),
        ):
            if match := re.search(pattern, line):
                found[name][key] = int(match[1])
    return found


@lru_cache(maxsize=None)
def load_nvrtc() -> ctypes.CDLL:
    """The library in the nvidia-cuda-nvrtc wheel; ImportError if it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("**/libnvrtc.so.*"), reverse=True):
            return ctypes.CDLL(str(path))
    raise ImportError("the nvidia-cuda-nvrtc wheel is not installed")


def compiled(source: str, name: str, options: list[str], what: str = "CUBIN") -> tuple[bytes, str]:
    """What a source compiles to, ``"CUBIN"`` or ``"PTX"``, and the compiler's log; RuntimeError if it does not."""
    nvrtc, program = load_nvrtc(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
        log = _output(program, "ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise RuntimeError(f"{name} does not compile with {' '.join(options)}:\n{log}")
        return _output(program, what), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _output(program: ctypes.c_void_p, what: str) -> bytes:
    nvrtc, size = load_nvrtc(), ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC failed with status {status}")


if __name__ == "__main__":
    main()
