"""What all requests of a server share: the model, its engines, and how many requests are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..speech.recognizer import Recognizer
from ..speech.vad import SileroVad
from .engine import Engine
from .live import LiveLane
from .metrics import Metrics
from .record import Log
from .refusals import Refusal, busy, ending, wrong
from .settings import Settings

_LONGEST_RETRY = 60


class Session(Protocol):
    """A live session, as far as the server ends it."""

    def end(self) -> None: ...


class Admission:
    """Counts what is under way, and refuses more than so much.

    Parameters
    ----------
    most:
        So much may be under way.
    what:
        What is counted, for the refusal.
    changed:
        Called with the number whenever it changes.
    """

    def __init__(self, most: int, what: str, changed: Callable[[int], object]):
        self._most, self._what, self._changed = most, what, changed
        self._lock = threading.Lock()
        self.count = 0
        self._each = 0.0  # seconds from one end to the next, while something waits
        self._last_end = 0.0

    def enter(self) -> Callable[[], None]:
        """Count one more. Calling what is returned counts it out again; a second call does nothing.

        Raises
        ------
        Refusal
            If there are too many already.
        """
        with self._lock:
            if self.count >= self._most:
                raise busy(f"{self.count} {self._what} are under way, the most that are taken here", self._retry())
            self.count += 1
            self._changed(self.count)
        inside = [True]

        def leave() -> None:
            with self._lock:
                if inside:
                    inside.clear()
                    now = time.perf_counter()
                    if self.count > 1:
                        self._each += (now - self._last_end - self._each) / 16
                    self._last_end = now
                    self.count -= 1
                    self._changed(self.count)

        return leave

    def _retry(self) -> int:
        """Seconds in which, at the present speed, half of what is under way will be done."""
        return min(max(round(self.count / 2 * self._each), 1), _LONGEST_RETRY)


class ServerState:
    """The state of a server.

    Parameters
    ----------
    names:
        The names under which clients may ask for the model. The first is listed first.
    pause, vad:
        As for `Recognizer.streams`; the VAD skips silence in uploads, too.
    key:
        What clients must know; None: they need none.
    local:
        Whether the server can be reached from this machine alone.
    """

    def __init__(
        self,
        model: Recognizer,
        names: Sequence[str],
        settings: Settings,
        *,
        log: Log,
        pause: float | None = None,
        vad: SileroVad | None = None,
        key: str | None = None,
        local: bool = True,
    ):
        self.model, self.names, self.settings = model, tuple(names), settings
        self.key, self.local, self.log = key, local, log
        self.created = int(time.time())
        self.metrics = Metrics()
        self.engine = Engine(model, settings, self.metrics, vad)
        self.live = LiveLane(model, settings, self.metrics, pause, vad)
        self.requests = Admission(settings.max_requests, "requests", self.metrics.under_way.set)
        self.sessions = Admission(settings.max_sessions, "live sessions", self.metrics.sessions.set)
        self.open_sessions: set[Session] = set()
        self._ending = threading.Event()

    @property
    def ending(self) -> bool:
        """Whether the server takes no more requests."""
        return self._ending.is_set()

    def end(self) -> None:
        """Take no more requests, and let live sessions end with what they have heard. Called in the event loop."""
        self._ending.set()
        for session in list(self.open_sessions):
            session.end()

    def check_open(self) -> None:
        """Raise a `Refusal` if the server ends."""
        if self.ending:
            raise ending()

    def check_model(self, name: str | None) -> str:
        """The model that a client asks for, if there is one of that name."""
        if not name:
            raise wrong("model", "the field 'model' is missing", "missing_required_parameter")
        if name not in self.names:
            known = ", ".join(self.names)
            raise Refusal(404, f"there is no model {name!r} here, but: {known}", code="model_not_found", param="model")
        return name

    def close(self) -> None:
        """End the threads, once what is under way is done."""
        self.engine.close()
        self.live.close()
