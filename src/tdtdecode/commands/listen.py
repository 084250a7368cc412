"""``tdtdecode listen``: words while people speak."""

from __future__ import annotations

import argparse

from .live import FORMATS, add_stream, follow, standard_input, stream_options
from .options import add_model, model_options, say_variant
from .status import DONE

HELP = "Show what is said while it is said: into a microphone, or into a pipe. Ctrl-C ends it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("audio", nargs="?", metavar="AUDIO",
                        help="- for a recording that comes through standard input (default: the microphone)")
    parser.add_argument("--microphone", metavar="NAME",
                        help="its number or a part of its name (default: the system's)")
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    add_model(parser)
    add_stream(parser)
    parser.add_argument("--format", choices=FORMATS, default="txt",
                        help="txt: a line for each utterance (default); json: a line for each event")


def run(arguments: argparse.Namespace) -> int:
    """Listen until the audio ends or the user interrupts."""
    from ..errors import InputError
    from ..speech.audio.live import microphone, piped
    from ..speech.loading import load_model

    if arguments.audio not in (None, "-"):
        raise InputError(f"{arguments.audio}: listen hears a microphone, or - for standard input; a file: transcribe")
    if arguments.audio and arguments.microphone:
        raise InputError("--microphone: standard input was chosen")
    options = stream_options(arguments)
    model = load_model(arguments.model, **model_options(arguments))
    say_variant(arguments, model.bundle)
    name = arguments.microphone
    blocks = piped(standard_input(), "<stdin>") if arguments.audio else microphone(
        int(name) if name and name.isdecimal() else name
    )
    follow(model, blocks, arguments.format, options)
    return DONE
