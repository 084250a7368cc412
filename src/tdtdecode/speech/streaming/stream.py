"""One live recording, or many at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...arguments import as_number
from ...bundle import Bundle
from ...decoder import Decoder, DecoderState
from ...errors import InputError
from ...forks import Lock
from ...hypothesis import Hypothesis, Transcript
from ...search import Beam, Greedy, as_search, runs_in_the_beam_engine
from ..audio.extractors import Extractor
from ..audio.features import SAMPLE_RATE
from ..vad import SileroVad
from .live import Live, News
from .utterances import Step
from .walks import Encoded, Walk

_BATCH_FRAMES = 48_000
"""The most feature frames in a call of the encoder, padding included: 480 s."""


class Streams:
    """Live recordings that share the calls of one model: `Recognizer.streams` makes them.

    Streams come and go. Each has a name: anything that can be a key of a dictionary. A new name begins a stream. Their
    results do not depend on each other, nor on how the audio is cut into pieces. Any thread may feed any stream: the
    windows that are due are encoded and decoded together, one of each stream at a time, so a stream that brings a
    minute at once does not keep the others waiting for longer than a window.

    An error concerns its stream alone: it stands in the stream's place in what a call returns. After a piece that was
    refused the stream goes on as if the piece had not come. A stream whose encoder or decoder failed returns that error
    from then on.
    """

    def __init__(
        self,
        bundle: Bundle,
        walk: Walk,
        decoder: Decoder,
        extract: Extractor,
        search: Greedy | Beam,
        pause: float | None,
        vad: SileroVad | None,
    ):
        self._bundle, self._walk, self._decoder, self._search = bundle, walk, decoder, search
        self._extract, self._vad = extract, vad
        self._pause = math.inf
        if pause is not None:
            self._pause = self._frames_of(pause)
        self._frame_samples = round(bundle.frame_seconds * SAMPLE_RATE)
        self._streams: dict[Hashable, Live] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, name: object) -> bool:
        return name in self._streams

    def __repr__(self) -> str:
        return f"<Streams of {self._bundle.directory.name}: {len(self)} open, {self._search!r}>"

    @property
    def names(self) -> list[Hashable]:
        """The names of the streams that are open."""
        with self._lock.held:
            return list(self._streams)

    def open(
        self,
        name: Hashable,
        language: str | None = None,
        search: Greedy | Beam | None = None,
        pause: float | None = None,
    ) -> None:
        """Begin a stream. `feed` does so too, with the model's default language and these streams' search.

        Parameters
        ----------
        language:
            For models that are told one, such as ``"en-US"``.
        search:
            Replaces these streams' search.
        pause:
            Replaces these streams' pause: seconds without a token after which an utterance ends; ``inf``: it does not.

        Raises
        ------
        InputError
            If there is a stream of that name, the model does not have the language, or an option is wrong.
        """
        if search is not None:
            as_search(search)
        if pause is not None:
            pause = as_number("pause", pause, "a number of seconds above 0", above=0)
        with self._lock.held:
            if name in self._streams:
                raise InputError(f"there is a stream {name!r} already")
            self._streams[name] = self._begun(name, language, search or self._search, self._frames_of(pause))

    def feed(self, pieces: Mapping[Any, Any], rate: int = SAMPLE_RATE) -> dict[Any, News | Exception]:
        """Feed some streams, and work off what is due.

        Parameters
        ----------
        pieces:
            For each stream the samples that came: [n] or [n, channels], float around -1 to 1, or int16 or int32 PCM; of
            any length, 0 included.
        rate:
            Their rate in Hz.

        Returns
        -------
        For each of these streams its news, or its error.

        Raises
        ------
        InputError
            If ``pieces`` is no mapping.
        """
        return self._fed(pieces, lambda live, samples: live.add_samples(samples, rate))

    def feed_features(self, pieces: Mapping[Any, Any]) -> dict[Any, News | Exception]:
        """As `feed`, with features instead of samples: float32 [mel, T] each, not normalised, 10 ms a frame."""
        return self._fed(pieces, lambda live, features: live.add_features(self._checked_features(features)))

    def finish(self, names: Iterable[Any] | None = None) -> dict[Any, Transcript | Exception]:
        """End streams: the rest is encoded and decoded, and the streams are forgotten.

        Parameters
        ----------
        names:
            Which; None: all.

        Returns
        -------
        For each its transcript, whose words are those settled before and the rest; or its error.

        Raises
        ------
        InputError
            If there is no such stream. None has been ended then.
        """
        with self._lock.held:
            names = list(self._streams) if names is None else list(names)
            for name in names:
                if name not in self._streams:
                    raise InputError(f"there is no stream {name!r}")
            for name in names:
                self._ended(self._streams[name])
        self._work(names)
        with self._lock.held:
            return {name: self._finished(self._streams.pop(name)) for name in names if name in self._streams}

    def drop(self, name: Hashable) -> None:
        """Forget a stream without a result.

        Raises
        ------
        InputError
            If there is no such stream.
        """
        with self._lock.held:
            if self._streams.pop(name, None) is None:
                raise InputError(f"there is no stream {name!r}")

    def _fed(self, pieces: Mapping[Any, Any], add: Callable[[Live, Any], None]) -> dict[Any, News | Exception]:
        if not isinstance(pieces, Mapping):
            raise InputError(f"pieces must be a dictionary of streams' names and samples, got {type(pieces).__name__}")
        results: dict[Any, News | Exception] = {}
        with self._lock.held:
            for name, piece in pieces.items():
                try:
                    live = self._streams.get(name) or self._begun(name, None, self._search, self._pause)
                    if live.ended:
                        raise InputError(f"the stream {name!r} is being finished")
                    add(live, piece)
                    self._streams[name] = live
                except Exception as error:
                    results[name] = error
        self._work([name for name in pieces if name not in results])
        with self._lock.held:
            for name in pieces:
                if name not in results:
                    live_or_none = self._streams.get(name)
                    if live_or_none is None:
                        results[name] = InputError(f"the stream {name!r} has been finished or dropped meanwhile")
                    else:
                        results[name] = live_or_none.error or live_or_none.told()
        return {name: results[name] for name in pieces}

    def _begun(self, name: Hashable, language: str | None, search: Greedy | Beam, pause: float) -> Live:
        return Live(name, language, search, pause, self._bundle, self._walk, self._extract, self._vad)

    def _frames_of(self, pause: float | None) -> float:
        """A pause in encoder frames; that of these streams, if none is given."""
        if pause is None or math.isinf(pause):
            return self._pause if pause is None else pause
        return max(round(pause / self._bundle.frame_seconds), 1)

    def _checked_features(self, features: Any) -> np.ndarray:
        array = np.asarray(features)
        mel_bins = self._extract.mel_bins
        if array.ndim != 2 or len(array) != mel_bins or not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"features must be float32 [{mel_bins}, T], got {array.dtype} {list(array.shape)}")
        if not np.isfinite(array).all():
            raise InputError("features must be finite, found NaN or infinity")
        return array.astype(np.float32, copy=False)

    def _ended(self, live: Live) -> None:
        try:
            live.end()
        except Exception as error:
            live.error = error

    def _work(self, names: Sequence[Any]) -> None:
        """Encode and decode until none of these streams has a window that is due. Others that are due come along.

        The lock is held for one round at a time, so that other threads' streams get their turn.
        """
        wanted = set(names)
        while True:
            with self._lock.held:
                listening = [live for live in self._streams.values() if self._is_heard(live)]
                self._listen(listening)
                due = [live for live in self._streams.values() if self._is_due(live)]
                if not wanted.intersection(live.name for live in [*listening, *due]):
                    return
                due = [live for live in due if not self._is_silent(live)]
                at_once = max(1, _BATCH_FRAMES // self._walk.width) if self._walk.takes_batches else 1
                for first in range(0, len(due), at_once):
                    self._round(due[first : first + at_once])

    def _is_heard(self, live: Live) -> bool:
        """Whether the VAD has windows of a stream to hear."""
        return live.error is None and live.voice is not None and live.voice.is_due

    def _is_due(self, live: Live) -> bool:
        # A segment ends among words that are decoded later. So the VAD hears a stream first.
        due = live.error is None and not self._is_heard(live)
        return due and self._walk.is_due(live.position, live.heard.frames, live.ended)

    def _is_silent(self, live: Live) -> bool:
        """Whether a stream's next window could be passed over, as nobody speaks in it."""
        window = self._walk.passed(live.position, live.heard.frames, live.ended)
        return window is not None and live.pass_over(window)

    def _listen(self, listening: list[Live]) -> None:
        """Let the VAD hear the next windows of these streams. If that fails, one by one."""
        try:
            if self._vad is not None:
                self._vad.hear([live.voice for live in listening if live.voice is not None])
        except Exception as error:
            if len(listening) == 1:
                listening[0].error = error
            else:
                for live in listening:
                    self._listen([live])

    def _round(self, due: list[Live]) -> None:
        """Encode and decode one window of each of these streams. If that fails, one by one."""
        try:
            encoded = self._walk.encode([(live.position, live.heard, live.ended) for live in due])
            self._decode(due, encoded)
        except Exception as error:
            if len(due) == 1:
                due[0].error = error
            else:
                for live in filter(self._is_due, due):
                    self._round([live])

    def _decode(self, due: list[Live], encoded: list[Encoded]) -> None:
        chunks = list(zip(due, encoded, strict=True))
        decoded = self._stepped([(live, live.state, live.steps(one)) for live, one in chunks])
        # What lies ahead is decoded too, and that state is thrown away.
        ahead = self._stepped(
            [(live, state, live.ahead_of(one)) for (live, one), (_, state) in zip(chunks, decoded, strict=True)]
        )
        for (live, one), (parts, state), (peeked, _) in zip(chunks, decoded, ahead, strict=True):
            try:
                live.take(one, parts, state, peeked)
            except Exception as error:
                live.error = error

    def _stepped(
        self, work: Sequence[tuple[Live, DecoderState | None, list[Step]]]
    ) -> list[tuple[list[Hypothesis], DecoderState | None]]:
        """Decode some steps of each stream. Returns what each step gave, and the state after the last one."""
        states = [state for _, state, _ in work]
        found: list[list[Hypothesis]] = [[] for _ in work]
        for number in range(max(len(steps) for _, _, steps in work)):
            places = [i for i, (_, _, steps) in enumerate(work) if number < len(steps)]
            chunks = []
            for i in places:
                live, _, steps = work[i]
                step = steps[number]
                chunks.append((live, step.frames, None if step.begin is not None else states[i], step.final))
            for i, (part, state) in zip(places, self._chunks(chunks), strict=True):
                found[i].append(part)
                states[i] = state
        return list(zip(found, states, strict=True))

    def _chunks(
        self, chunks: Sequence[tuple[Live, Any, DecoderState | None, bool]]
    ) -> list[tuple[Hypothesis, DecoderState]]:
        """Decode the next frames [E, n] of streams, together as far as their searches allow."""
        groups: dict[Any, list[int]] = {}
        for i, (live, _, state, final) in enumerate(chunks):
            beamed = runs_in_the_beam_engine(live.search)
            groups.setdefault((live.search, beamed and final, beamed and state is None), []).append(i)
        results: dict[int, tuple[Hypothesis, DecoderState]] = {}
        for (search, final, _), places in groups.items():
            state = DecoderState.join(chunks[i][2] or self._decoder.initial_state(1) for i in places)
            found, after = self._decoder.decode_chunk([chunks[i][1] for i in places], None, state, final, search)
            for place, (i, hypothesis) in enumerate(zip(places, found, strict=True)):
                results[i] = hypothesis, after.select([place])
        return [results[i] for i in range(len(chunks))]

    def _finished(self, live: Live) -> Transcript | Exception:
        if live.error is not None:
            return live.error
        try:
            if not live.position.done:  # nothing was left to encode at the end
                nothing = np.zeros((self._bundle.spec.encoder_size or 1, 0), np.float32)
                position = replace(live.position, done=True)
                self._decode([live], [Encoded(nothing, nothing, position, 0, live.heard.frames)])
            return live.error or live.transcript(self._bundle)
        except Exception as error:
            return error


class Stream:
    """One live recording: `Recognizer.stream` makes it. Any thread may feed it."""

    def __init__(self, streams: Streams, language: str | None):
        self._streams = streams
        streams.open(self, language)

    def __repr__(self) -> str:
        return f"<Stream of {self._streams._bundle.directory.name}, {self._streams._search!r}>"

    def feed(self, samples: Any, rate: int = SAMPLE_RATE) -> News:
        """Feed the samples that came.

        Parameters
        ----------
        samples:
            [n] or [n, channels], float around -1 to 1, or int16 or int32 PCM; of any length, 0 included.
        rate:
            Their rate in Hz. It may change.

        Raises
        ------
        InputError
            If the samples are none of these, or the stream is finished. The stream goes on without them.
        """
        return self._result(self._streams.feed({self: samples}, rate) if self in self._streams else None)

    def feed_features(self, features: Any) -> News:
        """Feed features instead of samples: float32 [mel, T], not normalised, 10 ms a frame. Errors as for `feed`."""
        return self._result(self._streams.feed_features({self: features}) if self in self._streams else None)

    def finish(self) -> Transcript:
        """End the stream: the rest is decoded.

        Returns
        -------
        The transcript, whose words are those settled before and the rest.

        Raises
        ------
        InputError
            If the stream is finished already.
        """
        return self._result(self._streams.finish([self]) if self in self._streams else None)

    def _result(self, results: dict[Any, Any] | None) -> Any:
        if results is None:
            raise InputError("the stream is finished: begin another")
        if isinstance(results[self], Exception):
            raise results[self]
        return results[self]
