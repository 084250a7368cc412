"""A recording that is to be transcribed for a client."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from ..cancellation import Cancellation
from ..hypothesis import Hypothesis, Transcript
from ..speech.audio.sources import Source
from ..speech.pipeline import Heard
from ..speech.stages import ModelStages


@dataclass(frozen=True)
class Wish:
    """How a client wants recordings to be transcribed.

    Attributes
    ----------
    language:
        For models that are told one; None: the model's default.
    phrases:
        Phrases to expect.
    """

    language: str | None = None
    phrases: tuple[str, ...] = ()


@dataclass(eq=False)
class Job:
    """A recording and what comes of it. Threads hand it on, and one at a time works on it.

    Attributes
    ----------
    recording:
        What `as_samples` reads: the uploaded bytes, or (samples, rate). Who works on the job last closes it.
    size:
        Bytes of the upload.
    wish:
        The client's.
    stages:
        What the model does with this recording alone.
    told:
        Called with the text so far, in the thread that decodes. None: nobody wants to know before the end.
    future:
        The transcript. Cancelling it ends the work.
    arrived, began:
        When the job came, and when the model began with it, by `time.perf_counter`.
    """

    recording: Any
    size: int
    wish: Wish
    stages: ModelStages
    told: Callable[[str], object] | None = None
    future: Future[Transcript] = field(default_factory=Future)
    cancellation: Cancellation = field(default_factory=Cancellation)
    arrived: float = field(default_factory=time.perf_counter)
    began: float | None = None
    heard: Heard | None = None
    found: list[Hypothesis | None] = field(default_factory=list)

    def cancel(self) -> None:
        """Nobody waits for it any longer. From any thread."""
        self.future.cancel()
        self.cancellation.request()

    @property
    def cancelled(self) -> bool:
        return self.future.cancelled()

    def close(self) -> None:
        """The recording is not needed any longer: an upload's memory, or its temporary file, is given back."""
        if isinstance(self.recording, Source):
            self.recording.stream.close()
        self.recording = None

    def take(self, heard: Heard) -> None:
        """Note what was read."""
        self.heard = heard
        self.found = [None] * len(heard.pieces)
        if not heard.pieces:
            self.finish()

    def add(self, index: int, hypothesis: Hypothesis) -> None:
        """Note what was decoded of a piece; the transcript is made with the last one."""
        self.found[index] = hypothesis
        if all(one is not None for one in self.found):
            self.finish()

    def finish(self) -> None:
        assert self.heard is not None
        try:
            deliver(self.future, self.heard.transcript([one for one in self.found if one is not None]))
        except Exception as error:
            fail(self.future, error)

    def fail(self, error: BaseException) -> None:
        fail(self.future, error)


def deliver(future: Future[Any], result: Any) -> None:
    """Set a result, unless nobody waits for it any longer."""
    try:
        future.set_result(result)
    except InvalidStateError:
        pass


def fail(future: Future[Any], error: BaseException) -> None:
    """Set an error, unless nobody waits for it any longer."""
    try:
        future.set_exception(error)
    except InvalidStateError:
        pass
