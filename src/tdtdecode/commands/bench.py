"""``tdtdecode bench``: how fast a model is decoded here, by every network and precision."""

from __future__ import annotations

import argparse
import json
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark import alternate, floor_seconds, random_encoder_out, stream_bandwidth, summary
from ..bundle import Bundle, read_bundle
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..evaluation import edit_distance
from ..hypothesis import Hypothesis
from ..networks.fused import PRECISIONS, FusedNetwork, FusedProgram
from ..speech.hub import find_model
from ..transducer import as_integer
from .status import DONE

HELP = "Measure greedy decoding of a model: microseconds per token, by network and precision."

DEFAULT_ENCODER_SIZE = 1024
"""E of random frames where no encoder and no fused network tells it."""

MOST_TOKENS_PER_SECOND = 10.0
"""More than people say: then random frames do not stand for speech."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default="demo",
                        help="'demo', a model directory or a hub id (default: demo)")
    parser.add_argument("--variant", help="which files of the model: int8, fp16, ... (default: those without a suffix)")
    parser.add_argument("--encoder-out", type=Path, metavar="FILE.npz",
                        help="encoder output to decode: arrays encoder_out [B, E, T] and lengths [B]; default: random")
    parser.add_argument("--network", choices=("fused", "ort"), help="default: every one that can be had")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: every one that the network has")
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
    decoders, refused = _decoders(bundle, arguments)
    encoder_out, lengths = _input(arguments, bundle, decoders)
    found = _decoded(decoders, refused, encoder_out, lengths)
    seconds = alternate(
        arguments.runs, {name: partial(decoder.decode, encoder_out, lengths) for name, decoder in decoders.items()}
    )
    reference = [h.tokens.tolist() for h in next(iter(found.values()))]
    speech = int(np.sum(lengths)) * bundle.frame_seconds
    figures: dict[str, Any] = {}
    for name, decoder in decoders.items():
        tokens = sum(map(len, found[name]))
        entry: dict[str, Any] = {"tokens": tokens, "kernels": decoder.kernels.name, **summary(seconds[name])}
        entry["times_real_time"] = speech / entry["median"]
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
        "model": str(bundle.directory), "encoder_out": str(arguments.encoder_out or "random"), "batch": len(lengths),
        "frames": int(np.sum(lengths)), "speech_seconds": speech, "threads": arguments.threads,
        "decoders": figures, "refused": refused,
    }  # fmt: skip
    print(json.dumps(result, indent=2)) if arguments.json else _print(result)
    return DONE


def _decoders(bundle: Bundle, arguments: argparse.Namespace) -> tuple[dict[str, Decoder], dict[str, str]]:
    """Every decoder asked for that can be had, the most exact first; and why the others cannot."""
    decoders, refused = {}, {}
    for name, network, precision in _candidates(arguments.network, arguments.precision):
        try:
            decoders[name] = Decoder.from_bundle(
                bundle, network=network, precision=precision, kernels=arguments.kernels, threads=arguments.threads
            )
        except (BundleError, InputError) as error:
            refused[name] = str(error)
    if not decoders:
        raise _nothing_left(refused)
    return decoders, refused


def _candidates(network: str | None, precision: str | None) -> list[tuple[str, str, str]]:
    """Name, network and precision. The graphs of ``"ort"`` compute as they are stored, which is called float32."""
    candidates = []
    if network != "ort":
        candidates = [(f"fused {p}", "fused", p) for p in ([precision] if precision else PRECISIONS)]
    if network == "ort" or (network is None and precision in (None, "float32")):
        candidates.append(("ort", "ort", precision or "float32"))
    return candidates


def _decoded(
    decoders: dict[str, Decoder], refused: dict[str, str], encoder_out: np.ndarray, lengths: np.ndarray
) -> dict[str, list[Hypothesis]]:
    """What each decoder finds. Those that refuse (some kernels lack precisions) move from `decoders` to `refused`."""
    found = {}
    for name, decoder in list(decoders.items()):
        try:
            found[name] = decoder.decode(encoder_out, lengths)
        except InputError as error:
            refused[name] = str(error)
            del decoders[name]
    if not decoders:
        raise _nothing_left(refused)
    return found


def _nothing_left(refused: dict[str, str]) -> InputError:
    return InputError("; ".join(dict.fromkeys(refused.values())))


def _input(
    arguments: argparse.Namespace, bundle: Bundle, decoders: dict[str, Decoder]
) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths [B]."""
    if arguments.encoder_out is not None:
        return _read_encoder_out(arguments.encoder_out)
    networks = [decoder.network for decoder in decoders.values()]
    fused = [network for network in networks if isinstance(network, FusedNetwork)]
    size = bundle.spec.encoder_size or (
        fused[0].weights.encoder.weight.shape[1] if fused else DEFAULT_ENCODER_SIZE
    )
    try:
        encoder_out = random_encoder_out(arguments.batch, size, arguments.frames)
    except MemoryError:
        raise InputError(
            f"--batch {arguments.batch}, --frames {arguments.frames}: so much encoder output does not fit into memory"
        ) from None
    return encoder_out, np.full(arguments.batch, arguments.frames)


def _read_encoder_out(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths [B], all of T unless the file says."""
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("this is a single array")
        with arrays:
            encoder_out = arrays["encoder_out"]
            if encoder_out.ndim != 3:
                raise ValueError(f"encoder_out is {list(encoder_out.shape)}")
            every = np.full(len(encoder_out), encoder_out.shape[2])
            return encoder_out, arrays["lengths"] if "lengths" in arrays else every
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: expected an .npz file with encoder_out [B, E, T] and lengths [B]: {error}"
        ) from None


def _print(result: dict[str, Any]) -> None:
    print(
        f"{result['model']}: {result['batch']} utterances, {result['frames']} frames in all, "
        f"{result['threads']} threads, encoder output: {result['encoder_out']}"
    )
    for name, entry in result["decoders"].items():
        rate = f"{entry['us_per_token']:9.1f} us/token" if entry["tokens"] else " no tokens emitted"
        floor = ""
        if "bytes_per_token" in entry:
            floor = f", {entry['bytes_per_token'] / 1e6:.1f} MB/token at {entry['stream_bandwidth'] / 1e9:.0f} GB/s"
        if "floor_fraction" in entry:
            floor += f": {entry['floor_fraction']:.0%} of what memory allows"
        other = f", {entry['differing_tokens']} edits from the first" if entry["differing_tokens"] else ""
        print(
            f"  {name:<15} {entry['kernels']:<15} {entry['tokens']:6} tokens {rate} "
            f"{entry['times_real_time']:9.0f} times real time{floor}{other}"
        )
    for name, reason in result["refused"].items():
        print(f"  {name:<15} not available: {reason}")
    tokens = next(iter(result["decoders"].values()))["tokens"]
    speech = result["speech_seconds"]
    if result["encoder_out"] == "random" and not 0 < tokens <= MOST_TOKENS_PER_SECOND * speech:
        print(
            f"On random frames this model emits {tokens} tokens in {speech:.1f} s, unlike speech: "
            "give its encoder's output with --encoder-out."
        )
