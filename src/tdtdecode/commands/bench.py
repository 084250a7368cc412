"""``tdtdecode bench``: measure how fast a model is decoded here, by each network and precision."""

from __future__ import annotations

import argparse
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_integer
from ..benchmark import compare_decoders, random_encoder_out
from ..bundle import Bundle, read_bundle
from ..decoder import Decoder
from ..errors import InputError
from ..hypothesis import Hypothesis
from ..networks.fused import PRECISIONS
from ..speech.hub import demo_directory, find_model
from ..speech.loading import open_encoder
from ..speech.recognizer import Recognizer
from .options import add_source, source_options
from .status import DONE

HELP = "Measure greedy decoding of a model: microseconds per token, by network and precision."

MOST_TOKENS_PER_SECOND = 10.0
"""If random frames give more tokens per second of audio than this, they do not stand for speech."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default="demo",
                        help="'demo', a model directory or a hub id (default: demo)")
    add_source(parser)
    parser.add_argument("--encoder-out", type=Path, metavar="FILE.npz",
                        help="encoder output to decode: arrays encoder_out [B, E, T] and lengths [B] (default: random)")
    parser.add_argument("--recordings", nargs="+", type=Path, default=[], metavar="AUDIO",
                        help="count on these in how many tokens the decoders differ (default: for the demo model its "
                        "own recording, else they are not counted)")
    parser.add_argument("--network", choices=("fused", "ort"), help="default: all that can be used")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: all that the network has")
    parser.add_argument("--batch", type=int, default=1, help="random utterances decoded together (default: 1)")
    parser.add_argument("--frames", type=int, default=400, help="encoder frames per random utterance (default: 400)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the decoder (default: 1)")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each decoder, after a warm-up (default: 7)")
    parser.add_argument("--kernels", default="auto",
                        help="a kernel set that `tdtdecode info` lists (default: the fastest)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    for name in ("batch", "frames", "threads", "runs"):
        as_integer(f"--{name}", getattr(arguments, name), low=1)
    bundle = read_bundle(find_model(arguments.model, arguments.variant), **source_options(arguments))
    encoder_out, lengths = _input(arguments, bundle)
    figures, refused = compare_decoders(
        bundle, encoder_out, lengths, arguments.network, arguments.precision, arguments.kernels, arguments.threads,
        arguments.runs, _speech(arguments, bundle, encoder_out, lengths),
    )  # fmt: skip
    frames = int(np.sum(lengths))
    result = {
        "model": str(bundle.directory), "encoder_out": str(arguments.encoder_out or "random"), "batch": len(lengths),
        "frames": frames, "speech_seconds": frames * bundle.frame_seconds, "threads": arguments.threads,
        "decoders": figures, "refused": refused,
    }  # fmt: skip
    print(json.dumps(result, indent=2)) if arguments.json else _print(result)
    return DONE


def _input(arguments: argparse.Namespace, bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths [B]."""
    if arguments.encoder_out is not None:
        return _read_encoder_out(arguments.encoder_out)
    assert bundle.spec.encoder_size is not None  # known for every bundle
    try:
        encoder_out = random_encoder_out(arguments.batch, bundle.spec.encoder_size, arguments.frames)
    except MemoryError:
        raise InputError(
            f"--batch {arguments.batch}, --frames {arguments.frames}: so much encoder output does not fit into memory"
        ) from None
    return encoder_out, np.full(arguments.batch, arguments.frames)


def _speech(
    arguments: argparse.Namespace, bundle: Bundle, encoder_out: np.ndarray, lengths: np.ndarray
) -> Callable[[Decoder], list[Hypothesis]] | None:
    """What decodes speech, to count edits; None if there is none."""
    recordings = [*arguments.recordings]
    if not recordings and arguments.encoder_out is not None:
        return lambda decoder: decoder.decode(encoder_out, lengths)
    if not recordings and bundle.directory == demo_directory().resolve() and bundle.encoder is not None:
        recordings = [demo_directory() / "speech.flac"]
    if not recordings:
        return None
    encoder = open_encoder(bundle)

    def decoded(decoder: Decoder) -> list[Hypothesis]:
        found = Recognizer(bundle, encoder, decoder).recognize(recordings)
        return [transcript.hypothesis for transcript in found if transcript.hypothesis is not None]

    return decoded


def _read_encoder_out(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output [B, E, T] and lengths [B] from a file. If it has no lengths, all utterances have T frames."""
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("this is a single array")
        with arrays:
            encoder_out = arrays["encoder_out"]
            if encoder_out.ndim != 3:
                raise ValueError(f"encoder_out is {list(encoder_out.shape)}")
            full = np.full(len(encoder_out), encoder_out.shape[2])
            return encoder_out, arrays["lengths"] if "lengths" in arrays else full
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
        other = ""
        if entry.get("differing_tokens"):
            edits, compared = entry["differing_tokens"], entry["compared_tokens"]
            other = f", on speech {edits} edits in {compared} tokens ({edits / max(compared, 1):.1%})"
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
