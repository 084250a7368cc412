"""Streams in many threads: random operations; and the same with the compiled code under ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import tdtdecode as tdt  # noqa: E402
from tests.conftest import HANGING  # noqa: E402
from tests.cuda.test_sanitizers import runtime  # noqa: E402
from tests.speech.random_streams import GOLDEN, features_of, problems_of  # noqa: E402

ROOT = Path(__file__).parents[2]
WITHOUT_THE_EDITABLE_ONE = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "Redirecting" not in type(finder).__name__]
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
runpy.run_module("tests.speech.random_streams", run_name="__main__")
"""


def test_random_operations():
    """TDTDECODE_STREAM_OPERATIONS says how many each of four threads does."""
    operations = int(os.environ.get("TDTDECODE_STREAM_OPERATIONS", 300))
    model = tdt.load_model(GOLDEN / "tdt-4-0", layout="split")
    assert problems_of(model, features_of("tdt-4-0"), None, operations) == []


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The package, compiled for ThreadSanitizer."""
    if runtime("libtsan.so") is None:
        pytest.skip("there is no compiler with libtsan.so")
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    folder = tmp_path_factory.mktemp("tsan")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
               str(folder / "site"), "-C", "cmake.define.TDT_SANITIZE=thread", "-C", f"build-dir={folder / 'build'}",
               str(ROOT)]  # fmt: skip
    subprocess.run(command, check=True, timeout=HANGING)
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("name, search", [("tdt-4-0", "greedy"), ("tdt-4-0", "beam"), ("rnnt-8-1", "beam")])
def test_thread_sanitizer(sanitized, name, search):
    """ONNX Runtime itself is not compiled for it: what it does within its own library is left out."""
    (sanitized / "suppressions").write_text("race:onnxruntime_pybind11_state\n")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libtsan.so')} {runtime('libstdc++.so')}",
        "TSAN_OPTIONS": f"halt_on_error=0 suppressions={sanitized / 'suppressions'}",
        "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", WITHOUT_THE_EDITABLE_ONE, str(sanitized / "site"), name, "100", search]
    done = subprocess.run(command, cwd=sanitized, env=environment, capture_output=True, text=True, timeout=HANGING)
    output = done.stdout + done.stderr
    assert "clean" in done.stdout and "ThreadSanitizer" not in output and not done.returncode, output[:8000]
