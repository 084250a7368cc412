"""Where the time of a decode goes: the demo model, and a random model of Parakeet's size with V = 8192.

    python -m benches.profile [--save]

`tdtdecode bench --profile` does this for any model. Here float32, bfloat16 and int8 are profiled with greedy search and
with a beam of 4, one utterance and 16, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tdtdecode.benchmark.comparison import Sweep, compare_decoders
from tdtdecode.benchmark.results import PROFILE_COLUMNS, profile_rows
from tdtdecode.bundle import read_bundle
from tdtdecode.speech.hub import demo_directory

from .random_bundle import make_bundle, random_encoder_out
from .report import environment, save

FRAMES, BATCHES, VOCAB_SIZE = 400, (1, 16), 8192


def measure(directory: Path, runs: int) -> list[dict]:
    """The measurements of one model, with profiles."""
    bundle = read_bundle(directory)
    size = bundle.spec.encoder_size
    assert size is not None
    frames = np.stack([random_encoder_out(FRAMES, size, seed) for seed in range(max(BATCHES))])
    batches = [(frames[:batch], np.full(batch, FRAMES)) for batch in BATCHES]
    sweep = Sweep(("greedy", "beam"), network="fused", runs=runs, profile=True)
    found, _ = compare_decoders(bundle, batches, sweep)
    for entry in found:
        print(f"{entry['decoder']}, {entry['search']}, batch {entry['batch']}, {entry['tokens']} tokens")
        for row in [PROFILE_COLUMNS, *profile_rows(entry)]:
            print("  {:<12}{:>8}{:>14}{:>13}".format(*row), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"demo": demo_directory(), f"V = {VOCAB_SIZE}": make_bundle(folder, vocab_size=VOCAB_SIZE)}
        found = {}
        for name, directory in models.items():
            print(name)
            found[name] = measure(directory, options.runs)
    if options.save:
        save("profile", environment("onnxruntime") | {"frames": FRAMES, "models": found})


if __name__ == "__main__":
    main()
