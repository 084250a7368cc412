"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from ..allowed import Script
from ..errors import InputError
from ..networks.choice import ALL_PRECISIONS, NETWORKS
from ..prepare.writing import WRITERS
from ..speech.formats import FORMATS, CueOptions
from ..speech.loading import DEVICES
from ..speech.vad import SileroVad

LAYOUTS = tuple(WRITERS)

_OF_CUES = tuple(name for name, format in FORMATS.items() if format.cues)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to read a model directory: `SOURCE_OPTIONS`."""
    _add(parser, SOURCE_OPTIONS)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of `load_model`: `MODEL_OPTIONS`."""
    _add(parser, MODEL_OPTIONS)


def source_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments for `read_bundle` that were given by `SOURCE_OPTIONS`."""
    return {name: getattr(arguments, name) for name in SOURCE_OPTIONS}


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments for `load_model` that were given by `MODEL_OPTIONS`."""
    return {name: getattr(arguments, name) for name in MODEL_OPTIONS}


def _add(parser: argparse.ArgumentParser, options: dict[str, dict[str, Any]]) -> None:
    for name, settings in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)


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


def add_vad(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``--vad``, and the options of `SileroVad` with the same names and defaults."""
    group = parser.add_argument_group("voice activity detection", "Silero's model: pip install --no-deps silero-vad")
    group.add_argument("--vad", action="store_true", help=help)
    for option in _vad_options():
        default = "" if option.default is None else f" (default: {option.default:g})"
        group.add_argument(f"--vad-{option.name.replace('_', '-')}", type=option.metadata["type"],
                           metavar=option.metadata["unit"], help=option.metadata["help"] + default)  # fmt: skip


def vad(arguments: argparse.Namespace) -> SileroVad | None:
    """The VAD that was asked for; None if none was.

    Raises
    ------
    InputError
        If one of its options is out of its range, or is given without ``--vad``.
    """
    given = {option.name: getattr(arguments, f"vad_{option.name}") for option in _vad_options()}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.vad:
        return SileroVad(**given)
    if given:
        raise InputError(f"{', '.join('--vad-' + name.replace('_', '-') for name in given)}: give --vad, too")
    return None


def _vad_options() -> list[Field[Any]]:
    return [option for option in fields(SileroVad) if option.init]


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add ``-v``."""
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="say on stderr what was chosen: files, device, network, kernels, precision, batches")


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


def share(text: str) -> float:
    """A number above 0, at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError
    return number


def positives(text: str) -> list[int]:
    """Numbers as `positive` takes them, with commas between them; each is taken once."""
    return list(dict.fromkeys(map(positive, text.split(","))))


def several(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The type of options that take some of these names, with commas between them, or "all"."""

    def chosen(text: str) -> list[str]:
        found = list(choices) if text == "all" else names(text)
        if not found or (unknown := [name for name in found if name not in choices]):
            what = repr(unknown[0]) if found else "nothing"
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(choices)}, or all, got {what}")
        return list(dict.fromkeys(found))

    return chosen


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def script(text: str) -> Script:
    """Scripts with commas between their names."""
    return Script(*names(text))


# What argparse calls these types in "invalid ... value".
durations.__name__ = "list of whole numbers"
positive.__name__ = "positive integer"
share.__name__ = "share above 0, at most 1"
positives.__name__ = "list of positive integers"
script.__name__ = "list of Unicode scripts"

SOURCE_OPTIONS: dict[str, dict[str, Any]] = {
    "layout": {"choices": ("auto", *LAYOUTS), "default": "auto",
               "help": "layout of the model directory (default: auto, by its file names)"},
    "variant": {"help": "which files of the model: int8, fp16, ... (default: those without a suffix, else the only "
                        "ones)"},
    "durations": {"type": durations, "metavar": "0,1,2,...",
                  "help": "frames by duration index (default: what the directory states, else 0, 1, 2, ...)"},
    "big_blanks": {"type": durations, "metavar": "2,4,8",
                   "help": "frames of the big blanks of a multi-blank RNN-T (default: what config.json states, else "
                           "none)"},
}  # fmt: skip
"""The options of `read_bundle` on the command line: name of the parameter -> how argparse declares it."""

MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"choices": DEVICES, "default": "cpu",
               "help": "both: each recording on the faster one (default: cpu)"},
    **SOURCE_OPTIONS,
    "network": {"choices": NETWORKS, "default": "auto", "help": "what decodes (default: auto, the fastest)"},
    "kernels": {"default": "auto", "metavar": "SET",
                "help": "a kernel set that `tdtdecode info` lists (default: the fastest)"},
    "precision": {"choices": ALL_PRECISIONS, "default": "float32",
                  "help": "arithmetic of the fused network (default: float32, which is exact)"},
    "threads": {"type": positive, "metavar": "N",
                "help": "threads of encoder and decoder (default: all cores for the encoder, 1 for the decoder)"},
    "providers": {"type": names, "metavar": "NAME,...",
                  "help": "ONNX Runtime's execution providers, in order of preference (default: the device's)"},
    "tf32": {"action": "store_true",
             "help": "let a card's encoder round float32 products to 10 bits: faster, and a few tokens change"},
    "card_share": {"type": share, "default": 0.25, "metavar": "SHARE",
                   "help": "share of a card that decodes, while the rest encodes (default: 0.25)"},
}  # fmt: skip
"""The options of `load_model` on the command line.

It has two more, which are no text: the search, which has options of its own, and ONNX Runtime's session options.
"""
