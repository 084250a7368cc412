"""From hypotheses to transcripts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..bundle import Bundle
from ..confidence import Confidence
from ..hypothesis import Hypothesis, Transcript, Word


def transcript(bundle: Bundle, hypothesis: Hypothesis, seconds: float, confidence: Confidence) -> Transcript:
    """The transcript of a hypothesis, with its alternatives. Words and alternatives are made when they are looked at.

    Hypotheses keep durations as predicted, even past the end of the recording. Words end with the recording.

    Parameters
    ----------
    seconds:
        Length of the recording.
    confidence:
        How words get their confidence from their tokens.
    """
    text = bundle.vocabulary.detokenize(hypothesis.tokens)

    def words() -> list[Word]:
        found = bundle.vocabulary.words(hypothesis, bundle.frame_seconds, confidence)
        return [replace(word, end=max(word.start, min(word.end, seconds))) for word in found]

    def alternatives() -> list[Transcript]:
        return [transcript(bundle, other, seconds, confidence) for other in hypothesis.alternatives]

    language = bundle.vocabulary.language(hypothesis.tokens.tolist())
    return Transcript.lazy(text, seconds, hypothesis, language, words=words, alternatives=alternatives)


def nothing() -> Hypothesis:
    """The hypothesis without tokens."""
    integers, numbers = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Hypothesis(integers, integers, integers, numbers, numbers, 0.0)
