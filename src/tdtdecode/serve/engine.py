"""From uploads to transcripts: who reads, who encodes and decodes, and in which order.

    uploads ─ readers (two threads) ─ short lane (thread): batches
                     └ long ones ──── long lane (thread): window by window

An upload of many bytes is read by the long lane itself, for even reading it takes long. So neither reading nor encoding
a long recording keeps short ones waiting; they share the processor with it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..cancellation import Cancellation, Cancelled
from ..hypothesis import Transcript
from ..speech.audio import as_samples
from ..speech.audio.features import SAMPLE_RATE
from ..speech.recognizer import Recognizer
from ..speech.vad import SileroVad
from .job import Job, Wish, deliver
from .long_lane import LongLane, Task
from .metrics import Metrics
from .settings import Settings
from .short_lane import ShortLane, with_phrases

_READERS = 2
_SHORT_SECONDS = 30.0
"""Longer recordings go to the long lane. Dictation, voice commands and turns of a conversation are shorter."""
_SHORT_BYTES = 8 << 20
"""Larger uploads are read in the long lane: so many bytes are 4 minutes of WAV, or 8 of MP3."""


class Engine:
    """Transcribes what clients upload.

    Parameters
    ----------
    vad:
        Skips silence; None: all is recognised.
    """

    def __init__(self, model: Recognizer, settings: Settings, metrics: Metrics, vad: SileroVad | None = None):
        self.model = model
        self._settings, self._metrics, self._vad = settings, metrics, vad
        self._short = ShortLane(model, settings, metrics)
        self._long = LongLane(partial(model.stages().thread, "encode"), metrics)
        self._to_read: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_all, name=f"tdtdecode-reader-{i}", daemon=True) for i in range(_READERS)
        ]
        for reader in self._readers:
            reader.start()

    def job(self, recording: Any, size: int, wish: Wish, told: Callable[[str], object] | None = None) -> Job:
        """A job that has not begun. `begin` begins it.

        Raises
        ------
        InputError
            If the model does not have the language.
        """
        search = self.model.decoder.search
        if wish.phrases:
            search = with_phrases(search, [wish.phrases])
        stages = self.model.stages(
            search, batch_size=self._settings.batch_size, language=wish.language, vad=self._vad
        )  # fmt: skip
        return Job(recording, size, wish, stages, told)

    def begin(self, job: Job) -> Future[Transcript]:
        """Transcribe a recording. Cancelling the job ends the work."""
        if job.size > _SHORT_BYTES:
            self._long.add(Task(self._steps(job, None), job.future, job.cancellation, job.close))
        else:
            self._short.expect()
            self._to_read.put(job)
        return job.future

    def run(self, steps: Callable[[], Generator[None, None, Any]]) -> Future[Any]:
        """Do other work with the model, step by step, beside long recordings. What the generator returns is the
        result."""
        future: Future[Any] = Future()

        def all_steps() -> Generator[None]:
            deliver(future, (yield from steps()))

        self._long.add(Task(all_steps(), future, Cancellation()))
        return future

    def close(self) -> None:
        """Finish what is under way, and end the threads."""
        for _ in self._readers:
            self._to_read.put(None)
        for reader in self._readers:
            reader.join()
        self._long.close()  # which may still hand recordings to the short lane
        self._short.close()

    def _read_all(self) -> None:
        while (job := self._to_read.get()) is not None:
            pieces = []
            try:
                if not job.cancelled:
                    with job.cancellation.governing(), job.stages.thread("read"):
                        pieces = self._read(job)
            except Cancelled:
                job.future.cancel()
            except Exception as error:
                job.fail(error)
            finally:
                job.close()
            self._short.arrive(job, pieces)

    def _read(self, job: Job) -> list[Any]:
        """The pieces of a short recording; a long one is handed to the long lane."""
        samples = self._samples(job)
        if len(samples) > _SHORT_SECONDS * SAMPLE_RATE:
            self._long.add(Task(self._steps(job, samples), job.future, job.cancellation))
            return []
        heard = job.stages.read(0, (samples, SAMPLE_RATE))
        job.take(heard)
        return heard.pieces

    def _samples(self, job: Job) -> Any:
        """The samples of a recording, whose upload is not needed any longer."""
        samples = as_samples(job.recording, SAMPLE_RATE, self._settings.max_seconds)
        job.close()
        return samples

    def _steps(self, job: Job, samples: Any) -> Generator[None]:
        """Transcribe a long recording, step by step."""
        job.began = time.perf_counter()
        self._metrics.waited.observe(job.began - job.arrived)
        if samples is None:
            samples = self._samples(job)
            yield
        heard = job.stages.read(0, (samples, SAMPLE_RATE))
        short = len(samples) <= _SHORT_SECONDS * SAMPLE_RATE
        del samples
        job.take(heard)
        if short:
            self._short.arrive(job, heard.pieces, expected=False)
            return
        yield
        for batch in job.stages.batches(heard.pieces):
            for encoded in job.stages.encode(batch):
                hypotheses = job.stages.decode(encoded, lambda place, seconds: None)
                if hypotheses is not None:
                    for piece, hypothesis in zip(batch, hypotheses, strict=True):
                        job.add(piece.index, hypothesis)
                elif job.told is not None and len(heard.pieces) == 1:
                    tokens = batch[0].state.so_far().tokens
                    job.told(self.model.bundle.vocabulary.detokenize(tokens))
                yield
