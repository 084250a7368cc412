"""CTM, the word times that NIST's sclite reads (its ``doc/infmts``)."""

from __future__ import annotations

from ...hypothesis import Transcript
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """One word to a line: recording, channel, start and duration in seconds, word, confidence.

    White space separates the fields, so white space within the recording's name or within a word becomes ``_``.
    """
    name = "_".join(recording.split()) or "_"
    return "".join(
        f"{name} 1 {word.start:.3f} {max(word.end - word.start, 0.0):.3f} {'_'.join(word.text.split())}"
        f" {word.confidence:.4f}\n"
        for word in transcript.words
        if word.text.strip()
    )


# Every line begins with its recording's name.
FORMAT = Format(render=render, concatenable=True, alternatives=False, cues=False, failed="")
