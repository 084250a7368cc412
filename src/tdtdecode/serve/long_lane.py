"""Long work, in steps: long recordings go through the encoder window by window."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..cancellation import Cancellation, Cancelled
from ..errors import TdtDecodeError
from .job import fail
from .metrics import Metrics

_OPEN = 2
"""So much work is under way at a time, in turns. It is held in memory: 51 KB for a second of audio."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """Work in steps, which sets the future itself. Cancelling the future ends the work."""

    steps: Generator[None]
    future: Future[Any]
    cancellation: Cancellation


class LongLane:
    """A thread that does a step of each of a few tasks in turn. Short recordings have a thread of their own.

    Parameters
    ----------
    within:
        What the thread works within: on a GPU, the model's card.
    """

    def __init__(self, within: Callable[[], AbstractContextManager[object]], metrics: Metrics):
        self._within, self._metrics = within, metrics
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._open: deque[Task] = deque()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="tdtdecode-long", daemon=True)
        self._thread.start()

    def add(self, task: Task) -> None:
        """Do a task when its turn comes."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()

    def close(self) -> None:
        """Finish what there is, and end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            begin = time.perf_counter()
            with self._within():
                if self._step(task):
                    self._open.append(task)
            self._metrics.computed.labels("long").inc(time.perf_counter() - begin)

    def _next(self) -> Task | None:
        with self._changed:
            while not (self._open or self._waiting):
                if self._ended:
                    return None
                self._changed.wait()
            while self._waiting and len(self._open) < _OPEN:
                self._open.append(self._waiting.popleft())
            return self._open.popleft()

    def _step(self, task: Task) -> bool:
        """Do a step. Returns whether there are more."""
        try:
            if not task.future.cancelled():
                with task.cancellation.governing():
                    next(task.steps)
                return True
            task.steps.close()
        except StopIteration:
            pass
        except Cancelled:
            task.future.cancel()
        except Exception as error:
            if not isinstance(error, TdtDecodeError):
                _log.exception("a recording failed")
            fail(task.future, error)
        return False
