"""From the probability of speech in each window to segments of speech.

The rules are Silero's (`get_speech_timestamps`), for probabilities that come one by one. A segment is given as soon as
nothing that may still come can change it, so a stream gets the segments of the whole recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW = 512
"""Samples of a window, 32 ms."""
_SHORTEST_PAUSE = 0.098
"""Seconds of a pause at which a segment that is too long may be divided; Silero's `min_silence_at_max_speech`."""


@dataclass(frozen=True)
class Rules:
    """When speech begins and ends; thresholds are probabilities, the rest are samples."""

    threshold: float
    neg_threshold: float
    min_speech: float
    min_silence: float
    speech_pad: float
    max_speech: float


@dataclass(frozen=True)
class Found:
    """A segment of speech, in samples."""

    start: int
    end: int


class Segmenter:
    """Finds the segments of one recording.

    Parameters
    ----------
    rules:
        When speech begins and ends.
    rate:
        Samples in a second.
    """

    def __init__(self, rules: Rules, rate: int):
        self._rules = rules
        self._shortest_pause = _SHORTEST_PAUSE * rate
        self._longest = rules.max_speech - WINDOW - 2 * rules.speech_pad
        self._begin = 0  # of the next window
        self._heard = 0
        self._start: int | None = None  # of the speech that goes on
        self._quiet: int | None = None  # where it fell silent, if it did
        self._pauses: list[tuple[int, int]] = []  # begin and length of its pauses
        self._lead: float = rules.speech_pad  # how much comes before it
        self._last: tuple[int, int] | None = None  # the last segment, whose end may still move

    @property
    def speaking(self) -> bool:
        """Whether someone speaks."""
        return self._start is not None

    @property
    def begun(self) -> int | None:
        """Where the segment begins that is not given yet, once it is certain to be one; None if there is none."""
        if self._last is not None:
            return self._last[0]
        return self._first(self._start) if self._start is not None and self._lasts else None

    @property
    def spoken(self) -> int:
        """That segment lasts until this sample, at least."""
        if self._last is not None:
            return self._last[1]
        return self._heard if self._quiet is None else self._quiet

    @property
    def earliest(self) -> int:
        """The first sample that may be in a segment that is not given yet."""
        if self._last is not None:
            return self._last[0]
        return self._first(self._heard if self._start is None else self._start)

    def add(self, probability: float, length: float = math.inf) -> list[Found]:
        """Hear a window. Returns the segments that are certain now. ``length`` is the recording's, if it is known."""
        begin, found = self._begin, []
        self._begin += WINDOW
        self._heard = int(min(self._begin, length))
        if probability >= self._rules.threshold:
            if self._quiet is not None:
                if begin - self._quiet > self._shortest_pause:
                    self._pauses.append((self._quiet, begin - self._quiet))
                self._quiet = None
            if self._start is None:
                self._start = begin
                return self._certain()
        if self._start is not None and begin - self._start > self._longest:
            found += self._divide(self._start, begin)
        if self._start is not None and probability < self._rules.neg_threshold:
            if self._quiet is None:
                self._quiet = begin
            if begin - self._quiet >= self._rules.min_silence:
                if self._quiet - self._start > self._rules.min_speech:
                    found += self._end(self._start, self._quiet)
                self._begin_again(None)
        return found + self._certain()

    def finish(self, length: int) -> list[Found]:
        """End the recording of ``length`` samples. Returns the segments that were not certain before."""
        found = []
        self._heard = length
        if self._start is not None and length - self._start > self._rules.min_speech:
            found += self._end(self._start, length)
        self._start = None
        return found + self._tell(self._rules.speech_pad)

    def _begin_again(self, start: int | None) -> None:
        self._start, self._quiet, self._pauses = start, None, []

    def _divide(self, start: int, here: int) -> list[Found]:
        """Divide speech that is too long: in its longest pause, or here, if it has none."""
        if self._pauses:
            quiet, pause = max(self._pauses, key=lambda one: one[1])
            found = self._end(start, quiet)
            self._begin_again(quiet + pause)
        else:
            found = self._end(start, here)
            self._begin_again(None)
        return found

    def _end(self, start: int, end: int) -> list[Found]:
        """A segment from ``start`` to ``end``, before the pads. The one before it is certain now."""
        found = [] if self._last is None else self._tell_before(start)
        self._last = self._first(start), end
        self._lead = self._rules.speech_pad
        return found

    def _tell_before(self, start: int) -> list[Found]:
        """The last segment, which ends where the one that begins at ``start`` lets it."""
        assert self._last is not None
        gap = start - self._last[1]
        if gap >= 2 * self._rules.speech_pad:
            return self._tell(self._rules.speech_pad)
        self._lead = gap // 2
        return self._tell(gap // 2)

    def _tell(self, pad: float) -> list[Found]:
        """The last segment, with so much after it."""
        if self._last is None:
            return []
        (start, end), self._last = self._last, None
        return [Found(start, int(min(self._heard, end + pad)))]

    def _certain(self) -> list[Found]:
        """The last segment, if neither the speech that goes on nor what follows can move its end."""
        if self._last is None:
            return []
        if self._start is None:
            return self._tell(self._rules.speech_pad) if self._room(self._heard) else []
        return self._tell_before(self._start) if self._lasts or self._room(self._start) else []

    @property
    def _lasts(self) -> bool:
        """Whether the speech that goes on is long enough to be a segment, whatever follows."""
        end = self._begin - WINDOW if self._quiet is None else self._quiet
        return self._start is not None and end - self._start > self._rules.min_speech

    def _first(self, start: int) -> int:
        """Where a segment begins, of speech that begins at ``start``."""
        return int(max(0, start - self._lead))

    def _room(self, start: int) -> bool:
        """Whether there is room for both pads before speech that begins at ``start``."""
        assert self._last is not None
        return start - self._last[1] >= 2 * self._rules.speech_pad
