"""From entries of a manifest to results. Whoever transcribes a manifest, here or on other machines, does it by this."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingDependencyError, TdtDecodeError, TdtDecodeWarning
from ..hypothesis import Transcript
from ..speech.audio import Audio
from ..speech.formats.json import words
from .kind import ERROR, PREDICTION
from .kinds import Entry

if TYPE_CHECKING:
    from ..search import Beam, Greedy
    from ..speech.progress import Progress
    from ..speech.recognizer import Recognizer
    from ..speech.vad import SileroVad

WORDS = "words"


@dataclass(frozen=True)
class Fields:
    """What results consist of.

    Attributes
    ----------
    words:
        Whether the words stand there too, with their times and their confidence.
    """

    words: bool = False

    @property
    def names(self) -> set[str]:
        """The fields that results may have."""
        return {PREDICTION, ERROR, WORDS} if self.words else {PREDICTION, ERROR}

    def of(self, result: Transcript | Exception) -> dict[str, Any]:
        """The fields of a result: the text, or why there is none."""
        if isinstance(result, Exception):
            ours = isinstance(result, (TdtDecodeError, TdtDecodeWarning))
            return {ERROR: str(result) if ours else f"{type(result).__name__}: {result}"}
        return {PREDICTION: result.text, **({WORDS: words(result)} if self.words else {})}


@dataclass(frozen=True)
class Outcome:
    """A recording that is done.

    Attributes
    ----------
    entry:
        The recording.
    results:
        The fields of its results.
    seconds:
        Its length; of one that failed, what the manifest states, or 0.
    """

    entry: Entry
    results: dict[str, Any]
    seconds: float

    @property
    def error(self) -> str | None:
        """Why it failed; None if it did not."""
        return self.results.get(ERROR)


def transcribed(
    model: Recognizer,
    entries: Iterable[Entry],
    search: Greedy | Beam | None = None,
    *,
    fields: Fields = Fields(),
    batch_size: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    language: str | None = None,
    vad: SileroVad | None = None,
) -> Iterator[Outcome]:
    """Transcribe the recordings of a manifest.

    Parameters
    ----------
    entries:
        The recordings, however many. They are asked for ahead of those that are returned.
    search, batch_size, progress, language, vad:
        As for `Recognizer.recognize_each`.
    fields:
        What results consist of.

    Yields
    ------
    An `Outcome` for each recording, in their order. Errors of a recording stand in its results.

    Raises
    ------
    InputError
        If the model does not have the language.
    MissingDependencyError
        If a package is missing: that is no fault of the recording.
    """
    waiting: deque[tuple[Entry, InputError | None]] = deque()

    def recordings() -> Iterator[Audio]:
        for entry in entries:
            try:
                audio = entry.audio()
            except InputError as error:
                waiting.append((entry, error))
            else:
                waiting.append((entry, None))
                yield audio

    def failed() -> Iterator[Outcome]:
        while waiting and (error := waiting[0][1]) is not None:
            entry, _ = waiting.popleft()
            yield Outcome(entry, fields.of(error), entry.seconds or 0.0)

    found = model.recognize_each(
        recordings(), search, batch_size=batch_size, on_error="return", progress=progress, language=language, vad=vad,
    )  # fmt: skip
    with closing(found):  # type: ignore[type-var]
        for result in found:
            yield from failed()
            entry, _ = waiting.popleft()
            if isinstance(result, MissingDependencyError):
                raise result
            seconds = result.duration if isinstance(result, Transcript) else entry.seconds or 0.0
            yield Outcome(entry, fields.of(result), seconds)
    yield from failed()
