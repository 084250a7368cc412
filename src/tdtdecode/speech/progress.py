"""How far a transcription has come, in seconds of audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far `Recognizer.recognize` has come with its recordings.

    Attributes
    ----------
    seconds_done:
        Seconds of audio that are decoded. They grow within a long recording too, window by window.
    seconds_total:
        Seconds of audio of all recordings, as far as known: headers may state wrong lengths, which are corrected once
        the recording is read.
    recordings_done:
        Recordings that are finished; those that failed count.
    recordings_total:
        All recordings.
    """

    seconds_done: float
    seconds_total: float
    recordings_done: int
    recordings_total: int


class Meter:
    """Counts what is done, and reports it.

    Parameters
    ----------
    recordings:
        Their number.
    report:
        Called with each news; None: nobody wants to know.

    Attributes
    ----------
    failure:
        What `report` raised. It ends the work, and is no failure of a recording.
    """

    def __init__(self, recordings: int, report: Callable[[Progress], object] | None):
        self._total = [0.0] * recordings
        self._done = [0.0] * recordings
        self._finished = [False] * recordings
        self._report = report
        self.failure: Exception | None = None

    def expect(self, recording: int, seconds: float) -> None:
        """A recording has that many seconds."""
        self._total[recording] = seconds

    def reach(self, recording: int, seconds: float) -> None:
        """The first seconds of a recording are decoded."""
        self._done[recording] = min(max(seconds, self._done[recording]), self._total[recording])
        self._tell()

    def finish(self, recordings: list[int], tell: bool = True) -> None:
        """Recordings are done, or have failed."""
        for recording in recordings:
            self._done[recording] = self._total[recording]
            self._finished[recording] = True
        if tell and recordings:
            self._tell()

    def _tell(self) -> None:
        if self._report is None:
            return
        done = sum(self._finished)
        # The same sum where all is done: no rounding must leave the last report short of its end.
        seconds = sum(self._total) if done == len(self._total) else sum(self._done)
        try:
            self._report(
                Progress(
                    seconds_done=seconds, seconds_total=sum(self._total), recordings_done=done,
                    recordings_total=len(self._total),
                )  # fmt: skip
            )
        except Exception as error:
            self.failure = error
            raise
