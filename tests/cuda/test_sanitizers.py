"""Data races and bad addresses in the CUDA kernels: the host's sanitizers on the emulation, NVIDIA's on a card."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANGING
from tests.cuda.helpers import LAUNCHES
from tests.host_cuda.decode_all import MODELS

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


def run(sanitizer: str, *arguments: str, seed: int = 0) -> str:
    """Run `host_cuda.decode_all` under a sanitizer. Returns its output."""
    library = runtime(RUNTIMES[sanitizer])
    if library is None:
        pytest.skip(f"there is no compiler with {RUNTIMES[sanitizer]}")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library} {runtime('libstdc++.so')}",
        "TDT_EMULATION_FLAGS": FLAGS[sanitizer],
        "TDT_EMULATION_SEED": str(seed),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=0",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "tests.host_cuda.decode_all", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANGING)
    return done.stdout + done.stderr


SAMPLE = ("thread", "persistent", "two-layers"), ("address", "phases", "one-layer")
EVERY = list(itertools.product(RUNTIMES, LAUNCHES, MODELS))


@pytest.mark.parametrize(
    "sanitizer, how, model",
    [pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.exhaustive) for case in EVERY],
)
def test_no_fused_kernel_has_an_error(sanitizer, how, model):
    output = run(sanitizer, how, model, seed=len(how))
    assert "done" in output and "Sanitizer" not in output and "runtime error" not in output, output[:8000]


@pytest.mark.parametrize("sanitizer", RUNTIMES)
def test_no_kernel_of_features_has_an_error(sanitizer):
    output = run(sanitizer, "features")
    assert "done" in output and "Sanitizer" not in output and "runtime error" not in output, output[:8000]


@pytest.mark.parametrize(
    "sanitizer, planted", [("thread", "between_blocks"), ("thread", "between_warps"), ("address", "past_the_end")]
)
def test_planted_errors_are_found(sanitizer, planted):
    output = run(sanitizer, planted)
    assert REPORTS[sanitizer] in output, output[:8000]


@pytest.mark.card
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer(tool):
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not installed")
    tests = [f"tests/cuda/test_fused.py::{name}" for name in ("TestGreedy::test_it_is_the_specification", "TestBeam")]
    # A decode fetches its log whole, though only a part of it was written. initcheck names that copy, no error:
    # what kernels read must have been written.
    exits = [] if tool == "initcheck" else ["--error-exitcode", "9"]
    command = [program, "--tool", tool, *exits, sys.executable, "-m", "pytest", "-q", "-n", "0"]
    command += ["-m", "card", "-k", "not rnnt", *tests]
    environment = {**os.environ, "TDTDECODE_TEST_POOLS": "0"}
    hours = 4 * 3600  # under these tools, kernels of 150 KB whose blocks wait for each other take long
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=hours)
    assert done.returncode == 0 and "Uninitialized __global__ memory read" not in done.stdout, done.stdout[-8000:]
