"""Ending work that runs in other threads: at its next step, or in the middle of a run of ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Cancelled(BaseException):
    """Nobody waits for this work any longer. No failure: what handles exceptions lets it pass."""


class Cancellation:
    """Tells the threads that work for one call when nobody waits for them any longer.

    Attributes
    ----------
    requested:
        Whether that is so.
    """

    def __init__(self) -> None:
        self.requested = False
        self._runs: set[Any] = set()

    def request(self) -> None:
        """End the work, from any thread."""
        self.requested = True
        for options in list(self._runs):
            options.terminate = True

    @contextmanager
    def governing(self) -> Iterator[None]:
        """The work of this thread ends with a `Cancelled` once that is requested."""
        _this_thread.cancellation = self
        try:
            yield
        finally:
            _this_thread.cancellation = None


_this_thread = threading.local()


def checkpoint() -> None:
    """Raise a `Cancelled` if nobody waits for the work of this thread. Long work calls it between its steps."""
    cancellation = getattr(_this_thread, "cancellation", None)
    if cancellation is not None and cancellation.requested:
        raise Cancelled


@contextmanager
def interruptible(options: Any) -> Iterator[Any]:
    """ONNX Runtime's ``RunOptions`` for a run that ends as soon as nobody waits for it."""
    cancellation = getattr(_this_thread, "cancellation", None)
    if cancellation is None:
        yield options
        return
    cancellation._runs.add(options)
    try:
        checkpoint()  # after the options are known: a request comes before this line, or finds them
        yield options
    except Exception:
        checkpoint()  # then it failed because it was ended
        raise
    finally:
        cancellation._runs.discard(options)
