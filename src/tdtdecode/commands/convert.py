"""``tdtdecode convert``: write a model directory in another layout."""

from __future__ import annotations

import argparse

from ..bundle.names import COMBINED_CONVENTIONS
from ..prepare import convert
from ..speech.hub import find_model
from .options import LAYOUTS, add_out, add_source
from .status import DONE

HELP = "Write a model directory in another layout: split (sherpa-onnx), combined (onnx-asr, NeMo) or genai."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id")
    parser.add_argument("--to", required=True, choices=LAYOUTS, help="the layout to write")
    parser.add_argument("--names", default="nemo", choices=tuple(COMBINED_CONVENTIONS),
                        help="what the combined layout calls its graphs (default nemo: encoder-model.onnx and "
                        "decoder_joint-model.onnx)")
    add_out(parser)
    add_source(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what was written."""
    bundle = convert(
        find_model(arguments.model, arguments.variant), arguments.out, arguments.to, layout=arguments.layout,
        variant=arguments.variant, durations=arguments.durations, big_blanks=arguments.big_blanks,
        names=arguments.names,
    )  # fmt: skip
    spec = bundle.spec
    print(f"{bundle.directory}: layout {bundle.layout}, {spec.vocab_size} tokens, durations {list(spec.durations)}")
    for file in sorted(bundle.directory.iterdir()):
        print(f"  {file.stat().st_size:>13,}  {file.name}")
    print("checked: on random input, the joint rows are the same as the original's")
    return DONE
