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
from ...hypothesis import Hypothesis, Transcript, Word, joined
from ...search import Beam, Greedy
from ..transcripts import nothing, transcript
from .silero import SAMPLE_RATE, SileroVad, as_segment


class SpeechPieces:
    """The pieces of a recording in which someone speaks.

    Parameters
    ----------
    recording:
        float32 [n], at 16 kHz.
    frame_samples:
        Samples of an encoder frame.
    frames:
        The number of feature frames of so many samples. A piece without any is left out.

    Attributes
    ----------
    parts:
        Where each piece begins, in seconds, and its samples, float32 [n].
    """

    def __init__(
        self, vad: SileroVad, recording: np.ndarray, frame_samples: int, frames: Callable[[int], int]
    ):
        self._seconds = len(recording) / SAMPLE_RATE
        (segments,) = vad.heard([recording])
        self._segments = [as_segment(segment) for segment in segments]
        self._frames: list[int] = []  # the encoder frame of the recording that each piece begins with
        self.parts: list[tuple[float, np.ndarray]] = []
        begins = [segment.start // frame_samples for segment in segments]
        for i, (begin, segment) in enumerate(zip(begins, segments, strict=True)):
            # A segment that begins within a frame begins with the frame, and the one before it ends there.
            last = i + 1 == len(begins)
            start, stop = begin * frame_samples, segment.end
            if not last:
                stop = min(stop, begins[i + 1] * frame_samples)
            if start < stop and frames(stop - start):
                self._frames.append(begin)
                self.parts.append((start / SAMPLE_RATE, recording[start:stop]))

    def transcript(self, bundle: Bundle, search: Greedy | Beam, hypotheses: Sequence[Hypothesis]) -> Transcript:
        """The recording's transcript, of the hypotheses of the pieces that the search found."""
        parts = [later(hypothesis, frame) for frame, hypothesis in zip(self._frames, hypotheses, strict=True)]
        return replace(of_utterances(parts, bundle, self._seconds, search), segments=self._segments)


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
    language = bundle.vocabulary.language(whole.tokens.tolist())
    return Transcript(bundle.vocabulary.detokenize(whole.tokens), words, seconds, whole, language=language)
