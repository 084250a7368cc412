"""Beam search against its peers on the same encoder output: NeMo's malsd_batch, sherpa-onnx's modified beam search, and
our own greedy search.

    python -m benches.beam [--save]            # V = 1024 and 8192, batch 1 and 16, beams of 4 and 8, one thread
    python -m benches.beam --quick

The models have random weights and the size of Parakeet (benches.random_bundle). Each utterance has 423 frames
(33.8 s). All systems run in one process, one run of each in turn. Before anything is timed, the best hypotheses of our
"malsd" are compared with NeMo's. Searches find token sequences of different lengths, so speed is given in seconds of
audio per second.

Random weights are the worst case for a beam. They are unsure of everything, so the beam stays full of hypotheses that a
trained model would rule out.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.benchmark import alternate, summary

from .greedy import ENCODER_SIZE, FRAME_SECONDS, FRAMES, PRECISIONS
from .nemo_graphs import encoder_graph
from .random_bundle import random_encoder_out, random_pieces, write_bundle
from .random_weights import Weights, random_weights
from .report import environment, save

SHERPA_PATHS = 4


def bundle(weights: Weights, folder: Path) -> Path:
    encoder = encoder_graph(80, ENCODER_SIZE, np.dtype(np.float32), 0)
    return write_bundle(folder, "combined", weights, random_pieces(weights), encoder)


def measure(weights: Weights, folder: Path, batch: int, size: int, runs: int, peers: bool) -> dict:
    encoder_out = np.stack([random_encoder_out(FRAMES, ENCODER_SIZE, seed) for seed in range(batch)])
    lengths = np.full(batch, FRAMES)
    functions: dict[str, Callable] = {}
    for precision in PRECISIONS:
        decoder = tdt.Decoder.from_bundle(folder / "model", network="fused", precision=precision)
        searches = {"greedy": tdt.Greedy(), f"tsd {size}": tdt.Beam(size=size)}
        if precision == "float32":
            searches[f"malsd {size}"] = tdt.Beam(strategy="malsd", size=size)
        for name, search in searches.items():
            functions[f"{name} {precision}"] = lambda d=decoder, s=search: d.decode(encoder_out, lengths, search=s)
    if peers and importlib.util.find_spec("nemo") is not None:
        import torch

        from .nemo_modules import nemo_malsd

        torch.set_num_threads(1)
        nemo = nemo_malsd(weights, size)
        differing = sum(
            ours.tokens.tolist() != torch.as_tensor(theirs[0].y_sequence).tolist()
            for ours, theirs in zip(functions[f"malsd {size} float32"](), nemo(encoder_out, lengths), strict=True)
        )
        print(f"malsd {size}: the best hypothesis differs from NeMo's in {differing} of {batch} utterances")
        functions[f"NeMo malsd_batch {size}"] = lambda: nemo(encoder_out, lengths)
    if peers and size == SHERPA_PATHS:
        from .sherpa import sherpa_decoder

        first = np.zeros_like(encoder_out[0])[:, :1]
        for name, frames in (("sherpa-onnx", encoder_out[0]), ("sherpa-onnx overhead", first)):
            functions[name] = sherpa_decoder(folder / name, weights, frames, 1, beam=size, batch=batch)
    seconds = alternate(runs, functions)
    overhead = min(seconds.pop("sherpa-onnx overhead", [0.0]))
    result: dict = {
        "vocab_size": weights.vocab_size, "batch": batch, "size": size, "threads": 1, "systems": {},
    }  # fmt: skip
    for name, values in seconds.items():
        entry = summary([value - overhead for value in values] if name == "sherpa-onnx" else values)
        entry["times_real_time"] = batch * FRAMES * FRAME_SECONDS / entry["median"]
        result["systems"][name] = entry
    _print(result)
    return result


def _print(result: dict) -> None:
    print("V = {vocab_size}, batch {batch}, beam {size}, one thread".format(**result))
    systems = result["systems"]
    for name, entry in systems.items():
        cost = entry["median"] / systems["greedy float32"]["median"]
        print(f"  {name:<24} {entry['median'] * 1e3:9.1f} ms  {entry['times_real_time']:8.0f} x real time"
              f"  {cost:6.2f} x our greedy", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--size", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="V = 1024, batch 1, a beam of 4, three runs")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="measure only this package")
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    options = parser.parse_args()
    if options.quick:
        options.vocab_size, options.batch, options.size, options.runs = [1024], [1], [4], 3
    comparisons = []
    for vocab_size in options.vocab_size:
        weights = random_weights(vocab_size, (0, 1, 2, 3, 4), ENCODER_SIZE, 640, 2, 640)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            bundle(weights, folder / "model")
            for batch in options.batch:
                for size in options.size:
                    runs = options.runs if batch == 1 else max(2, options.runs // 2)
                    comparisons.append(measure(weights, folder, batch, size, runs, options.peers))
    if options.save:
        nemo = ("nemo_toolkit", "torch") if importlib.util.find_spec("nemo") else ()
        save("beam", environment("onnxruntime", "sherpa_onnx", *nemo) | {"frames": FRAMES, "comparisons": comparisons})


if __name__ == "__main__":
    main()
