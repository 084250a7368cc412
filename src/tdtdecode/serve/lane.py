"""What the lanes share: a thread that does what comes, one piece of work after the other, until it is closed."""

from __future__ import annotations

import logging
import threading
import time
from typing import Generic, TypeVar

from .metrics import Metrics

_log = logging.getLogger(__name__)

_Work = TypeVar("_Work")


class Lane(Generic[_Work]):
    """A thread of its own for one kind of work. Subclasses say what comes next, and how it is done.

    Parameters
    ----------
    name:
        Names the thread, and the lane in the metrics.
    """

    def __init__(self, name: str, metrics: Metrics):
        self._metrics = metrics
        self._changed = threading.Condition()  # notified when something is put in, and at the end
        self._ended = False
        self._computed = metrics.computed.labels(name)
        self._thread = threading.Thread(target=self._run, name=f"tdtdecode-{name}", daemon=True)

    def close(self) -> None:
        """Finish what there is, and end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _next(self) -> _Work | None:
        """Wait for work. None: the lane was closed, and nothing is left to do."""
        raise NotImplementedError

    def _do(self, work: _Work) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while (work := self._next()) is not None:
            begin = time.perf_counter()
            try:
                self._do(work)
            except Exception:  # a mistake of ours: it must not end the lane
                _log.exception("%s failed", self._thread.name)
            self._computed.inc(time.perf_counter() - begin)
