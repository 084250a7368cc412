"""From recordings to transcripts in stages, which run at the same time.

    recordings ─ read ─ features │ encode │ decode ─ transcripts
      (caller)     (two threads) │(thread)│(thread)    (caller)

The caller's thread takes recordings from the iterable and hands out what is finished. It alone touches either, and it
alone counts what is under way. Stages pass messages through queues and share nothing else. While the encoder works,
what comes next is read, and what came before is decoded. What the stages do is told by `Stages`, so that the same
pipeline serves every device.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..cancellation import Cancellation, Cancelled
from ..errors import InputError
from ..hypothesis import Hypothesis, Transcript

AHEAD_SECONDS = 600.0
"""So much audio is under way at most: then nothing more is read until something is finished.

A second is 64 KB of samples, then 51 KB of features (128 bins), then 51 KB of encoder output (1024 wide).
"""
_AHEAD_RECORDINGS = 4096
"""So many recordings are under way at most: they may be very short."""
_FIRST_SECONDS = 60.0
"""The first batches are made of so much audio, as the encoder has nothing to do meanwhile. Later ones are made of half
of what may be under way: the more there is to choose from, the less padding there is."""
_PATIENCE = 0.5
"""Seconds that the encoder waits for more to choose from, where the iterable lets everybody wait."""
READERS = 2
"""Threads that read, on a CPU. Each has one recording, whose length is not known yet. Files may lie on a slow disk:
then one thread waits while the other computes."""
_INTERRUPTIBLE = 0.2
"""Seconds of a wait in the caller's thread. Windows does not interrupt one that has no end."""


@dataclass(eq=False)
class Piece:
    """A recording, or a part of one that is an utterance of its own.

    Attributes
    ----------
    place:
        The recording's.
    index:
        Which of the recording's pieces it is.
    features:
        float32 [mel, T], padding included, where the encoder takes them.
    frames:
        How many of them are valid.
    seconds:
        The length.
    begin:
        Where it begins in the recording, in seconds.
    state:
        What decoding keeps from window to window.
    """

    place: int
    index: int
    features: Any
    frames: int
    seconds: float
    begin: float = 0.0
    state: Any = None


@dataclass(eq=False)
class Heard:
    """A recording that was read.

    Attributes
    ----------
    seconds:
        Its length.
    pieces:
        What of it is to be recognised; nothing where there is nothing to hear.
    transcript:
        Makes the transcript of the pieces' hypotheses.
    """

    seconds: float
    pieces: list[Piece]
    transcript: Callable[[list[Hypothesis]], Transcript]


@dataclass(eq=False)
class Encoded:
    """What a call of the encoder returned for some pieces; ``content`` is the stages' own."""

    pieces: list[Piece]
    content: Any


class Stages(Protocol):
    """What is done with recordings. Each method is called in the thread of its stage."""

    def thread(self, stage: str) -> AbstractContextManager[object]:
        """What a thread of the stage ``"read"``, ``"encode"`` or ``"decode"`` works within: on a GPU, the model's card
        and a stream."""

    def read(self, place: int, audio: Any) -> Heard:
        """Read a recording and compute its features. Called by several threads at once."""

    def batches(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """Which pieces go through the encoder together."""

    def encode(self, pieces: list[Piece]) -> Iterator[Encoded]:
        """Encode a batch; a long recording window by window. `decode` waits for what is still being encoded."""

    def decode(self, encoded: Encoded, reached: Callable[[int, float], None]) -> list[Hypothesis] | None:
        """Decode: a hypothesis for each piece, or None while more of it is to come.

        ``reached`` is told the place of a recording and how many seconds of it are done.
        """


# What the stages tell the caller.


@dataclass(frozen=True)
class Read:
    """A recording has so many seconds."""

    place: int
    seconds: float


@dataclass(frozen=True)
class Reached:
    """So many seconds of a recording are done."""

    place: int
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A recording is done, or has failed."""

    place: int
    result: Transcript | Exception


@dataclass(frozen=True)
class _Broken:
    """A stage has failed itself, which is a mistake in it or a lack of memory."""

    error: BaseException


News: TypeAlias = Read | Reached | Finished


@dataclass(eq=False)
class _Flow:
    """The queues between the stages, their limits, and two numbers that the caller alone writes.

    Attributes
    ----------
    handed:
        How many recordings were handed to the readers so far.
    readers:
        Threads that read.
    ahead_seconds:
        So much audio is under way at most.
    complete:
        Whether no more come until some are finished: then the encoder need not wait for more to choose from.
    """

    readers: int
    ahead_seconds: float

    to_read: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    to_encode: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    to_decode: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    news: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    cancellation: Cancellation = field(default_factory=Cancellation)
    handed: int = 0
    complete: bool = False

    def inboxes(self) -> list[queue.SimpleQueue[Any]]:
        """The queue that each thread waits at."""
        return [*[self.to_read] * self.readers, self.to_encode, self.to_decode]


class _Recording:
    """What is known of a recording after it was read: the pieces' hypotheses as they come."""

    def __init__(self, heard: Heard):
        self._transcript = heard.transcript
        self._found: list[Hypothesis | None] = [None] * len(heard.pieces)
        self.missing = len(heard.pieces)

    def add(self, index: int, hypothesis: Hypothesis) -> None:
        self._found[index] = hypothesis
        self.missing -= 1

    def transcript(self) -> Transcript:
        return self._transcript([one for one in self._found if one is not None])


def run(
    stages: Stages,
    recordings: Iterable[tuple[int, Any]],
    ahead_seconds: float = AHEAD_SECONDS,
    readers: int = READERS,
) -> Generator[News]:
    """Transcribe recordings.

    Parameters
    ----------
    recordings:
        Each with its place, a number of its own. Instead of a recording there may be an exception: its failure. They
        are taken in the thread of the caller, as far ahead as may be under way.
    ahead_seconds:
        So much audio is under way at most, beside the recordings that are being read.
    readers:
        The number of threads that read.

    Yields
    ------
    What is new, in the order in which it happens. A recording that failed does not take others along. What the iterable
    itself raises comes after the recordings that it gave before.

    Closing the generator ends the work at once, and its threads.
    """
    flow = _Flow(readers, ahead_seconds)
    crew = _Crew(flow)
    source = iter(recordings)
    ended, failure = False, None
    seconds: dict[int, float] = {}  # of the recordings under way; 0 while unknown
    total, unread = 0.0, 0
    try:
        crew.start("read", _read, stages, flow, count=readers)
        crew.start("encode", _encode, stages, flow)
        crew.start("decode", _decode, stages, flow)
        while True:
            crew.check()
            if not ended and total < ahead_seconds and len(seconds) < _AHEAD_RECORDINGS and unread < readers:
                flow.complete = False
                try:
                    place, audio = next(source)
                except StopIteration:
                    ended = True
                    continue
                except Exception as error:
                    ended, failure = True, error
                    continue
                seconds[place] = 0.0
                if isinstance(audio, Exception):
                    flow.news.put(Finished(place, audio))
                else:
                    unread += 1
                    flow.handed += 1
                    flow.to_read.put((place, audio))
                if flow.news.empty():
                    continue
            elif not seconds:
                break
            elif not flow.complete and (ended or unread < readers):
                flow.complete = True
                flow.to_encode.put(None)
            try:
                news = flow.news.get(timeout=_INTERRUPTIBLE)
            except queue.Empty:
                continue
            if isinstance(news, _Broken):
                raise news.error
            if isinstance(news, Read):
                unread -= 1
                seconds[news.place] = news.seconds
                total += news.seconds
            elif isinstance(news, Finished):
                total -= seconds.pop(news.place)
            yield news
        if failure is not None:
            raise failure
    finally:
        crew.end()


class _Crew:
    """The threads of a run. They end with it, however it ends: also when it is forgotten, and at the end of Python.

    Attributes
    ----------
    end:
        Ends all threads, and waits until they have.
    """

    def __init__(self, flow: _Flow):
        self._process = os.getpid()
        self._threads: list[threading.Thread] = []
        self.end = weakref.finalize(self, _end, self._process, flow, self._threads)

    def start(self, name: str, work: Callable[[Any, _Flow], None], stages: Stages, flow: _Flow, count: int = 1) -> None:
        for number in range(count):
            context = contextvars.copy_context()  # which holds how numpy and warnings treat what is doubtful
            thread = threading.Thread(
                target=context.run, args=(_guarded, name, work, stages, flow), name=f"tdtdecode-{name}-{number}",
                daemon=True,
            )  # fmt: skip
            self._threads.append(thread)
            thread.start()

    def check(self) -> None:
        """Raise an error in a forked process, in which the threads do not exist: nothing would ever come."""
        if os.getpid() != self._process:
            raise InputError("these transcripts are made by the process that was forked: begin anew in this one")


def _end(process: int, flow: _Flow, threads: list[threading.Thread]) -> None:
    if os.getpid() != process:  # a forked process: the queues may be locked, and nobody waits at them
        return
    flow.cancellation.request()
    for inbox in flow.inboxes():
        inbox.put(_END)
    for thread in threads:
        if thread is not threading.current_thread() and thread.ident is not None:
            thread.join()


_END = object()


def _guarded(stage: str, work: Callable[[Stages, _Flow], None], stages: Stages, flow: _Flow) -> None:
    with flow.cancellation.governing():
        try:
            with stages.thread(stage):
                work(stages, flow)
        except Cancelled:
            pass
        except BaseException as error:
            flow.news.put(_Broken(error))


def _taken(inbox: queue.SimpleQueue[Any], wait: float | None = None) -> Any:
    """The next message; raises queue.Empty if none comes within so many seconds."""
    message = inbox.get(timeout=wait) if wait != 0 else inbox.get_nowait()
    if message is _END:
        raise Cancelled
    return message


def _read(stages: Stages, flow: _Flow) -> None:
    while True:
        place, audio = _taken(flow.to_read)
        try:
            heard = stages.read(place, audio)
        except Exception as error:
            flow.news.put(Read(place, 0.0))
            flow.news.put(Finished(place, error))
            flow.to_encode.put([])
            continue
        finally:
            del audio
        flow.news.put(Read(place, heard.seconds))
        if not heard.pieces:
            flow.news.put(Finished(place, heard.transcript([])))
        else:
            flow.to_decode.put((place, _Recording(heard)))
        flow.to_encode.put(heard.pieces)
        del heard


def _encode(stages: Stages, flow: _Flow) -> None:
    arrived, enough = 0, _FIRST_SECONDS
    while True:
        pieces: list[Piece] = []
        seconds = 0.0
        while True:
            all_there = arrived == flow.handed
            ready = bool(pieces) and (seconds >= enough or (all_there and flow.complete))
            try:
                message = _taken(flow.to_encode, 0 if ready else _PATIENCE if pieces and all_there else None)
            except queue.Empty:
                break
            if isinstance(message, list):
                arrived += 1
                pieces += message
                seconds += sum(piece.seconds for piece in message)
            elif message is not None:  # decoding a batch has failed
                for piece in message.pieces:
                    _encode_batch(stages, flow, [piece])
        enough = flow.ahead_seconds / 2
        batches = stages.batches(sorted(pieces, key=lambda piece: (piece.place, piece.index)))
        del pieces
        for batch in batches:
            _encode_batch(stages, flow, batch)
        del batches, batch


def _encode_batch(stages: Stages, flow: _Flow, batch: list[Piece]) -> None:
    """Encode a batch; where that fails, one by one, as most likely one of them was the cause."""
    try:
        for encoded in stages.encode(batch):
            flow.to_decode.put(encoded)
    except Exception as error:
        if len(batch) == 1:
            flow.to_decode.put((batch[0].place, error))
            return
        for piece in batch:
            _encode_batch(stages, flow, [piece])


def _decode(stages: Stages, flow: _Flow) -> None:
    recordings: dict[int, _Recording] = {}

    def reached(place: int, seconds: float) -> None:
        flow.news.put(Reached(place, seconds))

    def fail(place: int, error: Exception) -> None:
        if recordings.pop(place, None) is not None:
            flow.news.put(Finished(place, error))

    while True:
        message = _taken(flow.to_decode)
        if not isinstance(message, Encoded):
            place, what = message
            if isinstance(what, _Recording):
                recordings[place] = what
            else:
                fail(place, what)
            continue
        if not any(piece.place in recordings for piece in message.pieces):
            continue  # windows of a recording that has failed
        try:
            hypotheses = stages.decode(message, reached)
        except Exception as error:
            if len(message.pieces) == 1:
                fail(message.pieces[0].place, error)
            else:
                flow.to_encode.put(message)
            continue
        for piece, hypothesis in zip(message.pieces, hypotheses or (), strict=hypotheses is not None):
            recording = recordings.get(piece.place)
            if recording is None:
                continue
            recording.add(piece.index, hypothesis)
            if not recording.missing:
                del recordings[piece.place]
                try:
                    flow.news.put(Finished(piece.place, recording.transcript()))
                except Exception as error:
                    flow.news.put(Finished(piece.place, error))
        del message, hypotheses
