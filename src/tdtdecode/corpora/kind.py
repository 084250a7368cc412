"""What a kind of manifest is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..speech.audio import Audio

PREDICTION = "pred_text"
"""The field of the recognised text. NeMo's transcribe_speech.py calls it so."""
ERROR = "error"
"""The field that says why a recording was not transcribed."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of manifest: functions of the fields of a line. None has a default, so that a new kind answers each.

    Attributes
    ----------
    expected:
        What its lines have, for messages.
    matches:
        Whether a line is of this kind.
    check:
        Raises a ValueError if a line is damaged: a field is missing or has a wrong value. The recording is not opened.
    name:
        What messages call the recording.
    seconds, reference:
        Its length and what is said in it, if the line states them.
    audio:
        (fields, folder of the manifest) -> what `Recognizer.recognize` takes.
    file:
        (fields, folder of the manifest) -> path, start and length in seconds, for players; None if it is no file.
    results:
        Where results stand.
    with_results:
        (fields, results) -> the fields with the results in place of those of an earlier run.
    without:
        (fields, names of results) -> the fields as they were given.
    """

    expected: str
    matches: Callable[[Fields], bool]
    check: Callable[[Fields], None]
    name: Callable[[Fields], str]
    seconds: Callable[[Fields], float | None]
    reference: Callable[[Fields], str | None]
    audio: Callable[[Fields, str], Audio]
    file: Callable[[Fields, str], tuple[str, float, float | None] | None]
    results: Callable[[Fields], Fields]
    with_results: Callable[[Fields, Fields], dict[str, Any]]
    without: Callable[[Fields, set[str]], dict[str, Any]]


def replaced(fields: Fields, results: Fields) -> dict[str, Any]:
    """Fields with results; no text and no error of an earlier run is left beside them."""
    return {name: value for name, value in fields.items() if name not in (PREDICTION, ERROR)} | dict(results)


def removed(fields: Fields, names: set[str]) -> dict[str, Any]:
    """Fields without results."""
    return {name: value for name, value in fields.items() if name not in names}
