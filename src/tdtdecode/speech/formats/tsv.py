"""Tab-separated values, as Whisper writes them."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import cues
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """A header, then one cue to a line: start and end in milliseconds, and the text, with tabs between them."""
    lines = (f"{cue.start}\t{cue.end}\t{' '.join(cue.lines)}\n" for cue in cues(transcript))
    return "start\tend\ttext\n" + "".join(lines)


FORMAT = Format(render=render, concatenable=False, alternatives=False, failed="")
