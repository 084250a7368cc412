"""Transcripts as files: plain text, JSON, subtitles (SRT, WebVTT), TSV as Whisper writes it, and NIST's CTM."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..hypothesis import Hypothesis, Transcript, Word

_LINE_LENGTH = 42  # characters: the limits of lines, of cues and of their time are those of broadcast subtitling
_LINES = 2
_CUE_SECONDS = 7.0
_PAUSE_SECONDS = 1.0


def to_txt(transcript: Transcript, recording: str) -> str:
    """The bare text, on one line."""
    return " ".join(transcript.text.splitlines()) + "\n"


def to_json(transcript: Transcript, recording: str) -> str:
    """One JSON object on one line: recording, text, duration, words and tokens; times in seconds, tokens in frames.

    The next best hypotheses of a beam search follow as ``alternatives``, and all have a ``score`` then. A number that
    is not finite is null.
    """
    document: dict[str, object] = {"recording": recording, "text": transcript.text}
    document["duration"] = round(transcript.duration, 3)
    document |= _reading(transcript)
    if transcript.alternatives:
        document["score"] = _score(transcript)
        document["alternatives"] = [
            {"text": other.text, **_reading(other), "score": _score(other)} for other in transcript.alternatives
        ]
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def _reading(transcript: Transcript) -> dict[str, object]:
    words = [
        {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
         "confidence": _finite(word.confidence)}
        for word in transcript.words
    ]
    tokens = [] if transcript.hypothesis is None else _tokens(transcript.hypothesis)
    return {"words": words, "tokens": tokens}


def _score(transcript: Transcript) -> float | None:
    return None if transcript.hypothesis is None else _finite(transcript.hypothesis.score)


def to_srt(transcript: Transcript, recording: str) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(_cues(transcript), 1)
    )


def to_vtt(transcript: Transcript, recording: str) -> str:
    """WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escape(cue.text)}\n\n"
        for cue in _cues(transcript)
    )


def to_tsv(transcript: Transcript, recording: str) -> str:
    """One cue to a line: start and end in milliseconds, and text, with tabs between, below a header, as in Whisper."""
    lines = (f"{cue.start}\t{cue.end}\t{' '.join(cue.lines)}\n" for cue in _cues(transcript))
    return "start\tend\ttext\n" + "".join(lines)


def to_ctm(transcript: Transcript, recording: str) -> str:
    """One word to a line: recording, channel, start, duration, word, confidence (NIST's sclite, ``doc/infmts``).

    Fields end at white space, so any within the recording's name or a word becomes ``_``.
    """
    name = "_".join(recording.split()) or "_"
    return "".join(
        f"{name} 1 {word.start:.3f} {max(word.end - word.start, 0.0):.3f} {'_'.join(word.text.split())}"
        f" {word.confidence:.4f}\n"
        for word in transcript.words
        if word.text.strip()
    )


FORMATS: dict[str, Callable[[Transcript, str], str]] = {
    "txt": to_txt,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "ctm": to_ctm,
}
"""Name, which is also the file's suffix -> writer of (transcript, the recording's name) to the file's text."""


@dataclass
class _Cue:
    """Some words to be shown together; times in milliseconds."""

    start: int
    end: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def _cues(transcript: Transcript) -> list[_Cue]:
    """The words in cues of a readable size.

    Starts never decrease, a cue ends when the next one starts at the latest, and each lasts a millisecond or more.
    """
    words = [Word(" ".join(word.text.split()), word.start, word.end, word.confidence) for word in transcript.words]
    words = [word for word in words if word.text]
    if not words and transcript.text.strip():
        words = [Word(" ".join(transcript.text.split()), 0.0, transcript.duration, math.nan)]
    cues: list[_Cue] = []
    for group in _groups(words):
        start = max(_milliseconds(group[0].start), cues[-1].start if cues else 0)
        if cues:
            cues[-1].end = max(min(cues[-1].end, start), cues[-1].start + 1)
        end = max(_milliseconds(max(word.end for word in group)), start + 1)
        cues.append(_Cue(start, end, _wrap(group)))
    return cues


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


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tokens(hypothesis: Hypothesis) -> list[dict[str, object]]:
    columns = zip(
        hypothesis.tokens.tolist(),
        hypothesis.frames.tolist(),
        hypothesis.durations.tolist(),
        hypothesis.token_logprobs.tolist(),
        hypothesis.duration_logprobs.tolist(),
        strict=True,
    )
    return [
        {"id": token, "frame": frame, "duration": duration, "logprob": _finite(logprob),
         "duration_logprob": _finite(duration_logprob)}
        for token, frame, duration, logprob, duration_logprob in columns
    ]


def _finite(number: float) -> float | None:
    return round(number, 4) if math.isfinite(number) else None
