"""How far long work has come, on standard error."""

from __future__ import annotations

import shutil
import sys
import time

from ..speech.progress import Progress


class Display:
    """Shows how far the work has come: on a terminal in one line that is updated, else in a new line every 10 s."""

    _SECONDS_BETWEEN_LINES = 10.0
    _SECONDS_BETWEEN_UPDATES = 0.1

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._begin = self._shown = time.monotonic()
        self._visible = False

    def show(self, progress: Progress) -> None:
        """Show it, unless something was shown just now."""
        now = time.monotonic()
        if now - self._shown < (self._SECONDS_BETWEEN_UPDATES if self._terminal else self._SECONDS_BETWEEN_LINES):
            return
        self._shown = now
        line = progress_line(
            progress.seconds_done, progress.seconds_total, progress.recordings_done, progress.recordings_known,
            progress.recordings_total, now - self._begin,
        )  # fmt: skip
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)
            self._visible = True
        else:
            print(f"tdtdecode: {line}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal, before other lines are printed."""
        if self._visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._visible = False


def progress_line(
    done: float, known: float, recordings_done: int, recordings_known: int, recordings: int, elapsed: float
) -> str:
    """How far the work has come, how fast it is, and how long it will take, in one line.

    Parameters
    ----------
    done, known:
        Seconds of audio that are done, and that all recordings have whose lengths are known.
    recordings_done, recordings_known, recordings:
        The number of recordings that are done, of those whose lengths are known, and of all.
    elapsed:
        Seconds since the begin.
    """
    parts = [f"{recordings_done} of {recordings} recordings"]
    total = known * recordings / recordings_known if recordings_known else 0.0
    if total:
        about = "" if recordings == recordings_known else "about "
        parts.append(f"{clock(done)} of {about}{clock(total)} of audio")
    if done and elapsed > 0:
        parts.append(f"{done / elapsed:.3g} times real time")
        parts.append(f"{clock((total - done) * elapsed / done)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
