"""Short recordings: those that wait are gathered into batches, by length and by how long they have waited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..fusion import PhraseBoost
from ..hypothesis import Hypothesis
from ..search import Beam, Greedy
from ..speech.batching import encoder_cost
from ..speech.pipeline import Encoded, Piece
from ..speech.recognizer import Recognizer
from ..speech.stages import BATCH_SIZES
from .job import Job
from .lane import Lane
from .metrics import Metrics
from .settings import Settings

_CONSIDERED = 64
"""So many of the recordings that have waited longest are looked at for a batch: the work grows with their number."""


def with_phrases(search: Greedy | Beam, lists: Sequence[tuple[str, ...]]) -> Greedy | Beam:
    """The search that also expects phrases, a list for each recording of a batch, in any case."""
    return replace(search, fusion=(*search.fusion, PhraseBoost.per_row(lists, ignore_case=True)))


@dataclass(eq=False)
class _Waiting:
    """A piece of a recording that waits for a batch, since that moment."""

    job: Job
    piece: Piece
    since: float


class ShortLane(Lane[list[_Waiting]]):
    """A thread that encodes and decodes short recordings in batches.

    The batch of the recording that has waited longest comes first. It holds those others with which it takes the least
    time (`tdtdecode.speech.batching`). While a batch is computed, the next ones gather, so batches grow with the load.
    An idle lane begins at once, unless other recordings are just being read: for those it waits a moment.
    """

    def __init__(self, model: Recognizer, settings: Settings, metrics: Metrics):
        super().__init__("short", metrics)
        self._model, self._settings = model, settings
        card = model.decoder.network.card if model.device == "cuda" else None
        self._enough = encoder_cost(model.device, None if card is None else card.memory).most_seconds
        self._most = settings.batch_size or BATCH_SIZES[model.device]
        self._waiting: list[_Waiting] = []
        self._coming = 0
        self._thread.start()

    def expect(self) -> None:
        """A recording is about to be read."""
        with self._changed:
            self._coming += 1

    def arrive(self, job: Job, pieces: Sequence[Piece], expected: bool = True) -> None:
        """A recording has been read: its pieces. None, if it failed or belongs into another lane."""
        now = time.perf_counter()
        with self._changed:
            self._coming -= expected
            self._waiting += [_Waiting(job, piece, now) for piece in pieces]
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()

    def _next(self) -> list[_Waiting] | None:
        with self._changed:
            while True:
                self._waiting = [one for one in self._waiting if not one.job.cancelled]
                self._metrics.waiting.set(len(self._waiting))
                patience = None
                if self._waiting:
                    patience = self._patience()
                    if patience <= 0:
                        return self._chosen()
                elif self._ended:
                    return None
                self._changed.wait(patience)

    def _patience(self) -> float:
        """How many seconds to wait for company yet."""
        seconds = sum(one.piece.seconds for one in self._waiting)
        full = len(self._waiting) >= self._most or seconds >= self._enough
        if full or self._ended or self._coming <= 0:
            return 0.0
        return self._waiting[0].since + self._settings.batch_wait - time.perf_counter()

    def _chosen(self) -> list[_Waiting]:
        """Take the batch with the piece that has waited longest."""
        first = self._waiting[0].job
        together = [one for one in self._waiting if one.job.wish.language == first.wish.language][:_CONSIDERED]
        of = {one.piece: one for one in together}
        batch = [of[piece] for piece in first.stages.batches([one.piece for one in together])[0]]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _do(self, batch: list[_Waiting]) -> None:
        begin = time.perf_counter()
        for one in batch:
            if one.job.began is None:
                one.job.began = begin
                self._metrics.waited.observe(begin - one.job.arrived)
        try:
            with batch[0].job.stages.thread("encode"):
                self._compute(batch)
        except Exception as error:
            for one in batch:
                one.job.fail(error)
            raise

    def _compute(self, batch: list[_Waiting]) -> None:
        """Encode and decode a batch. If that fails, one by one, as most likely one of them was the cause."""
        frames = [one.piece.frames for one in batch]
        self._metrics.rows.observe(len(batch))
        self._metrics.fill.observe(sum(frames) / (len(frames) * max(frames)))
        try:
            hypotheses = None
            for encoded in batch[0].job.stages.encode([one.piece for one in batch]):
                hypotheses = self._decoded(encoded, batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].job.fail(error)
            else:
                for one in batch:
                    self._compute([one])
            return
        for one, hypothesis in zip(batch, hypotheses or (), strict=True):
            one.job.add(one.piece.index, hypothesis)

    def _decoded(self, encoded: Encoded, batch: list[_Waiting]) -> list[Hypothesis] | None:
        """What was decoded of each piece; None within a recording that goes through windows."""
        if not callable(encoded.content):
            return batch[0].job.stages.decode(encoded, lambda place, seconds: None)
        encoder_out, counts = encoded.content()
        decoder, search = self._model.decoder, self._model.decoder.search
        lists = [one.job.wish.phrases for one in batch]
        if not any(lists):
            return decoder.decode(encoder_out, counts, search)
        rows = [row[:, :count] for row, count in zip(self._model.encoder.utterances(encoder_out), counts.tolist())]
        found: list[Any] = [None] * len(batch)
        # Phrases make a search slower, so those who expect none are decoded without.
        for expecting in (False, True):
            places = [i for i, phrases in enumerate(lists) if bool(phrases) == expecting]
            if places:
                chosen = with_phrases(search, [lists[i] for i in places]) if expecting else search
                for i, hypothesis in zip(places, decoder.decode([rows[i] for i in places], None, chosen), strict=True):
                    found[i] = hypothesis
        return found
