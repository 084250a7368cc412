"""``tdtdecode repair``: a model directory in which all is right that can be known."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..prepare import repair
from ..speech.hub import find_model
from .convert import add_choice_of_files
from .status import DONE, SOME_FAILED

HELP = "Write a copy of a model directory in which metadata, token file, configurations and batch axes are right."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="a model directory or a hub id")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", dest="out", type=Path, metavar="OUT", help="a new folder for the result")
    where.add_argument("--in-place", action="store_true", help="replace what is wrong in the directory itself")
    add_choice_of_files(parser)


def run(arguments: argparse.Namespace) -> int:
    """Repair, and say what was changed; the status is 1 where problems are left."""
    result = repair(
        find_model(arguments.model, arguments.variant), arguments.out, arguments.layout, arguments.variant,
        arguments.durations,
    )  # fmt: skip
    print(f"{result.directory}: {len(result.changes) or 'nothing'} changed")
    for change in result.changes:
        where = f"{change.file}, {change.field}" if change.field else change.file
        print(f"  {where}: {change.before} -> {change.after}  ({change.why})")
    for problem in result.problems:
        print(f"  left: {problem.where}: {problem.found}; expected {problem.expected}; {problem.remedy}")
    return SOME_FAILED if result.problems else DONE
