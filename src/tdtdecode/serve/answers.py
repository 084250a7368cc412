"""Transcripts in the response formats of OpenAI's interface."""

from __future__ import annotations

import json
import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..confidence import Confidence
from ..hypothesis import Transcript, Word
from ..speech.formats import FORMATS
from ..speech.formats.cues import cues

GRANULARITIES = ("word", "segment")
_UNDETERMINED = "und"
"""The language of which nothing is known, by ISO 639."""


@dataclass(frozen=True)
class Asked:
    """What an answer depends on beside the transcript.

    Attributes
    ----------
    bundle:
        The model.
    confidence:
        How words get their confidence.
    granularities:
        Which times ``verbose_json`` has.
    language:
        What the client said.
    """

    bundle: Bundle
    confidence: Confidence
    granularities: Collection[str]
    language: str | None


def _json(transcript: Transcript, asked: Asked) -> str:
    return _dumped({"text": transcript.text, "usage": _usage(transcript)})


def _text(transcript: Transcript, asked: Asked) -> str:
    return FORMATS["txt"].render(transcript, "")


def _srt(transcript: Transcript, asked: Asked) -> str:
    return FORMATS["srt"].render(transcript, "")


def _vtt(transcript: Transcript, asked: Asked) -> str:
    return FORMATS["vtt"].render(transcript, "")


def _verbose(transcript: Transcript, asked: Asked) -> str:
    document: dict[str, Any] = {
        "task": "transcribe", "language": transcript.language or asked.language or _UNDETERMINED,
        "duration": round(transcript.duration, 3), "text": transcript.text,
    }  # fmt: skip
    if "word" in asked.granularities:
        document["words"] = words(transcript)
    if "segment" in asked.granularities:
        document["segments"] = _segments(transcript, asked)
    document["usage"] = _usage(transcript)
    return _dumped(document)


RESPONSES: dict[str, tuple[Callable[[Transcript, Asked], str], str]] = {
    "json": (_json, "application/json"),
    "text": (_text, "text/plain; charset=utf-8"),
    "srt": (_srt, "application/x-subrip; charset=utf-8"),
    "vtt": (_vtt, "text/vtt; charset=utf-8"),
    "verbose_json": (_verbose, "application/json"),
}
"""Name of a response format -> the body that it gives a transcript, and its media type."""


def words(transcript: Transcript) -> list[dict[str, Any]]:
    """The words with their times in seconds, and their confidence, which OpenAI's own answers do not have."""
    return [spoken(word) for word in transcript.words]


def spoken(word: Word) -> dict[str, Any]:
    """A word as the interface writes it, with its confidence."""
    return {
        "word": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
        "confidence": _finite(word.confidence),
    }  # fmt: skip


def _segments(transcript: Transcript, asked: Asked) -> list[dict[str, Any]]:
    """The transcript in parts that are cues of its subtitles, with what Whisper says of its segments.

    Whisper's measure of silence, ``no_speech_prob``, asks whether a segment without speech was transcribed. Here there
    are no segments where no word was found, so it is 0.
    """
    hypothesis = transcript.hypothesis
    found = cues(transcript)
    if hypothesis is None or not found:
        return []
    first_words = _first_words(transcript.words, [cue.start / 1000 for cue in found])
    # Words are made of tokens in their order: the tokens of a part end where those of the next one's first word begin.
    vocabulary, frame_seconds = asked.bundle.vocabulary, asked.bundle.frame_seconds
    of_words = [tokens for _, tokens in vocabulary.words_and_tokens(hypothesis, frame_seconds, asked.confidence)]
    if len(of_words) != len(transcript.words):  # a VAD has divided the words otherwise: then time tells
        starts = (hypothesis.frames * frame_seconds).tolist()
        begins = [bisect_right(starts, transcript.words[i].start - frame_seconds / 2) for i in first_words]
    else:
        begins = [of_words[i].start for i in first_words]
    segments = []
    for number, (cue, begin, end) in enumerate(zip(found, begins, [*begins[1:], len(hypothesis)], strict=True)):
        logprobs = hypothesis.token_logprobs[begin:end]
        encoded = cue.text.encode()
        segments.append(
            {"id": number, "seek": 0, "start": cue.start / 1000, "end": cue.end / 1000, "text": cue.text,
             "tokens": hypothesis.tokens[begin:end].tolist(), "temperature": 0.0,
             "avg_logprob": _finite(float(np.mean(logprobs))) if len(logprobs) else 0.0,
             "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 4), "no_speech_prob": 0.0}
        )  # fmt: skip
    return segments


def _first_words(words: list[Word], starts: list[float]) -> list[int]:
    """For each cue that starts at such a time, the first word that does not start before."""
    begun = [word.start for word in words]
    return [min(bisect_right(begun, start - 1e-3), max(len(words) - 1, 0)) for start in starts]


class Deltas:
    """Cuts a text that grows into what is new each time. The last word is kept back until the next one begins, as it
    may still grow."""

    def __init__(self) -> None:
        self._told = ""

    def more(self, text: str) -> str:
        """What is new in a text that is not complete."""
        return self._new(text[: max(text.rfind(" "), 0)])

    def rest(self, text: str) -> str:
        """What is new in the whole text."""
        return self._new(text)

    def _new(self, text: str) -> str:
        if not text.startswith(self._told):
            return ""
        new, self._told = text[len(self._told) :], text
        return new


def usage(seconds: float) -> dict[str, Any]:
    """How much audio was transcribed, as the interface writes it."""
    return {"type": "duration", "seconds": math.ceil(seconds)}


def _usage(transcript: Transcript) -> dict[str, Any]:
    return usage(transcript.duration)


def _dumped(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def _finite(number: float) -> float | None:
    return round(number, 4) if math.isfinite(number) else None
