"""WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import clock, cues, lines
from .format import Format
from .options import CueOptions


def render(transcript: Transcript, recording: str, options: CueOptions = CueOptions()) -> str:
    """A header, then cues with their times; the characters of markup are escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escape(lines(cue))}\n\n"
        for cue in cues(transcript, options)
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


FORMAT = Format(render=render, concatenable=False, alternatives=False, cues=True, failed="")
