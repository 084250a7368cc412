"""``tdtdecode repair``: write a copy of a model directory in which every mistake is corrected that can be."""

from __future__ import annotations

import argparse

from ..prepare import repair
from ..speech.hub import find_model
from .options import add_out, add_source, durations
from .status import DONE, SOME_FAILED

HELP = "Write a copy of a model directory in which metadata, token file, configurations and batch axes are corrected."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="a model directory or a hub id")
    where = parser.add_mutually_exclusive_group(required=True)
    add_out(where, required=False)
    where.add_argument("--in-place", action="store_true", help="replace wrong files in the directory itself")
    add_source(parser)
    parser.add_argument("--window", type=durations, metavar="SIZE,SHIFT",
                        help="of a streaming encoder that does not say it: the feature frames of a window, and how "
                        "many it moves on by, such as 65,56")


def run(arguments: argparse.Namespace) -> int:
    """Repair, and print what was changed. The status is 1 if problems are left."""
    result = repair(
        find_model(arguments.model, arguments.variant), arguments.out, layout=arguments.layout,
        variant=arguments.variant, durations=arguments.durations, big_blanks=arguments.big_blanks,
        windows=arguments.window,
    )  # fmt: skip
    print(f"{result.directory}: {len(result.changes) or 'nothing'} changed")
    for change in result.changes:
        where = f"{change.file}, {change.field}" if change.field else change.file
        print(f"  {where}: {change.before} -> {change.after}  ({change.why})")
    for problem in result.problems:
        print(f"  left: {problem.where}: {problem.found}; expected {problem.expected}; {problem.remedy}")
    return SOME_FAILED if result.problems else DONE
