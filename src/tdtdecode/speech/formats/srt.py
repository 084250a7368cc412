"""SubRip subtitles."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import clock, cues, lines
from .format import Format
from .options import CueOptions


def render(transcript: Transcript, recording: str, options: CueOptions = CueOptions()) -> str:
    """Numbered cues with their times."""
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{lines(cue)}\n\n"
        for number, cue in enumerate(cues(transcript, options), 1)
    )


FORMAT = Format(render=render, concatenable=False, alternatives=False, cues=True, failed="")
