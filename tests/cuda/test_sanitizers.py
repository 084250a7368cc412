"""Data races and bad addresses in the CUDA kernels: the host's sanitizers on the emulation, NVIDIA's on a card."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cuda.helpers import LAUNCHES, NO_CARD

ROOT = Path(__file__).parents[2]
RUNTIMES = {"thread": "libtsan.so", "address": "libasan.so"}
FLAGS = {"thread": "-fsanitize=thread", "address": "-fsanitize=address,undefined -fno-sanitize-recover=undefined"}
REPORTS = {"thread": "WARNING: ThreadSanitizer: data race", "address": "ERROR: AddressSanitizer"}


def runtime(name: str) -> str | None:
    """The path of one of the compiler's libraries; None if there is none."""
    if shutil.which("g++") is None:
        return None
    command = ["g++", f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return path if os.path.isabs(path) and os.path.exists(path) else None


def run(sanitizer: str, what: str, folder: Path, seed: int = 0) -> str:
    """Run `host_cuda.decode_all` under a sanitizer. Returns its output."""
    library = runtime(RUNTIMES[sanitizer])
    if library is None:
        pytest.skip(f"the compiler here has no {RUNTIMES[sanitizer]}")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library} {runtime('libstdc++.so')}",
        "TDT_EMULATION_FLAGS": FLAGS[sanitizer],
        "TDT_EMULATION_SEED": str(seed),
        "TDT_EMULATION_FOLDER": str(folder),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=0",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "tests.host_cuda.decode_all", what]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where kernels that were built for one test are kept for the next."""
    return tmp_path_factory.mktemp("sanitized")


LANES = {"thread": tuple(LAUNCHES), "address": ("persistent", "phases")}
"""The launches that run under each sanitizer. Those of one sanitizer run one after the other and share what was built;
the two sanitizers run at the same time."""


@pytest.fixture(scope="module")
def outputs(folder):
    def of(sanitizer: str) -> dict[str, str]:
        return {how: run(sanitizer, how, folder, seed=len(how)) for how in LANES[sanitizer]}

    with ThreadPoolExecutor(len(LANES)) as pool:
        yield {sanitizer: pool.submit(of, sanitizer) for sanitizer in LANES}


@pytest.mark.parametrize("sanitizer, how", [(sanitizer, how) for sanitizer, hows in LANES.items() for how in hows])
def test_no_fused_kernel_has_an_error(sanitizer, how, outputs):
    output = outputs[sanitizer].result()[how]
    assert "done" in output and "Sanitizer" not in output and "runtime error" not in output, output[:8000]


@pytest.mark.parametrize(
    "sanitizer, planted", [("thread", "between_blocks"), ("thread", "between_warps"), ("address", "past_the_end")]
)
def test_planted_errors_are_found(sanitizer, planted, folder):
    output = run(sanitizer, planted, folder)
    assert REPORTS[sanitizer] in output, output[:8000]


@pytest.mark.skipif(NO_CARD is not None, reason=str(NO_CARD))
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer(tool):
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not installed")
    tests = [f"tests/cuda/test_fused.py::{name}" for name in ("TestGreedy::test_it_is_the_specification", "TestBeam")]
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q"]
    command += ["-k", "card and not rnnt", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-8000:]
