"""``tdtdecode evaluate``: word and character error rates of recognised texts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, printable
from ..evaluation import NORMALIZERS, Errors
from ..outputs import new_file, refuse_overwriting
from ..reprs import counted
from .options import positive
from .progress import clock
from .status import DONE

if TYPE_CHECKING:
    from ..corpora.scoring import Evaluation

HELP = "Word and character error rates of what 'tdtdecode transcribe --manifest' wrote, and its worst recordings."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("results", metavar="FILE",
                        help="JSON Lines with text and pred_text, also compressed, or - for standard input")
    parser.add_argument("--normalizer", choices=tuple(NORMALIZERS), default="none",
                        help="applied to both texts before they are compared: Whisper's for English, or for other "
                        "languages (default: none)")
    parser.add_argument("--worst", type=positive, default=10, metavar="N",
                        help="how many of the worst recordings to show (default: 10)")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    parser.add_argument("--html", type=Path, metavar="PAGE",
                        help="write a page that shows all recordings, with their errors marked, to be sorted, searched "
                        "and listened to")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and return the exit status."""
    from ..corpora import read_manifest
    from ..corpora.page import page
    from ..corpora.scoring import evaluate

    manifest = read_manifest(arguments.results)
    if arguments.html is not None:
        refuse_overwriting([arguments.html], [manifest.path])
    found = evaluate(manifest, arguments.normalizer)
    if not found.scored:
        raise InputError(f"{found.name}: nothing can be compared: {_left_out(found)}")
    if arguments.html is not None:
        with new_file(arguments.html) as file:
            file.write(page(found, arguments.html).encode())
    if arguments.json:
        print(json.dumps(found.as_json(arguments.worst), ensure_ascii=False))
    else:
        sys.stdout.write(printable(_text(found, arguments.worst)))
    return DONE


def _text(found: Evaluation, worst: int) -> str:
    length = f" ({clock(found.seconds)} of audio)" if found.seconds else ""
    normalizer = "" if found.normalizer == "none" else f", normalised by {found.normalizer}"
    share = 100 * found.without_errors / len(found.scored)
    lines = [
        f"{found.name}: {counted(len(found.scored), 'recording')}{length} compared{normalizer}",
        *([f"left out: {_left_out(found)}"] if found.left_out else []),
        "",
        f"word error rate       {_rate(found.words)}   {_counts(found.words, 'word')}",
        f"character error rate  {_rate(found.characters)}   {_counts(found.characters, 'character')}",
        f"without an error      {share:6.2f} %   {found.without_errors} of {counted(len(found.scored), 'recording')}",
    ]
    shown = found.worst(worst)
    if shown:
        lines += ["", "worst recordings"]
    for one in shown:
        lines += [
            f"{_rate(one.words)}   {_counts(one.words, 'word')}; line {one.entry.line}: {one.entry.name}",
            f"    reference:  {_one_line(one.entry.reference)}",
            f"    recognised: {_one_line(one.entry.prediction)}",
        ]
    return "\n".join(lines) + "\n"


def _left_out(found: Evaluation) -> str:
    """Why recordings are not compared, with the first of their lines."""
    return "; ".join(
        f"{len(lines)} {why} (line {', '.join(map(str, lines[:5]))}{', ...' if len(lines) > 5 else ''})"
        for why, lines in found.left_out.items()
    )


def _rate(errors: Errors) -> str:
    return f"{100 * errors.rate:6.2f} %" if errors.length else "     - %"


def _counts(errors: Errors, unit: str) -> str:
    kinds = f"{errors.substitutions} substituted, {errors.insertions} inserted, {errors.deletions} deleted"
    return f"{counted(errors.edits, 'error')} in {counted(errors.length, unit)} ({kinds})"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
