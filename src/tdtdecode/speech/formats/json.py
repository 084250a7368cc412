"""JSON Lines: one object on one line for each recording."""

from __future__ import annotations

import json
import math

from ...hypothesis import Hypothesis, Transcript
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """One JSON object on one line: recording, text, duration, words and tokens; the language, if the model named one.

    Times of words are in seconds, frames and durations of tokens in encoder frames. Where a VAD listened, its
    ``segments`` of speech are listed. Where a beam search returned
    further hypotheses, they are listed as ``alternatives``, and each hypothesis has a ``score``. A number that is not
    finite becomes null.
    """
    document: dict[str, object] = {"recording": recording, "text": transcript.text}
    document["duration"] = round(transcript.duration, 3)
    if transcript.segments is not None:
        document["segments"] = [
            {"start": round(segment.start, 3), "end": round(segment.end, 3)} for segment in transcript.segments
        ]
    if transcript.language is not None:
        document["language"] = transcript.language
    document |= _words_and_tokens(transcript)
    if transcript.alternatives:
        document["score"] = _score(transcript)
        document["alternatives"] = [
            {"text": other.text, **_words_and_tokens(other), "score": _score(other)}
            for other in transcript.alternatives
        ]
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def words(transcript: Transcript) -> list[dict[str, object]]:
    """The words with their times in seconds and their confidence."""
    return [
        {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
         "confidence": _finite(word.confidence)}
        for word in transcript.words
    ]


def _words_and_tokens(transcript: Transcript) -> dict[str, object]:
    tokens = [] if transcript.hypothesis is None else _tokens(transcript.hypothesis)
    return {"words": words(transcript), "tokens": tokens}


def _score(transcript: Transcript) -> float | None:
    return None if transcript.hypothesis is None else _finite(transcript.hypothesis.score)


def _tokens(hypothesis: Hypothesis) -> list[dict[str, object]]:
    columns = zip(
        hypothesis.tokens.tolist(),
        hypothesis.frames.tolist(),
        hypothesis.durations.tolist(),
        hypothesis.token_logprobs.tolist(),
        hypothesis.duration_logprobs.tolist(),
        strict=True,
    )
    return [
        {"id": token, "frame": frame, "duration": duration, "logprob": _finite(logprob),
         "duration_logprob": _finite(duration_logprob)}
        for token, frame, duration, logprob, duration_logprob in columns
    ]


def _finite(number: float) -> float | None:
    return round(number, 4) if math.isfinite(number) else None


FORMAT = Format(render=render, concatenable=True, alternatives=True, cues=False, failed="")
