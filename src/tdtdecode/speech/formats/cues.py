"""Words gathered into the cues of subtitles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...hypothesis import Transcript, Word

# The usual limits of subtitles on television.
_LINE_LENGTH = 42  # characters
_LINES = 2
_CUE_SECONDS = 7.0
_PAUSE_SECONDS = 1.0


@dataclass
class Cue:
    """Some words shown together, in lines; times in milliseconds."""

    start: int
    end: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def cues(transcript: Transcript) -> list[Cue]:
    """The words in cues of a readable size. A text without words becomes one cue.

    Starts never decrease. A cue ends no later than the next one starts, except that each lasts at least a millisecond.
    """
    words = [Word(" ".join(word.text.split()), word.start, word.end, word.confidence) for word in transcript.words]
    words = [word for word in words if word.text]
    if not words and transcript.text.strip():
        words = [Word(" ".join(transcript.text.split()), 0.0, transcript.duration, math.nan)]
    found: list[Cue] = []
    for group in _groups(words):
        start = max(_milliseconds(group[0].start), found[-1].start if found else 0)
        if found:
            found[-1].end = max(min(found[-1].end, start), found[-1].start + 1)
        end = max(_milliseconds(max(word.end for word in group)), start + 1)
        found.append(Cue(start, end, _wrap(group)))
    return found


def clock(milliseconds: int, point: str) -> str:
    """Hours, minutes and seconds, with the milliseconds after the decimal point given."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _groups(words: list[Word]) -> Iterator[list[Word]]:
    """Split the words at pauses, and where a cue would have too many lines or last too long."""
    group: list[Word] = []
    for word in words:
        if group and (
            word.start - group[-1].end >= _PAUSE_SECONDS
            or word.end - group[0].start > _CUE_SECONDS
            or len(_wrap([*group, word])) > _LINES
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _wrap(words: list[Word]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word.text) <= _LINE_LENGTH:
            lines[-1] += " " + word.text
        else:
            lines.append(word.text)
    return lines


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)
