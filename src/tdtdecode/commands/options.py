"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ..errors import InputError
from ..prepare.writing import WRITERS
from ..speech.formats import FORMATS, CueOptions

LAYOUTS = tuple(WRITERS)

_OF_CUES = tuple(name for name, format in FORMATS.items() if format.cues)


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add ``--variant``."""
    parser.add_argument("--variant", help="which files of the model: int8, fp16, ... (default: those without a suffix)")


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add ``--layout``, ``--variant`` and ``--durations``, which say how to read a model directory."""
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto",
                        help="layout of the model directory (default: auto, by its file names)")
    add_variant(parser)
    parser.add_argument("--durations", type=durations, metavar="0,1,2,...",
                        help="frames by duration index (default: what the directory states, else 0, 1, 2, ...)")


def add_cues(parser: argparse.ArgumentParser) -> None:
    """Add the options of `CueOptions`, with the same names and defaults."""
    group = parser.add_argument_group("subtitles", f"for --format {' or '.join(_OF_CUES)}")
    for option in fields(CueOptions):
        group.add_argument("--" + option.name.replace("_", "-"), type=type(option.default), metavar="N",
                           help=f"{option.metadata['help']} (default: {option.default:.3g})")


def cues(arguments: argparse.Namespace, name: str) -> CueOptions | None:
    """The `CueOptions` that were given, for a format of this name; None if it has no cues.

    Raises
    ------
    InputError
        If an option is out of its range, or the format has no cues.
    """
    given = {option.name: getattr(arguments, option.name) for option in fields(CueOptions)}
    given = {option: value for option, value in given.items() if value is not None}
    if FORMATS[name].cues:
        return CueOptions(**given)
    if given:
        options = ", ".join("--" + option.replace("_", "-") for option in given)
        raise InputError(f"{options}: only subtitles have that, --format {' or '.join(_OF_CUES)}")
    return None


def add_out(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Add ``-o OUT`` to a parser, or to a group of options of which one is required."""
    parser.add_argument("-o", dest="out", type=Path, required=required, metavar="OUT",
                        help="a new folder for the result")


def durations(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them. An empty text is the empty table of RNN-T."""
    return tuple(int(part) for part in text.split(",") if part.strip())


def positive(text: str) -> int:
    """A whole number from 1 to 2**31 - 1."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise ValueError
    return number


# What argparse calls these types in "invalid ... value".
durations.__name__ = "list of whole numbers"
positive.__name__ = "positive integer"
