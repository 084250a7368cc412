"""Services that transcribe in threads and fork beside them: nothing hangs, in the parent or in the children."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

from benches.random_bundle import make_bundle  # noqa: E402
from tests.conftest import HANGING  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SERVICE = """
import os, sys, threading

import numpy as np
import soundfile

import tdtdecode

directory, path, kind, waiting = sys.argv[1:]
model = tdtdecode.load_model(directory, threads=1)
audio = path if kind == "file" else soundfile.read(path, dtype="float32")
expected = model.recognize(audio).text
stop, working = threading.Event(), threading.Barrier(5)
counts, wrong, ended = [0] * 4, [], [threading.Event() for _ in range(4)]

def work(number):
    working.wait()
    while not stop.is_set() or not counts[number]:
        if model.recognize(audio).text != expected:
            wrong.append(number)
        counts[number] += 1
    ended[number].set()

for number in range(4):
    threading.Thread(target=work, args=(number,), daemon=True).start()
working.wait()
for fork in range(60):
    child = os.fork()
    if child == 0:
        # Every second child transcribes too.
        os._exit(0 if fork % 2 or model.recognize(audio).text == expected else 1)
    finished = threading.Event()
    statuses = []
    threading.Thread(target=lambda: (statuses.append(os.waitpid(child, 0)[1]), finished.set()), daemon=True).start()
    if not finished.wait(float(waiting)):
        os.kill(child, 9)
        print(f"child {fork} hangs")
        os._exit(1)
    wrong += [f"child {fork}"] * (statuses[0] != 0)
stop.set()
hanging = [number for number in range(4) if not ended[number].wait(float(waiting))]
print(f"threads that hang: {hanging}; wrong: {wrong}", flush=True)
os._exit(1 if hanging or wrong else 0)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(
        tmp_path_factory.mktemp("bundle"), "combined", vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32,
        mel_bins=80,
    )  # fmt: skip


@pytest.mark.parametrize("kind, rate", [("samples", 16_000), ("file", 44_100)])
def test_four_threads_beside_forks(bundle, tmp_path, kind, rate):
    """Nine seconds of audio: long enough for NumPy to hand a matrix product to the pool of its BLAS."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * rng.standard_normal(9 * rate), rate)
    result = subprocess.run(
        [sys.executable, "-c", SERVICE, str(bundle), str(path), kind, str(HANGING / 3)],
        capture_output=True, text=True, timeout=HANGING,
    )
    assert (result.returncode, result.stdout) == (0, "threads that hang: []; wrong: []\n"), result.stderr
