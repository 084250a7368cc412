"""``tdtdecode export``: write a NeMo checkpoint as a model directory."""

from __future__ import annotations

import argparse
import time

from ..prepare import export
from .options import LAYOUTS, add_out, durations
from .status import DONE

HELP = "Export a NeMo transducer to a model directory, and check it against NeMo (needs the extra [export])."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", help="a .nemo file, or a hub name such as nvidia/parakeet-tdt-0.6b-v2")
    parser.add_argument("--to", default="combined", choices=LAYOUTS, help="the layout to write (default: combined)")
    parser.add_argument("--streaming", action="store_true",
                        help="export the encoder with its caches, for live streams")
    parser.add_argument("--context", type=durations, metavar="LEFT,RIGHT",
                        help="with --streaming: the encoder frames that the attention sees, of those that the "
                        "checkpoint was trained with, such as 70,6 (default: its first)")
    add_out(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what was written and how it compares with NeMo."""
    begin = time.monotonic()
    result = export(
        arguments.checkpoint, arguments.out, arguments.to, streaming=arguments.streaming, context=arguments.context
    )
    spec = result.bundle.spec
    print(f"{result.kind}")
    print(
        f"{result.bundle.directory}: layout {result.bundle.layout}, {spec.vocab_size} tokens, durations "
        f"{list(spec.durations)}, {result.bundle.features.mel_bins} mel bins"
    )
    for file in sorted(result.bundle.directory.iterdir()):
        print(f"  {file.stat().st_size:>13,}  {file.name}")
    print(
        f"checked against NeMo: the same {result.tokens} tokens; features differ by {result.feature_difference:.1g} "
        f"standard deviations at most, encoder output by {result.encoder_difference:.1g} of its largest value"
    )
    memory = _peak_memory()
    print(f"{time.monotonic() - begin:.0f} s" + (f", at most {memory / 2**30:.1f} GiB of memory" if memory else ""))
    return DONE


def _peak_memory() -> int | None:
    """Most memory that this process has used so far, in bytes; None if the system does not tell."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
