"""``tdtdecode listen``: words while people speak."""

from __future__ import annotations

import argparse
import contextlib

from .live import FORMATS, add_stream, follow, opened, stream_options
from .options import add_model, add_verbose, model_options
from .search_options import add_search, search_of
from .status import DONE

HELP = "Show what is said while it is said: into a microphone, or into a pipe. Ctrl-C ends it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("audio", nargs="?", metavar="AUDIO",
                        help="a pipe, a file, or - for standard input (default: the microphone)")
    parser.add_argument("--microphone", metavar="NAME",
                        help="its number or a part of its name (default: the system's)")
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    add_model(parser)
    add_search(parser)
    add_stream(parser)
    add_verbose(parser)
    parser.add_argument("--format", choices=FORMATS, default="txt",
                        help="txt: a line for each utterance (default); json: a line for each event")


def run(arguments: argparse.Namespace) -> int:
    """Listen until the audio ends or the user interrupts."""
    from ..errors import InputError
    from ..speech.audio.live import microphone
    from ..speech.loading import load_model

    if arguments.audio and arguments.microphone:
        raise InputError(f"--microphone: {arguments.audio} is heard instead")
    options = stream_options(arguments)
    search = search_of(arguments)
    with contextlib.ExitStack() as stack:
        if arguments.audio:
            blocks = stack.enter_context(opened(arguments.audio))
        model = load_model(arguments.model, search=search, **model_options(arguments))
        if not arguments.audio:
            name = arguments.microphone
            device = int(name) if name and name.isdecimal() else name
            blocks = stack.enter_context(contextlib.closing(microphone(device)))
        follow(model, blocks, arguments.format, options)
    return DONE
