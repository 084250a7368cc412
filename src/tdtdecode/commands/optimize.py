"""``tdtdecode optimize``: smaller and faster graphs, and what they change."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..speech.hub import find_model
from .convert import add_choice_of_files
from .status import DONE

HELP = "Quantise, halve or fuse a model's graphs with ONNX Runtime's tools, and report sizes and changed tokens."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id, in float32")
    parser.add_argument("--to", required=True, choices=("int8", "fp16", "int4", "fused"), dest="method",
                        help="int8: dynamic, all graphs; fp16: all graphs, float32 outside; int4: the encoder's "
                        "weights, in blocks; fused: the encoder's attention")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="a new folder for the result")
    parser.add_argument("--block-size", type=int, default=32, metavar="N",
                        help="int4: weights with a scale in common, 16 to 256 (default: 32)")
    parser.add_argument("--algorithm", choices=("rtn", "k_quant", "hqq"), default="rtn",
                        help="int4: how weights are rounded (default: rtn; hqq needs PyTorch)")
    parser.add_argument("--recordings", nargs="+", type=Path, default=[], metavar="AUDIO",
                        help="recognised before and after, to see what changes")
    add_choice_of_files(parser)


def run(arguments: argparse.Namespace) -> int:
    """Optimise, and say what it brought and what it changed."""
    from ..prepare import optimize

    result = optimize(
        find_model(arguments.model, arguments.variant), arguments.out, arguments.method, arguments.layout,
        arguments.variant, arguments.durations, arguments.block_size, arguments.algorithm, arguments.recordings,
    )  # fmt: skip
    print(f"{result.bundle.directory}: layout {result.bundle.layout}, variant {result.bundle.variant or 'unsuffixed'}")
    for name, (before, after) in result.sizes.items():
        print(f"  {name}: {before:,} -> {after:,} bytes ({after / before:.0%})")
    for note in result.notes:
        print(f"  {note}")
    if result.change is not None:
        change = result.change
        share = change.edits / change.tokens if change.tokens else 0.0
        print(
            f"on {change.texts[1]} recordings: {change.edits} edits in {change.tokens} tokens ({share:.1%}), "
            f"{change.texts[0]} texts differ; {change.seconds[0]:.2f} -> {change.seconds[1]:.2f} s"
        )
    return DONE
