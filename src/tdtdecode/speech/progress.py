"""How far a transcription has come, in seconds of audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far `Recognizer.recognize` or `Recognizer.recognize_each` has come with its recordings.

    Attributes
    ----------
    seconds_done:
        Seconds of audio that are decoded. They grow within a long recording too, window by window.
    seconds_total:
        Seconds of audio of the recordings whose lengths are known. Lengths are known once recordings are read, which
        happens ahead of decoding.
    recordings_done:
        Recordings that are finished; those that failed count.
    recordings_known:
        Recordings whose lengths are known.
    recordings_total:
        All recordings; of an iterable without a length those that it has given so far.
    """

    seconds_done: float
    seconds_total: float
    recordings_done: int
    recordings_known: int
    recordings_total: int


class Meter:
    """Counts what is done, and reports it. What it holds does not grow with the number of recordings.

    Parameters
    ----------
    recordings:
        Their number; None while it is not known.
    report:
        Called with each news; None: nobody wants to know.
    """

    def __init__(self, recordings: int | None, report: Callable[[Progress], object] | None):
        self._recordings = recordings
        self._report = report
        self._given = self._known = self._done = 0
        self._seconds_known = self._seconds_done = 0.0
        self._lengths: dict[int, float] = {}  # of what is under way
        self._reached: dict[int, float] = {}

    def give(self) -> None:
        """There is one more recording."""
        self._given += 1

    def expect(self, recording: int, seconds: float) -> None:
        """A recording has that many seconds."""
        self._known += 1
        self._seconds_known += seconds
        self._lengths[recording] = seconds

    def reach(self, recording: int, seconds: float) -> None:
        """The first seconds of a recording are decoded."""
        before = self._reached.get(recording, 0.0)
        self._reached[recording] = min(max(seconds, before), self._lengths.get(recording, 0.0))
        self._tell()

    def finish(self, recording: int) -> None:
        """A recording is done, or has failed."""
        if recording not in self._lengths:
            self._known += 1
        self._seconds_done += self._lengths.pop(recording, 0.0)
        self._reached.pop(recording, None)
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._report is None:
            return
        # No rounding must leave the last report short of its end.
        seconds = self._seconds_done + sum(self._reached.values()) if self._lengths else self._seconds_known
        self._report(
            Progress(
                seconds_done=min(seconds, self._seconds_known), seconds_total=self._seconds_known,
                recordings_done=self._done, recordings_known=self._known,
                recordings_total=self._given if self._recordings is None else self._recordings,
            )
        )  # fmt: skip
