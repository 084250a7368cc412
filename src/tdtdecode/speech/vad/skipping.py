"""Recordings without their silence: only where someone speaks is encoded and decoded.

Each segment of speech is an utterance of its own. Its samples begin at an encoder frame of the recording, so its frames
and words keep their places in the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ...bundle import Bundle
from ...confidence import Confidence
from ...hypothesis import Hypothesis, Transcript, joined
from ..transcripts import nothing, transcript
from .silero import SAMPLE_RATE, SileroVad


class SpeechPieces:
    """The pieces of a batch of recordings in which someone speaks.

    Parameters
    ----------
    recordings:
        float32 [n] each, at 16 kHz.
    frame_samples:
        Samples of an encoder frame.

    Attributes
    ----------
    samples:
        float32 [n], of each piece.
    owners:
        The recording that each piece is from: its place in the batch.
    """

    def __init__(self, vad: SileroVad, recordings: Sequence[np.ndarray], frame_samples: int):
        self._recordings, self._frame_samples = recordings, frame_samples
        self.samples: list[np.ndarray] = []
        self.owners: list[int] = []
        self._frames: list[int] = []  # the encoder frame of the recording that each piece begins with
        for place, (whole, segments) in enumerate(zip(recordings, vad.heard(recordings), strict=True)):
            begins = [segment.start // frame_samples for segment in segments]
            for i, (begin, segment) in enumerate(zip(begins, segments, strict=True)):
                # A segment that begins within a frame begins with the frame, and the one before it ends there.
                last = i + 1 == len(begins)
                stop = segment.end if last else min(segment.end, begins[i + 1] * frame_samples)
                if begin * frame_samples < stop:
                    self.samples.append(whole[begin * frame_samples : stop])
                    self.owners.append(place)
                    self._frames.append(begin)

    def share(self, piece: int) -> float:
        """The share of a recording's speech that is in a piece."""
        owner = self.owners[piece]
        spoken = sum(len(samples) for samples, other in zip(self.samples, self.owners, strict=True) if other == owner)
        return len(self.samples[piece]) / spoken

    def transcripts(
        self, hypotheses: Sequence[Hypothesis], bundle: Bundle, confidence: Confidence, nbest: int
    ) -> list[Transcript]:
        """The transcript of each recording, of the hypotheses of the pieces.

        Parameters
        ----------
        nbest:
            The most hypotheses of a recording: the best sums of its pieces' scores.
        """
        parts: list[list[Hypothesis]] = [[] for _ in self._recordings]
        for owner, frame, hypothesis in zip(self.owners, self._frames, hypotheses, strict=True):
            parts[owner].append(_later(hypothesis, frame))
        made = []
        for samples, found in zip(self._recordings, parts, strict=True):
            seconds = len(samples) / SAMPLE_RATE
            best, *others = [_of_parts(row, bundle, seconds, confidence) for row in _best_rows(found, nbest)]
            made.append(replace(best, alternatives=others))
        return made


def _later(hypothesis: Hypothesis, frames: int) -> Hypothesis:
    """The same, so many frames later."""
    alternatives = tuple(_later(one, frames) for one in hypothesis.alternatives)
    return replace(hypothesis, frames=hypothesis.frames + np.int32(frames), alternatives=alternatives)


def _best_rows(parts: list[list[Hypothesis]] | list[Hypothesis], nbest: int) -> list[list[Hypothesis]]:
    """For each piece one of its hypotheses, with the best sums of scores; best first."""
    rows: list[list[Hypothesis]] = [[]]
    for part in parts:
        longer = [[*row, one] for row in rows for one in part.nbest]
        rows = sorted(longer, key=lambda row: -sum(one.score for one in row))[:nbest]
    return rows


def _of_parts(parts: list[Hypothesis], bundle: Bundle, seconds: float, confidence: Confidence) -> Transcript:
    """The transcript of utterances one after the other. No word goes on from one to the next."""
    if not parts:
        return transcript(bundle, nothing(), seconds, confidence)
    whole = replace(joined([replace(part, alternatives=()) for part in parts]), score=sum(one.score for one in parts))
    words = []
    for part in parts:
        end = words[-1].end if words else None
        words += [word for word, _ in bundle.vocabulary.words_and_tokens(part, bundle.frame_seconds, confidence, end)]
    words = [replace(word, end=max(word.start, min(word.end, seconds))) for word in words]
    return Transcript(bundle.vocabulary.detokenize(whole.tokens), words, seconds, whole)
