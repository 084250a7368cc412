"""``tdtdecode transcribe``: turn recordings into text, subtitles or words with times."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TdtDecodeError, TdtDecodeWarning
from ..outputs import identities, new_file, refuse_overwriting, same_name
from ..speech.formats import FORMATS
from .options import add_cues, add_model, cues, model_options, positive
from .recordings import Given, recordings
from .status import DONE, SOME_FAILED

if TYPE_CHECKING:
    from ..hypothesis import Transcript
    from ..search import Beam, Fusion, Greedy
    from ..speech.formats import CueOptions
    from ..speech.recognizer import Recognizer

HELP = "Transcribe recordings. Text goes to stdout, one line per recording in order; messages go to stderr."

_WITH_ALTERNATIVES = " or ".join(f"--format {name}" for name, format in FORMATS.items() if format.alternatives)
"""The options that choose a format with room for several hypotheses."""

_STDOUT = Path("/dev/stdout")

_BATCHES_AT_ONCE = 4
"""Batches that are recognised before results are written.

With more, recordings of similar length can share a batch, which is faster. With fewer, results appear sooner.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("audio", nargs="+", metavar="AUDIO",
                        help="recordings (WAV, FLAC, OGG, MP3; with tdtdecode[media] also m4a, mp4, webm, ...), "
                        "folders of them, or - for standard input")
    parser.add_argument("--recursive", action="store_true", help="read the folders in folders too")
    parser.add_argument("--model", default="demo",
                        help="'demo', a model directory, or a Hugging Face hub id (default: demo)")
    add_model(parser)
    parser.add_argument("--search", choices=("greedy", "beam"), default="greedy", help="default: greedy")
    parser.add_argument("--max-symbols", type=positive, default=10, metavar="N",
                        help="most tokens emitted at one frame (default: 10)")
    parser.add_argument("--beam-size", type=positive, metavar="N", help="hypotheses kept (default: 4)")
    parser.add_argument("--nbest", type=positive, metavar="N",
                        help=f"hypotheses written, with {_WITH_ALTERNATIVES} (default: 1)")
    parser.add_argument("--lm", type=Path, metavar="ARPA",
                        help="n-gram language model over the model's tokens; the file may be compressed")
    parser.add_argument("--lm-weight", type=float, metavar="W",
                        help="weight of the language model's scores (default: 0.3)")
    parser.add_argument("--lm-units", choices=("pieces", "nemo"), metavar="UNITS",
                        help="what the language model's words are: pieces, as in the token file (default), or nemo, "
                        "NeMo's characters")
    parser.add_argument("--phrases", type=Path, metavar="FILE",
                        help="phrases to expect, one per line; a tab and a number after a phrase multiply its weight")
    parser.add_argument("--phrases-weight", type=float, metavar="W",
                        help="weight of the phrases' scores (default: 0.6)")
    parser.add_argument("--phrases-ignore-case", action="store_true",
                        help="expect the phrases in any case: as they stand, in capitals, in lower case")
    parser.add_argument("--format", choices=tuple(FORMATS), default="txt", help="default: txt")
    parser.add_argument("-o", dest="output", type=Path, metavar="DIR",
                        help="write one file per recording, NAME.FORMAT, into this folder instead of to stdout")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N",
                        help="most recordings decoded together (default: 16)")
    parser.add_argument("--strict", action="store_true",
                        help="treat warnings as errors: a recording that is cut short, a phrase that is left out, ...")
    add_cues(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcribe, and return the exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("error" if arguments.strict else "always", TdtDecodeWarning)
        warnings.showwarning = _show_warning
        return _run(arguments)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"tdtdecode: warning: {message}", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    inputs, problems = recordings(arguments.audio, arguments.recursive)
    for name, problem in problems:
        _report(name, problem)
    search = _search(arguments)
    options = cues(arguments, arguments.format)

    from ..speech.hub import find_model
    from ..speech.loading import load_model

    directory = find_model(arguments.model, arguments.variant)
    given = [path for path in (directory, arguments.lm, arguments.phrases) if path is not None]
    writer = _Writer(arguments.format, arguments.output, [one.path for one in inputs], given, options)
    model = load_model(directory, search=search, **model_options(arguments))
    failed = _transcribe(model, inputs, writer, arguments.batch_size)
    return SOME_FAILED if failed or problems else DONE


def _search(arguments: argparse.Namespace) -> Greedy | Beam:
    """The search that the options describe."""
    from ..search import Beam, Greedy

    fusion: list[Fusion] = []
    if arguments.lm is not None:
        from ..fusion import NgramLM

        weight = 0.3 if arguments.lm_weight is None else arguments.lm_weight
        fusion.append(NgramLM.from_arpa(arguments.lm, weight, arguments.lm_units or "pieces"))
    elif arguments.lm_weight is not None or arguments.lm_units is not None:
        raise InputError("--lm-weight and --lm-units need a language model: --lm ARPA")
    if arguments.phrases is not None:
        from ..fusion import PhraseBoost

        weight = 0.6 if arguments.phrases_weight is None else arguments.phrases_weight
        fusion.append(PhraseBoost.from_file(arguments.phrases, weight, ignore_case=arguments.phrases_ignore_case))
    elif arguments.phrases_weight is not None or arguments.phrases_ignore_case:
        raise InputError("--phrases-weight and --phrases-ignore-case need phrases: --phrases FILE")
    if arguments.search == "greedy":
        if arguments.beam_size is not None or arguments.nbest is not None:
            raise InputError("--beam-size and --nbest need --search beam")
        return Greedy(max_symbols=arguments.max_symbols, fusion=tuple(fusion))
    if arguments.nbest is not None and arguments.nbest > 1 and not FORMATS[arguments.format].alternatives:
        raise InputError(f"--nbest needs {_WITH_ALTERNATIVES}: other formats hold one text per recording")
    return Beam(
        size=4 if arguments.beam_size is None else arguments.beam_size, nbest=arguments.nbest or 1,
        max_symbols=arguments.max_symbols, fusion=tuple(fusion),
    )  # fmt: skip


def _transcribe(model: Recognizer, inputs: list[Given], writer: _Writer, batch_size: int) -> int:
    """Transcribe all recordings, a few batches at a time, so that results appear early. Returns how many failed."""
    failed = 0
    together = batch_size * _BATCHES_AT_ONCE
    progress = _Progress(len(inputs))
    for start in range(0, len(inputs), together):
        part = inputs[start : start + together]
        results = model.recognize(
            [one.audio for one in part], batch_size=batch_size, on_error="return",
            progress=lambda done, _: progress.show(start + done),
        )  # fmt: skip
        progress.clear()
        for one, result in zip(part, results, strict=True):
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


class _Progress:
    """Shows how many recordings are done: on a terminal in one line that is updated, else in a new line every 10 s."""

    _SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, total: int):
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def show(self, done: int) -> None:
        line = f"{done} of {self._total} recordings"
        if self._terminal:
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._shown >= self._SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            print(f"tdtdecode: {line}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal, before other lines are printed."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _report(name: str, problem: str) -> None:
    print(f"tdtdecode: {name}: {problem}", file=sys.stderr)
