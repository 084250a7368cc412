"""Words with times, of the pieces that were decoded.

Words are what stands between spaces. Text of scripts that have no spaces is divided where a line may be broken
(`segmentation`). The times of words are NeMo's (`_refine_timestamps_tdt` and `get_words_offsets`, version 3.0.0), with
these exceptions, each because NeMo's words would overlap, or would not be those of NeMo's own text:

- A word ends at the next one's start at the latest. A token of duration 0 takes no time.
- A bare space mark, or a piece such as ``\u2581...``, before final punctuation makes no word of the punctuation.
- Bytes of UTF-8 text do not begin words.
- Words of several pieces end where a line may be broken, if they have characters of scripts without spaces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..segmentation import clusters, columns, is_unspaced, unspaced_breaks

_LONGEST_SECONDS = 7.0
_WIDEST = 84
"""No word lasts longer than a subtitle may, or is wider than its two lines: what seems to be one is divided."""


@dataclass(frozen=True)
class Segment:
    """A piece of text, and the tokens that it came from.

    Attributes
    ----------
    text:
        The text, in which spaces are spaces.
    first, last:
        Indexes of the first and the last token in the hypothesis.
    punctuation:
        Whether it is a single token that is one mark of punctuation, besides spaces.
    delimiter:
        Whether it is a token that is a space itself, not the mark of one.
    """

    text: str
    first: int
    last: int
    punctuation: bool = False
    delimiter: bool = False


@dataclass(frozen=True)
class Span:
    """A word: its text, start and end in frames, first and last token, and whether a space stands before it."""

    text: str
    start: float
    end: float
    first: int
    last: int
    spaced: bool


@dataclass(frozen=True)
class _Character:
    text: str
    start: float
    end: float
    first: int
    last: int
    gap: bool
    """Whether punctuation begins here that came after a space of its own: it adds no time to the word."""


def token_times(
    segments: list[Segment], frames: np.ndarray, durations: np.ndarray, tdt: bool, before: float | None
) -> list[tuple[float, float]]:
    """Start and end of each segment in frames.

    In TDT, punctuation starts and ends where the token before it ends: models predict it late, often after a pause. In
    RNN-T, where tokens have no durations, each lasts a frame. The token before the first one ends at ``before``.
    """
    times: list[tuple[float, float]] = []
    for segment in segments:
        start: float = int(frames[segment.first])
        end: float = int(frames[segment.last]) + (int(durations[segment.last]) if tdt else 1)
        if tdt and segment.punctuation and before is not None:
            start = end = before
        times.append((start, end))
        before = end
    return times


def spans(
    segments: list[Segment],
    times: list[tuple[float, float]],
    removed: set[int],
    frame_seconds: float,
    has_spaces: bool,
    continued: bool,
) -> list[Span]:
    """The words, in order; none starts before the one before it ends.

    Parameters
    ----------
    segments, times:
        What was decoded, and its times in frames.
    removed:
        Indexes into the text of all segments: spaces that are no part of it.
    has_spaces:
        Whether the vocabulary has spaces. If not, and the script has them, each token is a word.
    continued:
        Whether other words came before.
    """
    found: list[Span] = []
    for run in _runs(segments, times, removed, continued):
        spaced = bool(found) or not continued or (segments[0].text[0].isspace() and 0 not in removed)
        for word in _units(run, has_spaces):
            for part in _cut(word, frame_seconds):
                text = "".join(character.text for character in part)
                end = min(_last_with_time(part).end, part[0].start + _LONGEST_SECONDS / frame_seconds)
                found.append(Span(text, part[0].start, end, part[0].first, part[-1].last, spaced))
                spaced = False
    return _in_order(found)


def _runs(
    segments: list[Segment], times: list[tuple[float, float]], removed: set[int], continued: bool
) -> Iterator[list[_Character]]:
    """The characters between spaces."""
    leading = not continued
    run: list[_Character] = []
    mark: tuple[int, float] | None = None  # the space mark before the next run: token and start
    gap = False
    index = 0
    for segment, (start, end) in zip(segments, times, strict=True):
        visible = len("".join(segment.text.split()))
        seen = 0
        for char in segment.text:
            if char.isspace():
                if not run or index not in removed:
                    if run:
                        yield run
                        leading = False
                    if segment.delimiter:
                        # As in NeMo, it belongs to no word, but the first word starts with the first token.
                        mark = mark or ((segment.first, start) if leading else None)
                    elif not visible:
                        mark = segment.first, start
                    elif run or index not in removed or not segment.punctuation:
                        mark = None
                    run, gap = [], False
                else:
                    gap = not segment.punctuation and not segment.delimiter
            else:
                length = (end - start) / visible
                first, begin = mark or (segment.first, start + length * seen)
                run.append(_Character(char, begin, start + length * (seen + 1), first, segment.last, gap))
                mark, gap = None, False
                seen += 1
            index += 1
    if run:
        yield run


def _units(run: list[_Character], has_spaces: bool) -> Iterator[list[_Character]]:
    text = "".join(character.text for character in run)
    breaks = unspaced_breaks(text)
    if not has_spaces and not is_unspaced(text):
        breaks = [
            i for i in clusters(text) if run[i].first != run[i - 1].first and not _is_punctuation(text[i])
        ]
    for start, end in zip([0, *breaks], [*breaks, len(run)], strict=True):
        yield run[start:end]


def _cut(word: list[_Character], frame_seconds: float) -> Iterator[list[_Character]]:
    """The word, or its parts if it is too long for one, divided at the longest pauses between its tokens."""
    waiting = [word]
    while waiting:
        part = waiting.pop()
        text = "".join(character.text for character in part)
        long = (part[-1].end - part[0].start) * frame_seconds > _LONGEST_SECONDS
        wide = columns(text) > _WIDEST
        ends = clusters(text) if long or wide else []
        # Punctuation stays with its word, if it has one. Time passes between tokens only.
        breaks = [
            i for i in ends if not _is_punctuation(text[i]) and (wide or part[i].first != part[i - 1].first)
        ] or (ends if wide else [])
        if not breaks:
            yield part
            continue
        middle = len(part) / 2
        cut = max(breaks, key=lambda i: (
            part[i].start - part[i - 1].end, part[i].first != part[i - 1].first, -abs(i - middle)))  # fmt: skip
        waiting += [part[cut:], part[:cut]]


def _last_with_time(word: list[_Character]) -> _Character:
    """The last character, or the one before a gap with nothing but punctuation after it."""
    last = len(word) - 1
    for i in range(last, 0, -1):
        if not _is_punctuation(word[i].text):
            break
        if word[i].gap:
            last = i - 1
    return word[last]


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")


def _in_order(words: list[Span]) -> list[Span]:
    """The same words, each ending where the next one starts at the latest."""
    found = []
    limit = float("inf")
    for word in reversed(words):
        start = min(word.start, limit)
        found.append(Span(word.text, start, max(start, min(word.end, limit)), word.first, word.last, word.spaced))
        limit = start
    return found[::-1]
