"""Tab-separated values, as Whisper writes them."""

from __future__ import annotations

from ...hypothesis import Transcript
from .cues import cues
from .format import Format
from .options import CueOptions


def render(transcript: Transcript, recording: str, options: CueOptions = CueOptions()) -> str:
    """A header, then one cue to a line: start and end in milliseconds, and the text, with tabs between them."""
    lines = (f"{cue.start}\t{cue.end}\t{cue.text}\n" for cue in cues(transcript, options))
    return "start\tend\ttext\n" + "".join(lines)


FORMAT = Format(render=render, concatenable=False, alternatives=False, cues=True, failed="")
