"""Live recordings of all clients, which advance together: one call of the encoder and one of the decoder for all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from ..fusion import PhraseBoost
from ..hypothesis import Transcript
from ..search import Beam, Greedy
from ..speech.recognizer import Recognizer
from ..speech.streaming import News
from ..speech.vad import SileroVad
from .job import Wish, deliver, fail
from .lane import Lane
from .metrics import Metrics
from .settings import Settings


class LiveStream:
    """A live recording of a client. `LiveLane.open` makes it.

    Parameters
    ----------
    told:
        Called with the `News` of each piece, or with an error, in the lane's thread.
    """

    def __init__(self, lane: LiveLane, told: Callable[[News | Exception], object]):
        self.told = told
        self.inbox: deque[tuple[np.ndarray, int] | Future[Transcript] | None] = deque()  # None: forget the stream
        self._lane = lane

    @property
    def pending(self) -> float:
        """Seconds of audio that were pushed and have not been worked off."""
        return sum(len(one[0]) / one[1] for one in list(self.inbox) if isinstance(one, tuple))

    def push(self, samples: np.ndarray, rate: int) -> None:
        """Add samples int16 [n]."""
        self._lane.put(self, (samples, rate))

    def finish(self) -> Future[Transcript]:
        """End the stream, after what was pushed. Returns its transcript."""
        future: Future[Transcript] = Future()
        self._lane.put(self, future)
        return future

    def drop(self) -> None:
        """Forget the stream, and what was pushed."""
        self._lane.put(self, None)


class LiveLane(Lane[list[LiveStream]]):
    """A thread that feeds all live recordings at once with what has come of each.

    Parameters
    ----------
    pause, vad:
        As for `Recognizer.streams`.
    """

    def __init__(
        self, model: Recognizer, settings: Settings, metrics: Metrics, pause: float | None, vad: SileroVad | None
    ):
        super().__init__("live", metrics)
        self._model, self._settings = model, settings
        self._streams = model.streams(pause=pause, vad=vad)
        self._fed: set[LiveStream] = set()  # those with something in their inbox
        self._thread.start()

    def search(self, phrases: tuple[str, ...]) -> Greedy | Beam:
        """The search that also expects phrases, in any case.

        Raises
        ------
        InputError
            If none of them can be spelt with the model's pieces.
        """
        decoder = self._model.decoder
        if not phrases:
            return decoder.search
        search = replace(decoder.search, fusion=(*decoder.search.fusion, PhraseBoost(phrases, ignore_case=True)))
        decoder.decode(np.zeros((1, decoder.spec.encoder_size or 1, 0), np.float32), None, search)  # spells them
        return search

    def open(
        self, told: Callable[[News | Exception], object], wish: Wish, search: Greedy | Beam, pause: float | None
    ) -> LiveStream:
        """Begin a live recording.

        Raises
        ------
        InputError
            If the model does not have the language.
        """
        stream = LiveStream(self, told)
        self._streams.open(stream, wish.language, search, pause)
        return stream

    def put(self, stream: LiveStream, what: tuple[np.ndarray, int] | Future[Transcript] | None) -> None:
        """Add to the inbox of a stream; None: forget the stream, and what is in its inbox."""
        with self._changed:
            if what is None:
                stream.inbox.clear()
            stream.inbox.append(what)
            self._fed.add(stream)
            self._changed.notify()

    def _next(self) -> list[LiveStream] | None:
        with self._changed:
            while not self._fed:
                if self._ended:
                    return None
                self._changed.wait()
        time.sleep(self._settings.batch_wait)  # what comes meanwhile shares the calls
        with self._changed:
            return list(self._fed)

    def _do(self, streams: list[LiveStream]) -> None:
        """Feed all streams that something has come for, then finish those that end."""
        pieces: dict[int, dict[LiveStream, np.ndarray]] = {}
        ends: dict[LiveStream, Future[Transcript]] = {}
        with self._changed:
            for stream in streams:
                rate, samples = _taken(stream.inbox)
                if samples is not None:
                    pieces.setdefault(rate, {})[stream] = samples
                if stream.inbox and not isinstance(stream.inbox[0], tuple):
                    end = stream.inbox.popleft()
                    if isinstance(end, Future):
                        ends[stream] = end
                    elif stream in self._streams:
                        self._streams.drop(stream)
                        pieces.get(rate, {}).pop(stream, None)
                if not stream.inbox:
                    self._fed.discard(stream)
        for rate, fed in pieces.items():
            for stream, news in self._streams.feed(fed, rate).items():
                self._metrics.audio.labels("live").inc(len(fed[stream]) / rate)
                stream.told(news)
        for stream, result in self._streams.finish(ends).items():
            if isinstance(result, Exception):
                fail(ends[stream], result)
            else:
                deliver(ends[stream], result)


def _taken(inbox: deque[Any]) -> tuple[int, np.ndarray | None]:
    """The samples of one rate that come next in an inbox, which are taken out of it."""
    parts: list[np.ndarray] = []
    rate = 0
    while inbox and isinstance(inbox[0], tuple) and (not parts or inbox[0][1] == rate):
        samples, rate = inbox.popleft()
        parts.append(samples)
    return rate, np.concatenate(parts) if parts else None
