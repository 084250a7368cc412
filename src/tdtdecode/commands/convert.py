"""``tdtdecode convert``: a model directory in another layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..prepare import convert
from ..speech.hub import find_model
from .status import DONE

HELP = "Write a model directory in another layout: split (sherpa-onnx), combined (onnx-asr, NeMo), genai."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id")
    parser.add_argument("--to", required=True, choices=("split", "combined", "genai"), help="the layout to write")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="a new folder for the result")
    add_choice_of_files(parser)


def add_choice_of_files(parser: argparse.ArgumentParser) -> None:
    """The options that say which files of a directory are meant, and what they do not say themselves."""
    parser.add_argument("--layout", choices=("auto", "split", "combined", "genai"), default="auto",
                        help="of the directory (default: what its files look like)")
    parser.add_argument("--variant", help="which files of the model: int8, fp16, ... (default: those without a suffix)")
    parser.add_argument("--durations", type=durations, metavar="0,1,2,...",
                        help="frames by duration index (default: what the directory says, else 0, 1, 2, ...)")


def durations(text: str) -> tuple[int, ...]:
    """Frame counts with commas between them; none at all for RNN-T."""
    return tuple(int(part) for part in text.split(",") if part.strip())


durations.__name__ = "list of whole numbers"  # what argparse calls it in "invalid ... value"


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    bundle = convert(
        find_model(arguments.model, arguments.variant), arguments.out, arguments.to, arguments.layout,
        arguments.variant, arguments.durations,
    )  # fmt: skip
    spec = bundle.spec
    print(f"{bundle.directory}: layout {bundle.layout}, {spec.vocab_size} tokens, durations {list(spec.durations)}")
    for file in sorted(bundle.directory.iterdir()):
        print(f"  {file.stat().st_size:>13,}  {file.name}")
    print("checked: the same rows as the original on random input")
    return DONE
