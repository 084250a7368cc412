"""What a transcript format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """A transcript format. No field has a default, so that a new format has to answer every question.

    Attributes
    ----------
    render:
        (transcript, name of the recording) -> the whole text of a file, which ends with a newline unless it is empty.
        A format of cues takes `CueOptions` as a third argument.
    concatenable:
        Whether the texts of several recordings may follow each other in one stream, because a reader can tell where
        each one ends. False where a text has a header or numbers of its own.
    alternatives:
        Whether the next best hypotheses of a beam search are written.
    cues:
        Whether the words are gathered into cues.
    failed:
        What a stream holds in the place of a recording that failed, often nothing.
    """

    render: Callable[..., str]
    concatenable: bool
    alternatives: bool
    cues: bool
    failed: str
