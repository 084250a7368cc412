"""Time of onnx-asr's `recognize` before and after `tdtdecode.integrations.onnx_asr.accelerate`.

    python -m benches.onnx_asr_drop_in [--save]

The models are random ones of Parakeet's size with a tiny encoder, so that decoding takes nearly all of the time, and
the demo model on its recordings. Results are checked to be identical before anything is timed.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import onnx_asr
import onnxruntime

from tdtdecode.benchmark import alternate, summary
from tdtdecode.integrations.onnx_asr import accelerate
from tests import demo

from .random_bundle import make_bundle
from .report import environment, save

SECONDS, RATE = 30, 16000


def measure(name: str, directory, waves: list[np.ndarray], runs: int) -> dict:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    plain = onnx_asr.load_model(
        "nemo-conformer-tdt", directory, sess_options=options, providers=["CPUExecutionProvider"]
    )
    fast = accelerate(plain)
    before, after = (model.with_timestamps().recognize(waves) for model in (plain, fast))
    assert [(r.text, r.timestamps) for r in before] == [(r.text, r.timestamps) for r in after]
    seconds = alternate(
        runs, {"onnx-asr": lambda: plain.recognize(waves), "accelerated": lambda: fast.recognize(waves)}
    )
    result = {"model": name, "recordings": len(waves), "tokens": sum(len(r.tokens) for r in before)}
    result |= {system: summary(values) for system, values in seconds.items()}
    result["ratio_of_medians"] = result["onnx-asr"]["median"] / result["accelerated"]["median"]
    print(
        f"{name}, {len(waves)} recordings: onnx-asr {result['onnx-asr']['median']:.3f} s, "
        f"accelerated {result['accelerated']['median']:.3f} s, {result['ratio_of_medians']:.2f} times the speed",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal(SECONDS * RATE).astype(np.float32) for _ in range(16)]
    results = []
    for vocab_size in (1024, 8192):
        with tempfile.TemporaryDirectory() as folder:
            directory = make_bundle(folder, "combined", vocab_size=vocab_size, mel_bins=80)
            for batch in (1, 16):
                name = f"random, V = {vocab_size}"
                results.append(measure(name, directory, noise[:batch], arguments.runs))
    speech = [samples for samples, _ in demo.recordings().values()]
    results.append(measure("demo", demo.DIRECTORY, speech, arguments.runs))
    if arguments.save:
        save("onnx_asr_drop_in", environment("onnxruntime", "onnx-asr") | {"threads": 1, "comparisons": results})


if __name__ == "__main__":
    main()
