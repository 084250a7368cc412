"""Long work, in steps: long recordings go through the encoder window by window."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..cancellation import Cancellation, Cancelled
from ..errors import TdtDecodeError
from .job import fail
from .lane import Lane
from .metrics import Metrics

_OPEN = 2
"""So much work is under way at a time, in turns. It is held in memory: 51 KB for a second of audio."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """Work in steps, which sets the future itself. Cancelling the future ends the work.

    Attributes
    ----------
    ended:
        Called at the end, also if it ends before its first step.
    """

    steps: Generator[None]
    future: Future[Any]
    cancellation: Cancellation
    ended: Callable[[], object] = lambda: None


class LongLane(Lane[Task]):
    """A thread that does a step of each of a few tasks in turn. Short recordings have a thread of their own.

    Parameters
    ----------
    within:
        What the thread works within: on a GPU, the model's card.
    """

    def __init__(self, within: Callable[[], AbstractContextManager[object]], metrics: Metrics):
        super().__init__("long", metrics)
        self._within = within
        self._waiting: deque[Task] = deque()
        self._open: deque[Task] = deque()
        self._thread.start()

    def add(self, task: Task) -> None:
        """Do a task when its turn comes."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()

    def _next(self) -> Task | None:
        with self._changed:
            while not (self._open or self._waiting):
                if self._ended:
                    return None
                self._changed.wait()
            while self._waiting and len(self._open) < _OPEN:
                self._open.append(self._waiting.popleft())
            return self._open.popleft()

    def _do(self, task: Task) -> None:
        with self._within():
            if self._step(task):
                self._open.append(task)
            else:
                task.ended()

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
