"""``tdtdecode pack``: write a model, or a language model compiled for it, to one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..fusion.fit import UNITS
from ..prepare import pack, pack_ngram
from ..speech.hub import find_model
from .options import add_source, source_options
from .status import DONE

HELP = "Write predictor, joint and vocabulary to one file, for decoding without ONNX and from C, Rust, Go and others."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id; with --ngram also a file that pack wrote")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="FILE",
                        help="the file to write, such as model.tdt")
    parser.add_argument("--ngram", type=Path, metavar="ARPA",
                        help="write this n-gram language model instead, compiled for the model's vocabulary")
    parser.add_argument("--units", choices=UNITS, default="pieces", help="what the words of the ARPA file are")
    add_source(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pack, and print what was written."""
    source = source_options(arguments)
    packed_already = arguments.ngram is not None and Path(arguments.model).is_file()
    model = arguments.model if packed_already else find_model(arguments.model, arguments.variant)
    if arguments.ngram is not None:
        path = pack_ngram(model, arguments.ngram, arguments.out, units=arguments.units, **source)
        print(f"{path}: {path.stat().st_size:,} bytes, compiled for the vocabulary of {model}")
        return DONE
    packed = pack(model, arguments.out, **source)
    spec = packed.spec
    print(f"{packed.path}: {packed.path.stat().st_size:,} bytes, {spec.vocab_size} tokens, "
          f"durations {list(spec.durations)}, {packed.weights.sizes}")  # fmt: skip
    return DONE
