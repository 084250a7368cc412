"""Greedy decoding through the ONNX Runtime network against onnx-asr's decode loop: same graphs, same encoder output.

    python -m benches.greedy_onnx_asr [--vocab-size 1024 8192] [--batch 1 16] [--runs 7] [--save]

Both use one thread. onnx-asr decodes one utterance after the other, ours all of them in lockstep. The model is random,
of Parakeet's size, tuned to about 3.3 tokens a second.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx_asr
import onnxruntime as ort

import tdtdecode as tdt

from .random_bundle import make_bundle, random_encoder_out
from .report import alternate, environment, save, summary

FRAMES = 423  # 33.8 s of audio


def measure(vocab_size: int, batches: list[int], runs: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        directory = make_bundle(Path(folder), "combined", vocab_size=vocab_size, mel_bins=80)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        peer = onnx_asr.load_model(
            "nemo-conformer-tdt", directory, sess_options=options, providers=["CPUExecutionProvider"]
        ).asr
        decoder = tdt.Decoder.from_bundle(directory)
        return [compare(decoder, peer, vocab_size, batch, runs) for batch in batches]


def compare(decoder: tdt.Decoder, peer, vocab_size: int, batch: int, runs: int) -> dict:
    encoder_out = np.stack([random_encoder_out(FRAMES, 1024, seed) for seed in range(batch)])
    lengths = np.full(batch, FRAMES)
    frames_first = np.ascontiguousarray(encoder_out.transpose(0, 2, 1))

    ours = decoder.decode(encoder_out, lengths)
    theirs = list(peer._decoding(frames_first, lengths))
    for hypothesis, (tokens, timestamps, _) in zip(ours, theirs, strict=True):
        assert hypothesis.tokens.tolist() == tokens and hypothesis.frames.tolist() == timestamps
    tokens = sum(map(len, ours))

    seconds = alternate(
        runs,
        tdtdecode=lambda: decoder.decode(encoder_out, lengths),
        onnx_asr=lambda: list(peer._decoding(frames_first, lengths)),
    )
    result = {"vocab_size": vocab_size, "batch": batch, "frames": FRAMES, "tokens": tokens, "threads": 1}
    for name, values in seconds.items():
        result[name] = summary(values) | {"us_per_token": summary(values)["median"] / tokens * 1e6}
    result["ratio_of_medians"] = result["onnx_asr"]["median"] / result["tdtdecode"]["median"]
    print(
        f"V = {vocab_size}, batch {batch}, {tokens} tokens: "
        f"onnx-asr {result['onnx_asr']['median']:.3f} s ({result['onnx_asr']['us_per_token']:.0f} us/token), "
        f"tdtdecode {result['tdtdecode']['median']:.3f} s ({result['tdtdecode']['us_per_token']:.0f} us/token), "
        f"{result['ratio_of_medians']:.2f} times the throughput, tokens and frames identical",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="keep the figures under benches/results")
    arguments = parser.parse_args()
    comparisons = [c for size in arguments.vocab_size for c in measure(size, arguments.batch, arguments.runs)]
    if arguments.save:
        save("greedy_onnx_asr", environment("onnxruntime", "onnx-asr") | {"comparisons": comparisons})


if __name__ == "__main__":
    main()
