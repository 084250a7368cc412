"""Recordings without their silence: only where someone speaks is encoded and decoded.

Each segment of speech is an utterance of its own. Its samples begin at an encoder frame of the recording, so its frames
and words keep their places in the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...bundle import Bundle
from ...confidence import Confidence
from ...hypothesis import Hypothesis, SpeechSegment, Transcript, Word, joined
from ...search import Beam, Greedy
from ..transcripts import nothing, transcript
from .silero import SAMPLE_RATE, SileroVad, as_segment


class SpeechPieces:
    """The pieces of a batch of recordings in which someone speaks.

    Parameters
    ----------
    recordings:
        float32 [n] each, at 16 kHz.
    frame_samples:
        Samples of an encoder frame.
    reached:
        Told for each recording how many of its seconds are done.

    Attributes
    ----------
    samples:
        float32 [n], of each piece.
    owners:
        The recording that each piece is from: its place in the batch.
    seconds:
        The length of each piece.
    """

    def __init__(
        self,
        vad: SileroVad,
        recordings: Sequence[np.ndarray],
        frame_samples: int,
        reached: Sequence[Callable[[float], None]],
    ):
        self._recordings, self._reached = recordings, reached
        self._segments: list[list[SpeechSegment]] = []
        self.samples: list[np.ndarray] = []
        self.owners: list[int] = []
        self._frames: list[int] = []  # the encoder frame of the recording that each piece begins with
        for place, (whole, segments) in enumerate(zip(recordings, vad.heard(recordings), strict=True)):
            self._segments.append([as_segment(segment) for segment in segments])
            begins = [segment.start // frame_samples for segment in segments]
            for i, (begin, segment) in enumerate(zip(begins, segments, strict=True)):
                # A segment that begins within a frame begins with the frame, and the one before it ends there.
                last = i + 1 == len(begins)
                stop = segment.end if last else min(segment.end, begins[i + 1] * frame_samples)
                if begin * frame_samples < stop:
                    self.samples.append(whole[begin * frame_samples : stop])
                    self.owners.append(place)
                    self._frames.append(begin)
        self.seconds = [len(piece) / SAMPLE_RATE for piece in self.samples]
        self._done = [0.0] * len(self.seconds)
        self._spoken = [0.0] * len(recordings)
        for owner, seconds in zip(self.owners, self.seconds, strict=True):
            self._spoken[owner] += seconds
        self._heard = [0.0] * len(recordings)

    def reach(self, piece: int, seconds: float) -> None:
        """The first seconds of a piece are decoded: the same share of its recording is done as of its speech."""
        owner = self.owners[piece]
        self._heard[owner] += seconds - self._done[piece]
        self._done[piece] = seconds
        whole = len(self._recordings[owner]) / SAMPLE_RATE
        self._reached[owner](min(self._heard[owner] / self._spoken[owner], 1) * whole)

    def transcripts(
        self, hypotheses: Sequence[Hypothesis], bundle: Bundle, search: Greedy | Beam
    ) -> list[Transcript]:
        """The transcript of each recording, of the hypotheses of the pieces that the search found."""
        parts: list[list[Hypothesis]] = [[] for _ in self._recordings]
        for owner, frame, hypothesis in zip(self.owners, self._frames, hypotheses, strict=True):
            parts[owner].append(later(hypothesis, frame))
        return [
            replace(of_utterances(found, bundle, len(samples) / SAMPLE_RATE, search), segments=segments)
            for samples, segments, found in zip(self._recordings, self._segments, parts, strict=True)
        ]


def of_utterances(
    parts: list[Hypothesis], bundle: Bundle, seconds: float, search: Greedy | Beam
) -> Transcript:
    """The transcript of a recording of so many seconds, of the hypotheses of its utterances that the search found."""
    nbest = (search.nbest or 1) if isinstance(search, Beam) else 1
    confidence = search.confidence or Confidence()
    best, *others = [_of_row(row, bundle, seconds, confidence) for row in _best_rows(parts, nbest)]
    return replace(best, alternatives=others)


def later(hypothesis: Hypothesis, frames: int) -> Hypothesis:
    """The same, so many frames later."""
    if not frames:
        return hypothesis
    alternatives = tuple(later(one, frames) for one in hypothesis.alternatives)
    return replace(hypothesis, frames=hypothesis.frames + np.int32(frames), alternatives=alternatives)


def _best_rows(parts: list[Hypothesis], nbest: int) -> list[list[Hypothesis]]:
    """For each piece one of its hypotheses, best first: those that lose least of the pieces' best scores.

    A strategy may rank hypotheses by other numbers than their scores. A later one never loses less than one before it.
    """
    rows: list[tuple[float, list[Hypothesis]]] = [(0.0, [])]
    for part in parts:
        losses = np.maximum.accumulate([part.score - one.score for one in part.nbest]).tolist()
        choices = list(zip(losses, part.nbest, strict=True))
        longer = [(lost + loss, [*row, one]) for lost, row in rows for loss, one in choices]
        rows = sorted(longer, key=lambda row: row[0])[:nbest]
    return [row for _, row in rows]


def _of_row(parts: list[Hypothesis], bundle: Bundle, seconds: float, confidence: Confidence) -> Transcript:
    """The transcript of utterances one after the other. No word goes on from one to the next."""
    if not parts:
        return transcript(bundle, nothing(), seconds, confidence)
    whole = replace(joined([replace(part, alternatives=()) for part in parts]), score=sum(one.score for one in parts))
    words: list[Word] = []
    for part in parts:
        end = words[-1].end if words else None
        words += [word for word, _ in bundle.vocabulary.words_and_tokens(part, bundle.frame_seconds, confidence, end)]
    words = [replace(word, end=max(word.start, min(word.end, seconds))) for word in words]
    return Transcript(bundle.vocabulary.detokenize(whole.tokens), words, seconds, whole)
