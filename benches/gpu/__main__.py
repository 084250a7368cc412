"""Decoding on a GPU against what the card can do, and against peers on the same card, weights and encoder output.

    python -m benches.gpu [--save]     # V = 1024 and 8192, batch 1, 8, 32 and 128, greedy and beam 4
    python -m benches.gpu --micro      # the card alone: barriers, exchanges, shared memory, cache
    python -m benches.gpu --quick

Needs a card and CuPy. onnxruntime-gpu, onnx-asr, PyTorch with transformers, and NeMo take part if they are installed.
Times run from encoder output on the device to hypotheses on the host. The floor, the least time that a token can take,
is computed from what `--micro` measures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path

import tdtdecode as tdt

from ..report import RESULTS, environment, installed, save
from . import bars, decoding, end_to_end, micro

_PACKAGES = ("cupy-cuda13x", "onnxruntime-gpu", "onnx-asr", "torch", "transformers", "nemo_toolkit")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benches.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--micro", action="store_true", help="measure only the card")
    parser.add_argument("--quick", action="store_true", help="V = 1024, batch 1 and 128, three runs, no peers")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="measure only this package")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    if options.quick:
        options.vocab_size, options.batch, options.runs, options.peers = [1024], [1, 128], 3, False
    try:
        card = micro.measure()
    except (tdt.DeviceError, tdt.MissingDependencyError) as error:
        if options.save and not _measured():
            save("gpu", {"status": f"open: {error}", "bars": bars.reached([])})
        parser.exit(1, f"no figures: {error}\n")
    for name, value in card.items():
        print(f"{name}: {value}")
    comparisons, whole = [], []
    for vocab_size in [] if options.micro else options.vocab_size:
        with tempfile.TemporaryDirectory() as folder:
            model = decoding.Model(vocab_size, Path(folder))
            searches = {"greedy": tdt.Greedy(), "beam 4": tdt.Beam(size=4)}
            for batch in options.batch:
                comparisons.append(
                    decoding.measure(model, batch, options.runs, searches, card, options.peers)
                )
                if options.peers and importlib.util.find_spec("transformers") is not None:
                    whole.append(end_to_end.measure(model, batch, options.runs))
    reached = bars.reached(comparisons)
    for bar in reached:
        print(f"{bar['bar']}: {bar['measured']} ({bar['limit']})")
    if options.save:
        versions = [name for name in _PACKAGES if installed(name)]
        save(
            "gpu",
            environment(*versions)
            | {"status": "measured", "card": card, "bars": reached, "decoding": comparisons, "end_to_end": whole},
        )


def _measured() -> bool:
    """Whether there are measured figures, which "no figures" must not overwrite."""
    file = RESULTS / "gpu.json"
    return file.exists() and json.loads(file.read_text())["status"] == "measured"


if __name__ == "__main__":
    main()
