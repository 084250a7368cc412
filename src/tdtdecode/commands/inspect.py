"""``tdtdecode inspect``: say what a model directory is, what is wrong with it, and which systems can use it."""

from __future__ import annotations

import argparse
import json
from textwrap import fill

from ..prepare import inspect
from ..prepare.inspection import SYSTEMS, Inspection
from ..speech.hub import find_model
from .options import add_source, source_options
from .status import DONE, SOME_FAILED

HELP = "Say what a model directory is, what is wrong with it and how to fix it, and which systems can use it."

_WIDTH = 116
"""Length of the printed lines."""


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


def as_text(inspection: Inspection) -> str:
    """The inspection as text for people."""
    lines = [str(inspection.directory)]
    width = max((len(fact.name) for fact in inspection.facts), default=0)
    for fact in inspection.facts:
        value = fact.value
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = (", " if all(not isinstance(v, str) or " " not in v for v in value) else "; ").join(map(str, value))
        elif value is None:
            value = "none"
        where = "" if fact.file == "." else f"  ({fact.file}{f': {fact.field}' if fact.field else ''})"
        lines.append(f"  {fact.name:<{width}}  {value}{where}")
    for note in inspection.notes:
        lines.append(_wrapped(f"note: {note}", "  "))
    lines.append("problems: none" if inspection.ok else "problems:")
    for number, problem in enumerate(inspection.problems, 1):
        lines.append(_wrapped(f"{number}. {problem.where}: {problem.found}  [{problem.code}]", "  "))
        lines.append(_wrapped(f"expected: {problem.expected}", "     "))
        lines.append(_wrapped(f"to fix it: {problem.remedy}", "     "))
    lines.append("can be used with:")
    for use in inspection.uses:
        lines.append(f"  {use.system:<18} {'yes' if use.usable else 'no'}")
        lines += [_wrapped(f"- {reason}", "     ") for reason in use.reasons]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> str:
    return fill(text, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}   ", break_long_words=False)
