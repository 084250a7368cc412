"""``tdtdecode bench``: measure how fast a model is decoded here, by network, precision, search, batch and threads."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_integer
from ..benchmark import environment, random_encoder_out
from ..benchmark.comparison import SEARCHES, Sweep, compare_decoders
from ..benchmark.results import PROFILE_COLUMNS, as_csv, check_plot, profile_rows, write_plot
from ..bundle import Bundle, read_bundle
from ..decoder import Decoder
from ..errors import InputError
from ..hypothesis import Hypothesis
from ..networks.fused import PRECISIONS
from ..outputs import refuse_overwriting
from ..reprs import counted
from ..search import Beam, Greedy
from ..speech.hub import demo_directory, find_model
from ..speech.loading import open_encoder
from ..speech.recognizer import Recognizer
from .options import add_source, positives, several, source_options
from .status import DONE

HELP = "Measure the decoding of a model: microseconds per token, by network, precision, search, batch and threads."

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
    parser.add_argument("--precision", type=several(PRECISIONS), metavar="P,...",
                        help=f"{', '.join(PRECISIONS)}, or all (default: all that the network has)")
    parser.add_argument("--search", type=several(tuple(SEARCHES)), default=["greedy"], metavar="S,...",
                        help=f"{', '.join(SEARCHES)}, or all (default: greedy)")
    parser.add_argument("--batch", type=positives, metavar="N,...",
                        help="random utterances decoded together (default: 1)")
    parser.add_argument("--frames", type=int, default=400, help="encoder frames per random utterance (default: 400)")
    parser.add_argument("--threads", type=positives, default=[1], metavar="N,...",
                        help="threads of the decoder (default: 1)")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each decoder, after a warm-up (default: 7)")
    parser.add_argument("--kernels", default="auto",
                        help="a kernel set that `tdtdecode info` lists (default: the fastest)")
    parser.add_argument("--profile", action="store_true",
                        help="also say where the time of the fused network goes: staging, products, search, waiting")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print all figures as JSON")
    output.add_argument("--csv", action="store_true", help="print all figures as CSV, one measurement in a row")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw the times by batch: out.png, or out.html, a page with all figures")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    for name in ("frames", "runs"):
        as_integer(f"--{name}", getattr(arguments, name), low=1)
    if arguments.batch is not None and arguments.encoder_out is not None:
        raise InputError("--batch says how many random utterances to decode: leave it out with --encoder-out")
    if arguments.plot is not None:
        check_plot(arguments.plot)
        given = [*arguments.recordings, *([arguments.encoder_out] if arguments.encoder_out else [])]
        refuse_overwriting([arguments.plot], given)
    bundle = read_bundle(find_model(arguments.model, arguments.variant), **source_options(arguments))
    batches = _batches(arguments, bundle)
    sweep = Sweep(
        arguments.search, arguments.network, arguments.precision, arguments.threads, arguments.kernels, arguments.runs,
        arguments.profile,
    )  # fmt: skip
    measured, refused = compare_decoders(bundle, batches, sweep, _speech(arguments, bundle, batches))
    result = {
        "model": str(bundle.directory), "encoder_out": str(arguments.encoder_out or "random"),
        "frames": int(batches[0][1].max(initial=0)), "frame_seconds": bundle.frame_seconds,
        **environment("onnxruntime"), "measurements": measured, "refused": refused,
    }  # fmt: skip
    if arguments.plot is not None:
        write_plot(result, arguments.plot)
    if arguments.csv:
        sys.stdout.write(as_csv(result))
    elif arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result, batches)
    return DONE


def _batches(arguments: argparse.Namespace, bundle: Bundle) -> list[tuple[np.ndarray, np.ndarray]]:
    """Encoder output [B, E, T] and lengths [B], for each batch that was asked for."""
    if arguments.encoder_out is not None:
        return [_read_encoder_out(arguments.encoder_out)]
    assert bundle.spec.encoder_size is not None  # known for every bundle
    sizes = arguments.batch or [1]
    try:
        encoder_out = random_encoder_out(max(sizes), bundle.spec.encoder_size, arguments.frames)
    except MemoryError:
        raise InputError(
            f"--batch {max(sizes)}, --frames {arguments.frames}: so much encoder output does not fit into memory"
        ) from None
    return [(encoder_out[:size], np.full(size, arguments.frames)) for size in sizes]


def _speech(
    arguments: argparse.Namespace, bundle: Bundle, batches: list[tuple[np.ndarray, np.ndarray]]
) -> Callable[[Decoder, Greedy | Beam], list[Hypothesis]] | None:
    """What decodes speech, to count edits; None if there is none."""
    recordings = [*arguments.recordings]
    if not recordings and arguments.encoder_out is not None:
        return lambda decoder, search: decoder.decode(*batches[0], search)
    if not recordings and bundle.directory == demo_directory().resolve() and bundle.encoder is not None:
        recordings = [demo_directory() / "speech.flac"]
    if not recordings:
        return None
    encoder = open_encoder(bundle)

    def decoded(decoder: Decoder, search: Greedy | Beam) -> list[Hypothesis]:
        found = Recognizer(bundle, encoder, decoder).recognize(recordings, search=search)
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


def _print(result: dict[str, Any], batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
    print(f"{result['model']}, encoder output: {result['encoder_out']}")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"{result['processor']}, {result['cores']} cores, {result['date']}, {versions}")
    shown = None
    for entry in result["measurements"]:
        setting = entry["search"], entry["batch"], entry["threads"]
        if setting != shown:
            frames = next(int(lengths.sum()) for _, lengths in batches if len(lengths) == entry["batch"])
            print(
                f"{entry['search']}: {counted(entry['batch'], 'utterance')}, {frames} frames in all, "
                f"{counted(entry['threads'], 'thread')}"
            )
            shown = setting
        print(f"  {_line(entry)}")
        if "profile" in entry:
            _print_profile(entry)
    for name, reason in result["refused"].items():
        print(f"  {name:<15} not available: {reason}")
    first = result["measurements"][0]
    seconds = int(batches[0][1].sum()) * result["frame_seconds"]
    if result["encoder_out"] == "random" and not 0 < first["tokens"] <= MOST_TOKENS_PER_SECOND * seconds:
        print(
            f"On random frames this model emits {first['tokens']} tokens in {seconds:.1f} s, unlike speech: "
            "give its encoder's output with --encoder-out."
        )


def _line(entry: dict[str, Any]) -> str:
    rate = f"{entry['us_per_token']:9.1f} us/token" if entry["tokens"] else " no tokens emitted"
    floor = other = ""
    if "bytes_per_token" in entry:
        floor = f", {entry['bytes_per_token'] / 1e6:.1f} MB/token at {entry['stream_bandwidth'] / 1e9:.0f} GB/s"
    if "floor_fraction" in entry:
        floor += f": {entry['floor_fraction']:.0%} of what memory allows"
    if entry.get("differing_tokens"):
        edits, compared = entry["differing_tokens"], entry["compared_tokens"]
        other = f", on speech {edits} edits in {compared} tokens ({edits / max(compared, 1):.1%})"
    return (
        f"{entry['decoder']:<15} {entry['kernels']:<15} {entry['tokens']:6} tokens {rate} "
        f"{entry['times_real_time']:9.0f} times real time{floor}{other}"
    )


def _print_profile(entry: dict[str, Any]) -> None:
    profile = entry["profile"]
    print(
        f"      {profile['passes']} passes, {profile['joint_rows']} joint rows, {profile['predictor_steps']} predictor "
        f"steps, {profile['projected_frames']} frames projected, {profile['late_rows']} rows again for log-probs"
    )
    for row in [PROFILE_COLUMNS, *profile_rows(entry)]:
        print("      {:<12}{:>8}{:>14}{:>13}".format(*row))
