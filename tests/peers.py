"""What other systems say to the demo's recordings."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import demo

RATE = 16_000


def sherpa_onnx_texts(directory: Path) -> list[str]:
    """The texts of sherpa-onnx for a split directory; its features differ from ours.

    What it does not take ends its process, which is one of its own for that.
    """
    if importlib.util.find_spec("sherpa_onnx") is None:
        pytest.skip("sherpa_onnx is not installed")
    run = subprocess.run(
        [sys.executable, "-m", __name__, directory], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def onnx_asr_texts(directory: Path) -> list[str]:
    """The texts of onnx-asr for a combined directory."""
    import onnx_asr

    model = onnx_asr.load_model("nemo-conformer-tdt", directory, providers=["CPUExecutionProvider"])
    return [model.recognize(samples) for samples, _ in demo.recordings().values()]


def _sherpa_onnx(directory: Path) -> list[str]:
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{part: str(directory / f"{part}.onnx") for part in ("encoder", "decoder", "joiner")},
        tokens=str(directory / "tokens.txt"),
        model_type="nemo_transducer",
        num_threads=1,
    )
    texts = []
    for samples, _ in demo.recordings().values():
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, samples)
        recognizer.decode_stream(stream)
        texts.append(stream.result.text.strip())
    return texts


if __name__ == "__main__":
    print(json.dumps(_sherpa_onnx(Path(sys.argv[1]))))
