"""``tdtdecode transcribe --manifest``: a list of recordings in, a list of results out; a later run goes on with it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..outputs import refuse_overwriting
from ..speech.progress import Progress
from .options import model_options, vad
from .progress import Display
from .search_options import files_given, search_of
from .status import DONE, SOME_FAILED

if TYPE_CHECKING:
    from ..corpora import Entry, Fields, Manifest, Results
    from ..corpora.transcription import Outcome
    from ..search import Beam, Greedy
    from ..speech.vad import SileroVad

_OWN = {"words": "--words", "retry_errors": "--retry-errors", "ray": "--ray"}
"""The options that only manifests have."""
_STDOUT = Path("/dev/stdout")


@dataclass(frozen=True)
class _How:
    """How recordings are transcribed: arguments of `corpora.transcribed`, on every machine."""

    fields: Fields
    batch_size: int | None
    language: str | None
    vad: SileroVad | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of manifests."""
    group = parser.add_argument_group("manifests")
    group.add_argument("--manifest", metavar="FILE",
                       help="transcribe the recordings that this file lists, instead of AUDIO: NeMo's manifest or "
                       "lhotse's cuts, as JSON Lines, or - for standard input. Results are the same lines with "
                       "pred_text, or error, added; to stdout, or to the file of -o. The same command goes on where an "
                       "earlier run was cut off")
    group.add_argument("--words", action="store_true",
                       help="add the words, with their times and their confidence")
    group.add_argument("--retry-errors", action="store_true",
                       help="transcribe again what failed in an earlier run")
    group.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                       help="work on the machines of a Ray cluster: host:port, or auto for the one that this machine "
                       "belongs to (default: that of RAY_ADDRESS, else a new one on this machine); each worker has "
                       "--threads cores, or a GPU. All of them need the recordings and the model under the same paths")


def check(arguments: argparse.Namespace) -> None:
    """Raise an InputError if options do not go together."""
    if arguments.manifest is None:
        if given := [flag for name, flag in _OWN.items() if getattr(arguments, name) not in (None, False)]:
            raise InputError(f"{' and '.join(given)} needs --manifest FILE")
        if not arguments.audio:
            raise InputError("nothing to transcribe: give AUDIO (recordings, folders of them, or - for standard "
                             "input) or --manifest FILE")  # fmt: skip
        return
    if arguments.audio:
        raise InputError(f"--manifest lists the recordings: leave out {arguments.audio[0]}, or transcribe it alone")
    for flag, given in {"--stream": arguments.stream, "--recursive": arguments.recursive}.items():
        if given:
            raise InputError(f"{flag} has no meaning with --manifest")
    if arguments.format != "txt":
        raise InputError(f"--format {arguments.format}: with --manifest, results are JSON Lines; --words adds times")
    if (arguments.nbest or 1) > 1:
        raise InputError("--nbest: with --manifest, results hold one text per recording")
    if arguments.retry_errors and arguments.output is None:
        raise InputError("--retry-errors needs the results of an earlier run: -o FILE")
    if arguments.ray is not None and arguments.output is None:
        raise InputError("--ray needs -o FILE: results come in another order, and are put in order there")


def run(arguments: argparse.Namespace) -> int:
    """Transcribe a manifest, and return the exit status."""
    from ..corpora import Fields, Results, read_manifest

    search = search_of(arguments)
    manifest = read_manifest(arguments.manifest)
    how = _How(Fields(words=arguments.words), arguments.batch_size, arguments.language, vad(arguments))

    from ..bundle import read_bundle
    from ..corpora.settings import settings_of
    from ..speech.hub import find_model

    directory = find_model(arguments.model, arguments.variant)
    given = [directory, *map(Path, files_given(arguments))]
    if arguments.output is None:
        if os.path.isfile(_STDOUT):
            refuse_overwriting([_STDOUT], [manifest.path, *given])
        return _transcribe(arguments, directory, search, how, manifest, None, None)
    refuse_overwriting([arguments.output], given)
    bundle = read_bundle(directory, arguments.layout, arguments.variant, arguments.durations, arguments.big_blanks)
    settings = settings_of(
        bundle, search, how.fields, network=arguments.network, precision=arguments.precision, tf32=arguments.tf32,
        language=how.language, vad=how.vad,
    )  # fmt: skip
    results = Results(
        arguments.output, manifest, settings, how.fields.names, retry_errors=arguments.retry_errors,
        in_order=arguments.ray is None,
    )  # fmt: skip
    try:
        with results:
            return _transcribe(arguments, directory, search, how, manifest, results, settings["model"])
    except OutputError as error:
        print(f"tdtdecode: {error}", file=sys.stderr)
        return SOME_FAILED


def _transcribe(
    arguments: argparse.Namespace, directory: Path, search: Greedy | Beam, how: _How, manifest: Manifest,
    results: Results | None, digest: str | None,
) -> int:  # fmt: skip
    """Transcribe what is not done, and say at the end, or where the work stops, what is."""
    entries: Iterable[Entry] = manifest if results is None else results.pending()
    stated = (manifest.seconds, manifest.stated, len(manifest))
    if results is not None:
        stated = (results.pending_seconds, results.pending_stated, len(manifest) - results.done)
        if results.done:
            print(f"tdtdecode: {results.done} of {len(manifest)} recordings are done already", file=sys.stderr)
    failed = 0
    try:
        if stated[2]:
            shown = _Shown(manifest.name, *stated)
            outcomes = _outcomes(arguments, directory, search, how, entries, digest, shown.news)
            for outcome in shown.outcomes(outcomes):
                failed += outcome.error is not None
                if results is not None:
                    results.add(outcome.entry, outcome.results)
                else:
                    sys.stdout.write(_line(outcome))
                    sys.stdout.flush()
    finally:
        if results is not None and results.done and (results.done < len(manifest) or results.failed):
            print(f"tdtdecode: {_state(results, len(manifest), arguments.output)}", file=sys.stderr)
    if results is not None and (results.failed or results.done < len(manifest)):
        return SOME_FAILED
    return SOME_FAILED if failed else DONE


def _outcomes(
    arguments: argparse.Namespace, directory: Path, search: Greedy | Beam, how: _How, entries: Iterable[Entry],
    digest: str | None, progress: Callable[[Progress], object],
) -> Iterator[Outcome]:  # fmt: skip
    """Transcribe entries, here or on a cluster."""
    options = model_options(arguments)
    if arguments.ray is not None:
        from ..corpora.ray import transcribed_on_ray

        name = os.path.abspath(directory) if os.path.isdir(arguments.model) else arguments.model
        return transcribed_on_ray(
            entries, name, search, address=arguments.ray or None, digest=digest, **vars(how), **options
        )  # fmt: skip
    from ..corpora import transcribed
    from ..speech.loading import load_model

    model = load_model(directory, search=search, **options)
    return transcribed(model, entries, progress=progress, **vars(how))


def _line(outcome: Outcome) -> str:
    from ..corpora.lines import written

    return written(outcome.entry.with_results(outcome.results)).decode()


def _state(results: Results, recordings: int, path: Path) -> str:
    """What a file of results holds, and how to go on."""
    text = f"{path}: {results.done} of {recordings} recordings are done"
    if results.failed:
        text += f", {results.failed} of them with an error; --retry-errors tries them again"
    if results.done < recordings:
        text += "; the same command goes on"
    return text


class _Shown:
    """Shows how far the work has come, and prints errors.

    Parameters
    ----------
    manifest:
        What messages call the manifest.
    seconds, stated, recordings:
        The length of the recordings as far as the manifest states it, for how many it does, and how many there are.
    """

    def __init__(self, manifest: str, seconds: float, stated: int, recordings: int):
        self._manifest = manifest
        self._seconds, self._stated, self._recordings = seconds, stated, recordings
        self._done, self._finished = 0.0, 0
        self._display: Display | None = None  # from the first news on: what comes before is not work on recordings

    def news(self, progress: Progress) -> None:
        """There is news within recordings."""
        self._show(progress.seconds_done)

    def outcomes(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """The same outcomes."""
        for outcome in outcomes:
            self._finished += 1
            self._done += outcome.seconds
            if outcome.entry.seconds is None:
                self._seconds, self._stated = self._seconds + outcome.seconds, self._stated + 1
            else:
                self._seconds += outcome.seconds - outcome.entry.seconds
            self._show(self._done)
            if outcome.error is not None:
                self._clear()
                name = outcome.entry.name
                problem = outcome.error.removeprefix(f"{name}: ")
                print(f"tdtdecode: {self._manifest} line {outcome.entry.line}: {name}: {problem}", file=sys.stderr)
            yield outcome
        self._clear()

    def _show(self, done: float) -> None:
        self._display = self._display or Display()
        done = max(done, self._done)
        self._display.show(Progress(
            seconds_done=done, seconds_total=max(self._seconds, done), recordings_done=self._finished,
            recordings_known=self._stated, recordings_total=self._recordings,
        ))  # fmt: skip

    def _clear(self) -> None:
        if self._display is not None:
            self._display.clear()
