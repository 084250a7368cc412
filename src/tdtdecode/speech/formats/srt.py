"""SubRip subtitles."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import clock, cues
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """Numbered cues with their times."""
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(transcript), 1)
    )


FORMAT = Format(render=render, concatenable=False, alternatives=False, failed="")
