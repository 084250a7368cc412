"""Following a live recording: its words on the terminal as they come, or one JSON object per event."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..speech.streaming import Latency, News
from .options import add_vad, vad

if TYPE_CHECKING:
    from ..hypothesis import SpeechSegment, Transcript
    from ..speech.recognizer import Recognizer

FORMATS = ("txt", "json")


def add_stream(parser: argparse.ArgumentParser) -> None:
    """Add the options of `Recognizer.stream`."""
    add_language(parser)
    parser.add_argument("--pause", type=float, metavar="S",
                        help="an utterance ends after so many seconds without a word (default: 0.8; with --vad the "
                        "VAD alone says so)")
    for option in fields(Latency):
        parser.add_argument(f"--{option.name}", type=float, metavar="S",
                            help=f"{option.metadata['help']}, in seconds (default: {option.default:g})")
    add_vad(parser, "each segment of speech is an utterance, and silence is not decoded")


def add_language(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option of what is spoken."""
    parser.add_argument("--language", metavar="NAME", help="for models that are told one, such as en-US")


def stream_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Recognizer.stream` that were given.

    Raises
    ------
    InputError
        If one is out of its range.
    """
    given = {option.name: getattr(arguments, option.name) for option in fields(Latency)}
    given = {name: value for name, value in given.items() if value is not None}
    latency = Latency(**given) if given else None
    options = {"language": arguments.language, "latency": latency, "pause": arguments.pause, "vad": vad(arguments)}
    return {name: value for name, value in options.items() if value is not None}


def follow(model: Recognizer, blocks: Iterator[tuple[int, Any]], format: str, options: dict[str, Any]) -> None:
    """Show what a stream tells, until its audio ends or the user interrupts. Then the rest is decoded and shown.

    Parameters
    ----------
    blocks:
        Rates in Hz and samples, as they come.
    format:
        ``"txt"``: a line for each utterance; on a terminal it grows, and the text that may still change stands at its
        end. ``"json"``: a line for each event.
    options:
        Of `Recognizer.stream`.
    """
    stream = model.stream(**options)
    printer = _Json() if format == "json" else _Text(sys.stdout.isatty())
    with _interruptible():
        for rate, block in blocks:
            came = time.perf_counter()
            printer.show(stream.feed(block, rate), came)
    came = time.perf_counter()
    printer.end(stream.finish(), came)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt ends what is inside, as a matter of course."""
    handler = signal.getsignal(signal.SIGINT)
    listened_to = handler not in (signal.SIG_IGN, signal.SIG_DFL, None)
    if listened_to:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        if listened_to:
            signal.signal(signal.SIGINT, handler)


class _Text:
    """Prints words. On a terminal the last line is written anew as it changes."""

    def __init__(self, terminal: bool):
        self._words = 0
        self._terminal = terminal
        self._line: list[str] = []
        self._shown = ""

    def show(self, news: News, came: float) -> None:
        self._words += len(news.words)
        self._line += [word.text for word in news.words]
        if news.ended and self._line:
            self._rewrite(" ".join(self._line), "\n")
            self._line = []
        elif self._terminal:
            self._rewrite(" ".join([*self._line, *([news.tentative] if news.tentative else [])]), "")

    def end(self, transcript: Transcript, came: float) -> None:
        self._line += [word.text for word in transcript.words[self._words :]]
        self._rewrite(" ".join(self._line), "\n" if self._line else "")

    def _rewrite(self, line: str, end: str) -> None:
        """Replace the last line. One that has grown over several rows of the terminal is ended and begun anew."""
        if self._terminal:
            if line == self._shown and not end:
                return
            sys.stdout.write(f"\r\x1b[K{line}{end}" if self._fits() else f"\n{line}{end}")
            self._shown = "" if end else line
        else:
            sys.stdout.write(line + end)
        sys.stdout.flush()

    def _fits(self) -> bool:
        return len(self._shown) < shutil.get_terminal_size().columns


class _Json:
    """Prints a JSON object for each event: words, text that changed, an end of an utterance; speech, with a VAD."""

    def __init__(self) -> None:
        self._words = self._segments = 0
        self._tentative = ""
        self._speaking: bool | None = None

    def show(self, news: News, came: float) -> None:
        changed = (news.tentative, news.speaking) != (self._tentative, self._speaking)
        if news.words or news.ended or changed:
            self._write(news, came, False)

    def end(self, transcript: Transcript, came: float) -> None:
        words, speaking = tuple(transcript.words[self._words :]), None
        segments: tuple[SpeechSegment, ...] = ()
        if transcript.segments is not None:
            segments, speaking = tuple(transcript.segments[self._segments :]), False
        seconds = transcript.duration
        ended, language = bool(words or segments), transcript.language
        self._write(News(words, "", ended, segments, speaking, language, seconds, seconds), came, True)

    def _write(self, news: News, came: float, finished: bool) -> None:
        self._words += len(news.words)
        self._segments += len(news.segments)
        self._tentative, self._speaking = news.tentative, news.speaking
        event: dict[str, Any] = {
            "words": [
                {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
                 "confidence": round(word.confidence, 4)}
                for word in news.words
            ],
            "tentative": news.tentative, "ended": news.ended, "heard": round(news.heard, 3),
            "decoded": round(news.decoded, 3), "delay": round(time.perf_counter() - came, 4), "finished": finished,
        }  # fmt: skip
        if news.speaking is not None:
            event["segments"] = [
                {"start": round(segment.start, 3), "end": round(segment.end, 3)} for segment in news.segments
            ]
            event["speaking"] = news.speaking
        if news.language is not None:
            event["language"] = news.language
        print(json.dumps(event, ensure_ascii=False), flush=True)


@contextlib.contextmanager
def opened(name: str) -> Iterator[Iterator[tuple[int, Any]]]:
    """The samples of a pipe, a file, or ``-`` for standard input, as they come.

    Raises
    ------
    InputError
        If there is no such file.
    """
    from ..speech.audio.live import piped

    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        yield stack.enter_context(contextlib.closing(piped(source, "<stdin>" if name == "-" else name)))
