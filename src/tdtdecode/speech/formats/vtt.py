"""WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import clock, cues
from .format import Format


def render(transcript: Transcript, recording: str) -> str:
    """A header, then cues with their times; the characters of markup are escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escape(cue.text)}\n\n" for cue in cues(transcript)
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


FORMAT = Format(render=render, concatenable=False, alternatives=False, failed="")
