"""Greedy search against its peers on the same encoder output (onnx-asr, sherpa-onnx, NeMo), and against the floor.

    python -m benches.greedy [--save]          # every size, batch 1 to 64, 1 and 2 threads, every precision
    python -m benches.greedy --sets [--save]   # this package alone, with every instruction set of the machine
    python -m benches.greedy --quick

The models have random weights and the sizes of published ones (benches.random_bundle): TDT with V = 1024 and 8192,
and an RNN-T with V = 13,087, which needs a joint row for each frame; there onnx-asr is the only peer. Each utterance
has 423 frames (33.8 s). All systems run in one process, one run of each in turn. Before anything is timed, our tokens
and frames in float32 are checked to be those of onnx-asr; for other precisions the share of tokens that differ is
reported. The floor is the time that reading the weights takes at least, at the rate at which this machine reads a
buffer of that size (tdtdecode.benchmark.floor_seconds).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tdtdecode as tdt
from tdtdecode.benchmark import alternate, floor_seconds, stream_bandwidth, summary
from tdtdecode.evaluation import edit_distance

from .random_bundle import random_encoder_out, random_pieces, write_bundle
from .random_weights import PUBLISHED, Weights, published_durations, random_weights
from .report import environment, installed, save

FRAMES, ENCODER_SIZE, FRAME_SECONDS = 423, 1024, 0.08
PRECISIONS = ("float32", "bfloat16", "int8")
SHERPA_CAP = 5
PEER_BATCH = 16
"""The largest batch that onnx-asr decodes here. It gains nothing from batches."""


class Model:
    """A random model, its directory, and the decoders of all systems on it."""

    def __init__(self, vocab_size: int, folder: Path):
        self.weights: Weights = random_weights(
            vocab_size, published_durations(vocab_size), ENCODER_SIZE, 640, 2, 640
        )
        self.vocab_size = vocab_size
        self.folder = folder
        from .nemo_graphs import encoder_graph

        encoder = encoder_graph(80, ENCODER_SIZE, np.dtype(np.float32), 0)
        self.directory = write_bundle(
            folder / "combined", "combined", self.weights, random_pieces(self.weights), encoder
        )

    def ours(self, threads: int, every_set: bool) -> dict[str, tdt.Decoder]:
        """Decoders by network and precision, and by instruction set where that is not the best of this machine."""
        decoders = {"ort": tdt.Decoder.from_bundle(self.directory, network="ort", threads=threads)}
        for precision in PRECISIONS:
            best = tdt.Decoder.from_bundle(self.directory, network="fused", precision=precision, threads=threads)
            decoders[f"fused {precision}"] = best
            for kernels in tdt.kernels.available():
                if every_set and kernels.isa not in (None, best.kernels.isa):
                    decoders[f"fused {precision}, {kernels.isa}"] = tdt.Decoder.from_bundle(
                        self.directory, network="fused", precision=precision, kernels=kernels.name, threads=threads
                    )
        return decoders

    def onnx_asr(self, threads: int):
        import onnx_asr
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        kind = "nemo-conformer-tdt" if self.weights.durations else "nemo-conformer-rnnt"
        return onnx_asr.load_model(
            kind, self.directory, sess_options=options, providers=["CPUExecutionProvider"]
        ).asr

    def sherpa(self, encoder_out: np.ndarray, threads: int) -> tuple[Callable, Callable]:
        """Two functions: one decodes an utterance, the other a single frame, to measure all that is not decoding."""
        from .sherpa import sherpa_decoder

        whole = sherpa_decoder(self.folder / "sherpa", self.weights, encoder_out, threads)
        silent = np.zeros_like(encoder_out)[:, :1]
        return whole, sherpa_decoder(self.folder / "sherpa-one", self.weights, silent, threads)


def measure(model: Model, batch: int, threads: int, runs: int, peers: bool, every_set: bool) -> dict:
    encoder_out = np.stack([random_encoder_out(FRAMES, ENCODER_SIZE, seed) for seed in range(batch)])
    lengths = np.full(batch, FRAMES)
    decoders = model.ours(threads, every_set)
    found = {name: decoder.decode(encoder_out, lengths) for name, decoder in decoders.items()}
    reference = [h.tokens.tolist() for h in found["fused float32"]]
    functions: dict[str, Callable] = {
        name: lambda decoder=decoder: decoder.decode(encoder_out, lengths) for name, decoder in decoders.items()
    }
    notes: dict[str, str] = {}
    counts = {name: sum(map(len, hypotheses)) for name, hypotheses in found.items()}
    if peers and batch <= PEER_BATCH:
        asr, frames_first = model.onnx_asr(threads), np.ascontiguousarray(encoder_out.transpose(0, 2, 1))
        for hypothesis, (tokens, frames, _) in zip(found["fused float32"], asr._decoding(frames_first, lengths)):
            assert hypothesis.tokens.tolist() == tokens and hypothesis.frames.tolist() == frames
        functions["onnx-asr"] = lambda: list(asr._decoding(frames_first, lengths))
    if peers and model.weights.durations and importlib.util.find_spec("nemo") is not None:
        import torch

        from .nemo_modules import nemo_greedy

        torch.set_num_threads(threads)
        nemo = nemo_greedy(model.weights)
        for hypothesis, other in zip(found["fused float32"], nemo(encoder_out, lengths)):
            assert hypothesis.tokens.tolist() == torch.as_tensor(other.y_sequence).tolist()
            assert hypothesis.frames.tolist() == torch.as_tensor(other.timestamp).tolist()
        functions["NeMo"] = lambda: nemo(encoder_out, lengths)
    if peers and batch == 1 and model.weights.durations:
        whole, first_frame = model.sherpa(encoder_out[0], threads)
        pieces = [piece.replace("\u2581", " ") for piece in random_pieces(model.weights)]
        (capped,) = decoders["fused float32"].decode(encoder_out, search=tdt.Greedy(max_symbols=SHERPA_CAP))
        assert [token.replace("\u2581", " ") for token in whole()[0]] == [pieces[token] for token in capped.tokens]
        counts["sherpa-onnx"] = len(capped)
        notes["sherpa-onnx"] = f"it emits at most {SHERPA_CAP} tokens per frame"
        functions["sherpa-onnx"], functions["sherpa-onnx overhead"] = whole, first_frame
    seconds = alternate(runs, functions)
    tokens = sum(map(len, reference))
    result: dict = {
        "vocab_size": model.vocab_size, "durations": list(model.weights.durations), "batch": batch, "threads": threads,
        "tokens": tokens, "systems": {},
    }  # fmt: skip
    overhead = seconds.pop("sherpa-onnx overhead", None)
    for name, values in seconds.items():
        if name == "sherpa-onnx" and overhead is not None:
            values = [value - min(overhead) for value in values]
        entry = summary(values)
        emitted = counts.get(name, tokens)
        entry["us_per_token"] = entry["median"] / emitted * 1e6
        entry["times_real_time"] = batch * FRAMES * FRAME_SECONDS / entry["median"]
        if name in found:
            edits = sum(edit_distance(a, h.tokens.tolist()) for a, h in zip(reference, found[name]))
            entry["token_error_rate"] = edits / tokens
            program = decoders[name].program
            if program is not None:
                isa = decoders[name].kernels.isa
                bandwidth = stream_bandwidth(isa, program.packed.streamed_bytes, threads)
                entry |= {
                    "isa": isa, "bytes_per_token": program.packed.token_bytes, "stream_bandwidth": bandwidth,
                }  # fmt: skip
                if batch == 1:
                    entry["floor_fraction"] = floor_seconds(decoders[name], emitted, bandwidth) / entry["median"]
        if name in notes:
            entry["note"] = notes[name]
        result["systems"][name] = entry
    _print(result)
    return result


def _print(result: dict) -> None:
    what = "V = {vocab_size}, batch {batch}, {threads} threads, {tokens} tokens"
    print(what.format(**result))
    peer = result["systems"].get("onnx-asr", {}).get("us_per_token")
    for name, entry in result["systems"].items():
        ratio = f"{peer / entry['us_per_token']:6.2f}x" if peer else "      -"
        floor = f"  {entry['floor_fraction']:4.0%} of the possible speed" if "floor_fraction" in entry else ""
        error = f"  {entry['token_error_rate']:.2%} of tokens differ" if entry.get("token_error_rate") else ""
        note = f"  ({entry['note']})" if "note" in entry else ""
        print(f"  {name:<26} {entry['us_per_token']:8.1f} us/token {ratio}{floor}{error}{note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, nargs="+", default=list(PUBLISHED))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="V = 1024, batch 1 and 16, one thread, three runs")
    parser.add_argument("--sets", action="store_true", help="every instruction set, on one thread, without peers")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="measure only this package")
    parser.add_argument("--save", action="store_true", help="keep figures and plot under benches/results")
    options = parser.parse_args()
    if options.quick:
        options.vocab_size, options.batch, options.threads, options.runs = [1024], [1, 16], [1], 3
    if options.sets:
        options.threads, options.peers = [1], False
    comparisons = []
    for vocab_size in options.vocab_size:
        with tempfile.TemporaryDirectory() as folder:
            model = Model(vocab_size, Path(folder))
            for threads in options.threads:
                for batch in options.batch:
                    runs = options.runs if batch <= PEER_BATCH else max(3, options.runs // 2)
                    comparisons.append(measure(model, batch, threads, runs, options.peers, options.sets))
    if options.save:
        names = "onnxruntime", "onnx-asr", "sherpa_onnx", "nemo_toolkit", "torch"
        packages = [name for name in names if installed(name)]
        name = "greedy_sets" if options.sets else "greedy"
        save(name, environment(*packages) | {"frames": FRAMES, "comparisons": comparisons})
        if not options.sets:
            from .plot import draw

            draw(name)


if __name__ == "__main__":
    main()
