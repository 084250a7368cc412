"""Plain text."""

from __future__ import annotations

from ...hypothesis import Transcript
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """The bare text, on one line."""
    return " ".join(transcript.text.splitlines()) + "\n"


# A recording that failed leaves an empty line, so that line n always belongs to recording n.
FORMAT = Format(render=render, concatenable=True, alternatives=False, cues=False, failed="\n")
