"""``tdtdecode optimize``: write smaller or faster graphs, and report what they change."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..prepare import optimize
from ..prepare.optimization import ALGORITHMS, METHODS
from ..speech.hub import find_model
from .options import add_out, add_source
from .status import DONE

HELP = "Make a model's graphs smaller or faster with ONNX Runtime's tools, and report sizes and changed tokens."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id, with float32 graphs")
    parser.add_argument("--to", required=True, choices=METHODS,
                        help="int8: all graphs, dynamically quantised; fp16: all graphs, with float32 inputs and "
                        "outputs; int4: the encoder's weights; fused: the encoder's attention")
    add_out(parser)
    parser.add_argument("--block-size", type=int, default=32, metavar="N",
                        help="int4: how many weights share a scale, 16 to 256 (default: 32)")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="rtn",
                        help="int4: how weights are rounded (default: rtn; hqq needs PyTorch)")
    parser.add_argument("--recordings", nargs="+", type=Path, default=[], metavar="AUDIO",
                        help="recognise these before and after, to see what changes")
    add_source(parser)


def run(arguments: argparse.Namespace) -> int:
    """Optimise, and print the sizes and what has changed."""
    result = optimize(
        find_model(arguments.model, arguments.variant), arguments.out, arguments.to, layout=arguments.layout,
        variant=arguments.variant, durations=arguments.durations, big_blanks=arguments.big_blanks,
        block_size=arguments.block_size,
        algorithm=arguments.algorithm, recordings=arguments.recordings,
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
