"""``tdtdecode inspect``: say what a model directory is, what is wrong with it, and which systems can use it."""

from __future__ import annotations

import argparse
import json
import shutil
from textwrap import fill

from ..prepare import inspect
from ..prepare.inspection import SYSTEMS, Inspection
from ..reprs import counted, joined_names
from ..speech.hub import find_model
from .options import add_source, source_options
from .status import DONE, SOME_FAILED

HELP = "Say what a model directory is, what is wrong with it and how to fix it, and which systems can use it."

_WIDEST = 120
"""The longest line, even on a wider terminal: longer ones are hard to read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="'demo', a model directory or a hub id")
    add_source(parser)
    parser.add_argument("--for", dest="system", choices=tuple(SYSTEMS),
                        help="report it as a problem, too, if that system cannot use the directory")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Inspect and print. The status is 1 if there is a problem."""
    directory = find_model(arguments.model, arguments.variant)
    inspection = inspect(directory, system=arguments.system, **source_options(arguments))
    print(json.dumps(inspection.as_dict(), indent=2, ensure_ascii=False) if arguments.json else as_text(inspection))
    return DONE if inspection.ok else SOME_FAILED


def as_text(inspection: Inspection, columns: int | None = None) -> str:
    """The inspection as text for people: the verdict, then the problems, then the facts.

    Parameters
    ----------
    columns:
        The longest line; None: as long as the terminal is wide, 80 where there is none.
    """
    width = min(columns or shutil.get_terminal_size().columns, _WIDEST)

    def wrapped(text: str, indent: int, hanging: int | None = None) -> str:
        rest = indent + 3 if hanging is None else hanging
        return fill(" ".join(text.split()), width, initial_indent=" " * indent, subsequent_indent=" " * rest,
                    break_on_hyphens=False)  # fmt: skip

    lines = [wrapped(f"{_verdict(inspection)}: {inspection.directory}", 0)]
    for use in inspection.uses:
        lines.append(f"  {use.system:<18} {'yes' if use.usable else 'no'}")
        lines += [wrapped(f"- {reason}", 5, 7) for reason in use.reasons]
    lines.append("problems: none" if inspection.ok else "problems:")
    for number, problem in enumerate(inspection.problems, 1):
        lines.append(wrapped(f"{number}. {problem.where}: {problem.found} [{problem.code}]", 2))
        lines.append(wrapped(f"expected: {problem.expected}", 5))
        lines.append(wrapped(f"to fix it: {problem.remedy}", 5))
    lines += [wrapped(f"note: {note}", 0) for note in inspection.notes]
    if inspection.facts:
        lines.append("what it is:")
    longest = max((len(fact.name) for fact in inspection.facts), default=0)
    beside = 2 + longest + 2 if width >= longest + 44 else 6
    for fact in inspection.facts:
        where = "" if fact.file == "." else f" ({fact.file}{f': {fact.field}' if fact.field else ''})"
        name = f"{fact.name}:".ljust(longest + 1)
        # The name is no word of the text: spaces within it, which align the values, must stay.
        text = fill(f"{_value(fact.value)}{where}", width, initial_indent=" " * (longest + 4),
                    subsequent_indent=" " * beside, break_on_hyphens=False)  # fmt: skip
        lines.append(f"  {name} {text[longest + 4 :]}")
    return "\n".join(lines)


def _verdict(inspection: Inspection) -> str:
    """The whole in a few words."""
    problems = "no problems" if inspection.ok else counted(len(inspection.problems), "problem")
    usable = [use.system for use in inspection.uses if use.usable]
    return f"{problems}, can be used with {joined_names(usable) if usable else 'none of the systems below'}"


def _value(value: object) -> str:
    """A fact's value."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list):
        words = all(not isinstance(item, str) or " " not in item for item in value)
        return (", " if words else "; ").join(map(str, value))
    return "none" if value is None else str(value)
