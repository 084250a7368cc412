"""``tdtdecode transcribe``: turn recordings into text, subtitles or words with times."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TdtDecodeError, TdtDecodeWarning
from ..outputs import identities, new_file, refuse_overwriting, same_name
from ..speech.formats import FORMATS
from . import live, manifest
from .options import add_cues, add_model, add_vad, add_verbose, cues, model_options, positive, vad
from .progress import Display
from .recordings import Given, recordings
from .search_options import add_search, files_given, search_of
from .status import DONE, SOME_FAILED

if TYPE_CHECKING:
    from ..hypothesis import Transcript
    from ..search import Beam, Greedy
    from ..speech.formats import CueOptions
    from ..speech.recognizer import Recognizer
    from ..speech.vad import SileroVad

HELP = "Transcribe recordings. Text goes to stdout, one line per recording in order; messages go to stderr."

_WITH_ALTERNATIVES = " or ".join(f"--format {name}" for name, format in FORMATS.items() if format.alternatives)
"""The options that choose a format with room for several hypotheses."""

_STDOUT = Path("/dev/stdout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("audio", nargs="*", metavar="AUDIO",
                        help="recordings (WAV, FLAC, OGG, MP3; with tdtdecode[media] also m4a, mp4, webm, ...), "
                        "folders of them, or - for standard input")
    manifest.add_arguments(parser)
    parser.add_argument("--stream", action="store_true",
                        help="show the words of one recording as it comes through a pipe, as 'tdtdecode listen -' does")
    parser.add_argument("--recursive", action="store_true", help="read the folders in folders too")
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    add_model(parser)
    add_search(parser)
    live.add_language(parser)
    parser.add_argument("--format", choices=tuple(FORMATS), default="txt", help="default: txt")
    parser.add_argument("-o", dest="output", type=Path, metavar="DIR",
                        help="write one file per recording, NAME.FORMAT, into this folder instead of to stdout; with "
                        "--manifest, a file of JSON Lines")
    parser.add_argument("--batch-size", type=positive, metavar="N",
                        help="most recordings decoded together (default: 16; on a card 256)")
    add_verbose(parser)
    parser.add_argument("--strict", action="store_true",
                        help="treat warnings as errors: a recording that is cut short, a phrase that is left out, ...")
    add_vad(parser, "skip silence: only segments of speech are decoded, each by itself")
    add_cues(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe, and return the exit status."""
    manifest.check(arguments)
    if arguments.manifest is not None:
        return manifest.run(arguments)
    if arguments.stream:
        return _follow(arguments)
    inputs, problems = recordings(arguments.audio, arguments.recursive)
    for name, problem in problems:
        _report(name, problem)
    search = _search(arguments)
    options = cues(arguments, arguments.format)
    listener = vad(arguments)

    from ..speech.hub import find_model
    from ..speech.loading import load_model

    directory = find_model(arguments.model, arguments.variant)
    given = [directory, *map(Path, files_given(arguments))]
    writer = _Writer(arguments.format, arguments.output, [one.path for one in inputs], given, options)
    model = load_model(directory, search=search, **model_options(arguments))
    failed = _transcribe(model, inputs, writer, arguments.batch_size, arguments.language, listener)
    return SOME_FAILED if failed or problems else DONE


def _follow(arguments: argparse.Namespace) -> int:
    """Show the words of one recording as they come."""
    if arguments.format not in live.FORMATS or arguments.output is not None:
        raise InputError(f"--stream writes {' or '.join(live.FORMATS)} to standard output")
    if len(arguments.audio) != 1:
        raise InputError("--stream follows one recording: a pipe, a file, or - for standard input")
    from ..speech.loading import load_model

    search = _search(arguments)
    listener = vad(arguments)
    with live.opened(arguments.audio[0]) as blocks:
        model = load_model(arguments.model, search=search, **model_options(arguments))
        language = {} if arguments.language is None else {"language": arguments.language}
        live.follow(model, blocks, arguments.format, {"vad": listener, **language})
    return DONE


def _search(arguments: argparse.Namespace) -> Greedy | Beam:
    """The search that the options describe."""
    search = search_of(arguments)
    if (arguments.nbest or 1) > 1 and not FORMATS[arguments.format].alternatives:
        raise InputError(f"--nbest needs {_WITH_ALTERNATIVES}: other formats hold one text per recording")
    return search


def _transcribe(
    model: Recognizer,
    inputs: list[Given],
    writer: _Writer,
    batch_size: int | None,
    language: str | None,
    listener: SileroVad | None,
) -> int:
    """Transcribe all recordings, and write each result as it comes. Returns how many failed."""
    failed = 0
    display = Display()
    results = model.recognize_each(
        [one.audio for one in inputs], batch_size=batch_size, on_error="return", progress=display.show,
        language=language, vad=listener,
    )  # fmt: skip
    for one, result in zip(inputs, results, strict=True):
        display.clear()
        try:
            writer.write(one.path, result)
        except _Failed as error:
            _report(one.name, str(error).removeprefix(f"{one.name}: "))
            failed += 1
        writer.flush()
    return failed


class _Failed(Exception):
    """A recording could not be transcribed, or its result not written; the message says why."""


class _Writer:
    """Writes each result to stdout, or to a file of its own.

    Parameters
    ----------
    name:
        The format's name, which is also the suffix of the files.
    folder:
        Where to write files; None writes to stdout.
    paths:
        The recordings.
    given:
        Other files and folders that the user gave, which must stay as they are.
    options:
        How words become cues, for formats that have them.

    Raises
    ------
    InputError
        If two recordings would be written to the same file, if several would be written to stdout in a format that
        holds only one, if a result would be written over a file that the user gave, or if the folder cannot be made.
    """

    def __init__(
        self, name: str, folder: Path | None, paths: list[Path], given: list[Path], options: CueOptions | None
    ):
        self._name = name
        self._options = [] if options is None else [options]
        self._folder = folder
        self._format = FORMATS[name]
        if folder is None:
            if len(paths) > 1 and not self._format.concatenable:
                raise InputError(f"one {name} file cannot hold {len(paths)} recordings: give a folder with -o DIR")
            if os.path.isfile(_STDOUT):
                refuse_overwriting([_STDOUT], [*paths, *given])
            return
        taken: dict[Any, Path] = {}
        for path in paths:
            target = self._target(path)
            for name in (same_name(target.name), *identities(target)):
                other = taken.setdefault(name, path)
                if other is not path:
                    raise InputError(
                        f"{other} and {path} would both be written to {target}: "
                        "transcribe them in separate runs, into different folders"
                    )
        refuse_overwriting(map(self._target, paths), [*paths, *given])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made a folder for the results ({error})") from error

    def write(self, path: Path, result: Transcript | Exception) -> None:
        """Write one result, or raise `_Failed`. On stdout, the format says what stands for a recording that failed."""
        if isinstance(result, Exception):
            if self._folder is None:
                sys.stdout.write(self._format.failed)
            message = str(result).removeprefix(f"{path}: ")
            ours = isinstance(result, (TdtDecodeError, TdtDecodeWarning))
            raise _Failed(message if ours else f"{type(result).__name__}: {message}")
        text = self._format.render(result, str(path), *self._options)
        if self._folder is None:
            sys.stdout.write(text)
            return
        try:
            with new_file(self._target(path)) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        except InputError as error:
            raise _Failed(f"its result cannot be written ({error})") from error

    def flush(self) -> None:
        """Make sure that what was written to stdout is visible now."""
        if self._folder is None:
            sys.stdout.flush()

    def _target(self, path: Path) -> Path:
        assert self._folder is not None
        return self._folder / f"{path.stem}.{self._name}"


def _report(name: str, problem: str) -> None:
    print(f"tdtdecode: {name}: {problem}", file=sys.stderr)
