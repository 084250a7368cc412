"""``tdtdecode explain``: a page that shows how a recording was decoded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..outputs import new_file, refuse_overwriting
from .live import add_language
from .options import add_model, add_verbose, model_options
from .search_options import add_search, files_given, search_of
from .status import DONE

HELP = "Write a page that shows how a recording was decoded: one file, which needs nothing else."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("audio", metavar="AUDIO", help="a recording, of up to ten minutes; - for standard input")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE",
                        help="the page, such as page.html")
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    add_model(parser)
    add_search(parser)
    add_language(parser)
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page."""
    from ..page.explanation import MOST_SECONDS, explained, summary
    from ..page.files import page_of
    from ..speech.audio import as_samples, name_of
    from ..speech.audio.features import SAMPLE_RATE
    from ..speech.hub import find_model
    from ..speech.loading import load_model

    search = search_of(arguments)
    directory = find_model(arguments.model, arguments.variant)
    piped = arguments.audio == "-"
    given = [directory, *map(Path, files_given(arguments)), *([] if piped else [Path(arguments.audio)])]
    refuse_overwriting([arguments.output], given)
    samples = as_samples(sys.stdin.buffer if piped else arguments.audio, SAMPLE_RATE, MOST_SECONDS)
    model = load_model(directory, search=search, **model_options(arguments))
    steps = explained(model, samples, search, arguments.language)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            document = end.value
            break
    name = "<stdin>" if piped else name_of(Path(arguments.audio).name)
    with new_file(arguments.output) as file:
        file.write(page_of(document, samples, name).encode("utf-8", "backslashreplace"))
    print(f"tdtdecode: {arguments.output}: {summary(document)}", file=sys.stderr)
    return DONE
