"""How an encoder goes over live recordings: which window is next, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ...errors import InputError
from ..audio.features import STD_FLOOR
from ..encoder import Encoder
from ..windows import Windows
from .cache_aware import CacheAwareEncoder, CacheState


class Heard:
    """The feature frames of a stream that its next windows still need.

    Parameters
    ----------
    mel_bins:
        Of the features.
    normalize:
        Whether windows are normalised by the mean and the deviation of all frames up to their end, per mel bin.

    Attributes
    ----------
    frames:
        How many feature frames have come so far.
    """

    def __init__(self, mel_bins: int, normalize: bool):
        self.frames = 0
        self._first = 0
        self._kept = np.zeros((mel_bins, 0), np.float32)
        self._sums = np.zeros((2, mel_bins)) if normalize else None
        self._summed = 0

    def add(self, features: np.ndarray) -> None:
        """Add feature frames, float32 [mel, n]."""
        if features.shape[1]:
            self._kept = np.concatenate([self._kept, features], axis=1)
            self.frames += features.shape[1]

    def window(self, start: int, stop: int) -> np.ndarray:
        """The frames from ``start`` to ``stop``, float32 [mel, n]; frames before the first are zeros."""
        found = self._kept[:, max(start, 0) - self._first : stop - self._first]
        self.count(stop)
        if self._sums is not None:
            mean = self._sums[0] / self._summed
            variance = np.maximum(self._sums[1] - self._summed * mean**2, 0) / max(self._summed - 1, 1)
            found = ((found - mean[:, None]) / (np.sqrt(variance)[:, None] + STD_FLOOR)).astype(np.float32)
        return np.pad(found, ((0, 0), (max(-start, 0), 0))) if start < 0 else found

    def count(self, stop: int) -> None:
        """Take the frames up to ``stop`` into the mean and the deviation.

        What comes after a window does not count for it, for that depends on how the audio is cut into pieces.
        """
        if self._sums is not None:
            new = self._kept[:, self._summed - self._first : stop - self._first].astype(np.float64)
            self._sums += new.sum(axis=1), np.square(new).sum(axis=1)
            self._summed = max(self._summed, stop)

    def drop(self, before: int) -> None:
        """Forget the frames before one that will not be needed again."""
        if before > self._first:
            self._kept = self._kept[:, before - self._first :]
            self._first = before


@dataclass(frozen=True)
class Position:
    """Where a stream stands. A value.

    Attributes
    ----------
    frame:
        The encoder frame that its next window's chunk begins with.
    done:
        Whether the stream has ended and all of it has been encoded.
    caches, language:
        Of a cache-aware encoder.
    """

    frame: int = 0
    done: bool = False
    caches: CacheState | None = None
    language: int | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a window gave.

    Attributes
    ----------
    frames:
        The encoder frames of its chunk, [E, n].
    ahead:
        The encoder frames after them, [E, n], of which the encoder has not heard enough to decode them for good.
    position:
        Where the stream stands now.
    needed:
        The first feature frame that its next window needs.
    heard:
        The number of feature frames up to the end of the window.
    """

    frames: Any
    ahead: Any
    position: Position
    needed: int
    heard: int


class Walk(Protocol):
    """How an encoder goes over live recordings.

    Attributes
    ----------
    width:
        The most feature frames of a window.
    takes_batches:
        Whether several streams may share a call.
    """

    width: int
    takes_batches: bool

    def begin(self, language: str | None) -> Position:
        """The position at the beginning; an `InputError` for a language that the model does not have."""

    def is_due(self, position: Position, heard: int, ended: bool) -> bool:
        """Whether the next window can be encoded, after ``heard`` feature frames."""

    def encode(self, streams: Sequence[tuple[Position, Heard, bool]]) -> list[Encoded]:
        """Encode the next window of each stream, of its position, what was heard, and whether it has ended."""

    def passed(self, position: Position, heard: int, ended: bool) -> Encoded | None:
        """The next window without its frames, if it can be passed over; None if what comes later needs it."""


class CacheAwareWalk:
    """Windows that move on by their new frames; what came before is in the caches."""

    def __init__(self, encoder: CacheAwareEncoder, factor: int):
        self.takes_batches = encoder.takes_batches
        self.width = encoder.caches.window
        self._encoder, self._factor = encoder, factor
        self._overlap, self._shift = encoder.caches.overlap, encoder.caches.shift

    def begin(self, language: str | None) -> Position:
        return Position(caches=self._encoder.begin(), language=self._encoder.language(language))

    def is_due(self, position: Position, heard: int, ended: bool) -> bool:
        start = position.frame * self._factor
        return heard > start if ended else heard >= start + self._shift

    def encode(self, streams: Sequence[tuple[Position, Heard, bool]]) -> list[Encoded]:
        windows, lengths = [], []
        for position, heard, _ in streams:
            start = position.frame * self._factor
            window = heard.window(start - self._overlap, min(start + self._shift, heard.frames))
            lengths.append(window.shape[1])
            windows.append(np.pad(window, ((0, 0), (0, self.width - window.shape[1]))))
        states = [position.caches for position, _, _ in streams if position.caches is not None]
        languages = [position.language for position, _, _ in streams]
        found, states = self._encoder.step(np.stack(windows), np.array(lengths), states, languages)
        encoded = []
        for (position, heard, ended), frames, caches in zip(streams, found, states, strict=True):
            frame = position.frame + self._shift // self._factor
            done = ended and heard.frames <= frame * self._factor
            after = replace(position, frame=frame, done=done, caches=caches)
            stop = min(frame * self._factor, heard.frames)
            encoded.append(Encoded(frames, frames[:, :0], after, max(frame * self._factor - self._overlap, 0), stop))
        return encoded

    def passed(self, position: Position, heard: int, ended: bool) -> Encoded | None:
        return None  # each window is in the caches of the next


class WindowedWalk:
    """Overlapping windows for an encoder of whole recordings, of which only the chunk in the middle is decoded."""

    def __init__(self, encoder: Encoder, windows: Windows, factor: int):
        self.takes_batches = encoder.takes_batches
        self.width = (windows.left + windows.chunk + windows.right) * factor
        self._encoder, self._windows, self._factor = encoder, windows, factor

    def begin(self, language: str | None) -> Position:
        if language is not None:
            raise InputError(f"language={language!r}: the model is not told a language")
        return Position()

    def is_due(self, position: Position, heard: int, ended: bool) -> bool:
        if position.done or not heard:
            return False
        return self._windows.at(position.frame, heard, self._factor, ended) is not None

    def encode(self, streams: Sequence[tuple[Position, Heard, bool]]) -> list[Encoded]:
        plan, parts = [], []
        for position, heard, ended in streams:
            window = self._windows.at(position.frame, heard.frames, self._factor, ended)
            assert window is not None
            plan.append(window)
            parts.append(heard.window(window.start, window.stop))
        lengths = np.array([part.shape[1] for part in parts], np.int64)
        features = np.zeros((len(parts), len(parts[0]), int(lengths.max())), np.float32)
        for row, part in zip(features, parts, strict=True):
            row[:, : part.shape[1]] = part
        encoder_out, counts = self._encoder(features, lengths)
        encoded = []
        for (position, heard, _), window, frames, count in zip(
            streams, plan, self._encoder.utterances(encoder_out), counts.tolist(), strict=True
        ):
            last = count if window.last is None else min(window.last, count)
            frame = position.frame + self._windows.chunk
            after = replace(position, frame=frame, done=window.last is None)
            needed = self._needed(frame)
            encoded.append(
                Encoded(frames[:, window.first : last], frames[:, last:count], after, needed, window.stop)
            )
        return encoded

    def passed(self, position: Position, heard: int, ended: bool) -> Encoded | None:
        window = self._windows.at(position.frame, heard, self._factor, ended)
        if window is None or window.last is None:
            return None
        frame = position.frame + self._windows.chunk
        nothing = np.zeros((1, 0), np.float32)
        return Encoded(nothing, nothing, replace(position, frame=frame), self._needed(frame), window.stop)

    def _needed(self, frame: int) -> int:
        """The first feature frame of the window whose chunk begins with an encoder frame."""
        return (frame - min(frame, self._windows.left)) * self._factor
