"""``tdtdecode export``: a NeMo checkpoint as a model directory."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .status import DONE

HELP = "Export a NeMo transducer to a model directory, and check it against NeMo (needs the extra [export])."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", help="a .nemo file, or a hub name such as nvidia/parakeet-tdt-0.6b-v2")
    parser.add_argument("--to", default="combined", choices=("split", "combined", "genai"),
                        help="the layout to write (default: combined)")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="a new folder for the result")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say what was written and how it compares with NeMo."""
    from ..prepare import export

    begin = time.monotonic()
    result = export(arguments.checkpoint, arguments.out, arguments.to)
    spec = result.bundle.spec
    print(f"{result.kind}")
    print(
        f"{result.bundle.directory}: layout {result.bundle.layout}, {spec.vocab_size} tokens, durations "
        f"{list(spec.durations)}, {result.bundle.features.mel_bins} mel bins"
    )
    for file in sorted(result.bundle.directory.iterdir()):
        print(f"  {file.stat().st_size:>13,}  {file.name}")
    print(
        f"checked against NeMo: {result.tokens} tokens, the same; features within {result.feature_difference:.1g}, "
        f"encoder within {result.encoder_difference:.1g} of its largest number"
    )
    memory = _peak_memory()
    print(f"{time.monotonic() - begin:.0f} s" + (f", at most {memory / 2**30:.1f} GiB of memory" if memory else ""))
    return DONE


def _peak_memory() -> int | None:
    """Most memory that this process has had, in bytes, where the system tells."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
