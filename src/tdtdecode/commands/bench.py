"""``tdtdecode bench``: how fast a model is decoded here, by every network and precision."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark import alternate, floor_seconds, random_encoder_out, stream_bandwidth, summary
from ..bundle import Bundle, read_bundle
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..evaluation import edit_distance
from ..hub import find_model
from ..networks.fused import PRECISIONS, FusedNetwork, FusedProgram
from ..transducer import as_integer
from .status import DONE

HELP = "Measure greedy decoding of a model: microseconds per token, by network and precision."

DEFAULT_ENCODER_SIZE = 1024
"""E of random frames where no encoder and no fused network tells it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default="demo",
                        help="'demo', a model directory or a hub id (default: demo)")
    parser.add_argument("--variant", help="which files of the model: int8, fp16, ... (default: those without a suffix)")
    parser.add_argument("--encoder-out", type=Path, metavar="FILE.npz",
                        help="encoder output to decode: arrays encoder_out [B, E, T] and lengths [B]; default: random")
    parser.add_argument("--batch", type=int, default=1, help="random utterances decoded together (default: 1)")
    parser.add_argument("--frames", type=int, default=400, help="encoder frames of each (default: 400)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each, after a warm-up (default: 7)")
    parser.add_argument("--kernels", default="auto",
                        help="a kernel set that `tdtdecode info` lists (default: the best)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    for name in ("batch", "frames", "threads", "runs"):
        as_integer(f"--{name}", getattr(arguments, name), low=1)
    bundle = read_bundle(find_model(arguments.model, arguments.variant), variant=arguments.variant)
    decoders, refused = _decoders(bundle, arguments.kernels, arguments.threads)
    encoder_out, lengths = _input(arguments, bundle, decoders)
    found = {name: decoder.decode(encoder_out, lengths) for name, decoder in decoders.items()}
    seconds = alternate(
        arguments.runs, {name: partial(decoder.decode, encoder_out, lengths) for name, decoder in decoders.items()}
    )
    reference = [h.tokens.tolist() for h in next(iter(found.values()))]
    figures: dict[str, Any] = {}
    for name, decoder in decoders.items():
        tokens = sum(map(len, found[name]))
        entry: dict[str, Any] = {"tokens": tokens, "kernels": decoder.kernels.name, **summary(seconds[name])}
        entry["times_real_time"] = int(np.sum(lengths)) * bundle.frame_seconds / entry["median"]
        if tokens:
            entry["us_per_token"] = entry["median"] / tokens * 1e6
        edits = sum(edit_distance(a, h.tokens.tolist()) for a, h in zip(reference, found[name]))
        entry["differing_tokens"] = edits
        if isinstance(decoder.program, FusedProgram):
            isa = decoder.kernels.isa
            assert isa is not None
            bandwidth = stream_bandwidth(isa, decoder.program.packed.streamed_bytes, arguments.threads)
            entry |= {"bytes_per_token": decoder.program.packed.token_bytes, "stream_bandwidth": bandwidth}
            floor = floor_seconds(decoder, tokens, bandwidth)
            if len(lengths) == 1 and floor is not None:
                entry["floor_fraction"] = floor / entry["median"]
        figures[name] = entry
    result = {
        "model": str(bundle.directory), "batch": len(lengths), "frames": int(np.sum(lengths)),
        "threads": arguments.threads, "decoders": figures, "refused": refused,
    }  # fmt: skip
    print(json.dumps(result, indent=2)) if arguments.json else _print(result)
    return DONE


def _decoders(bundle: Bundle, kernels: str, threads: int) -> tuple[dict[str, Decoder], dict[str, str]]:
    """Every decoder of the bundle that can be had, the most exact first; and why the others cannot."""
    decoders, refused = {}, {}
    for name, network, precision in (
        *((f"fused {precision}", "fused", precision) for precision in PRECISIONS), ("ort", "ort", "float32"),
    ):  # fmt: skip
        try:
            decoders[name] = Decoder.from_bundle(
                bundle, network=network, precision=precision, kernels=kernels, threads=threads
            )
        except (BundleError, InputError) as error:
            refused[name] = str(error)
    if not decoders:
        raise InputError("; ".join(refused.values()))
    return decoders, refused


def _input(
    arguments: argparse.Namespace, bundle: Bundle, decoders: dict[str, Decoder]
) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths [B]."""
    if arguments.encoder_out is not None:
        try:
            with np.load(arguments.encoder_out, allow_pickle=False) as arrays:
                encoder_out = arrays["encoder_out"]
                every = np.full(len(encoder_out), encoder_out.shape[-1])
                return encoder_out, arrays["lengths"] if "lengths" in arrays else every
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{arguments.encoder_out}: expected an .npz file with encoder_out [B, E, T] and lengths [B]: {error}"
            ) from None
    networks = [decoder.network for decoder in decoders.values()]
    fused = [network for network in networks if isinstance(network, FusedNetwork)]
    size = bundle.spec.encoder_size or (
        fused[0].weights.encoder.weight.shape[1] if fused else DEFAULT_ENCODER_SIZE
    )
    return random_encoder_out(arguments.batch, size, arguments.frames), np.full(arguments.batch, arguments.frames)


def _print(result: dict[str, Any]) -> None:
    print(f"{result['model']}: {result['batch']} utterances, {result['frames']} frames, {result['threads']} threads")
    for name, entry in result["decoders"].items():
        rate = f"{entry['us_per_token']:9.1f} us/token" if entry["tokens"] else " no tokens emitted"
        floor = f", {entry['floor_fraction']:.0%} of what memory allows" if "floor_fraction" in entry else ""
        other = f", {entry['differing_tokens']} edits from the first" if entry["differing_tokens"] else ""
        print(
            f"  {name:<15} {entry['kernels']:<15} {entry['tokens']:6} tokens {rate} "
            f"{entry['times_real_time']:9.0f} times real time{floor}{other}"
        )
    for name, reason in result["refused"].items():
        print(f"  {name:<15} not available: {reason}")
