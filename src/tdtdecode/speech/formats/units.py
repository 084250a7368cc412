"""The units of subtitles: what a line or a cue may be broken between."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ...hypothesis import Word
from ...segmentation import (
    clusters,
    columns,
    has_wide_letters,
    is_unspaced,
    line_breaks,
    sentence_breaks,
    word_breaks,
)
from .options import CueOptions

_ABBREVIATION = re.compile(r"(?:^|\W)(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Sra|(?:\w\.)*[^\W\d_])\.$", re.IGNORECASE)
"""What has a full stop within a sentence: titles, initials, "e.g."; Unicode's rules have no list of them."""


@dataclass
class Unit:
    """A word, or a part of one that is longer than a line.

    Attributes
    ----------
    text, columns, wide:
        The text, its width, and whether it has letters of full width.
    start, end:
        In seconds.
    space:
        Whether a space stands before it.
    sentence:
        Whether a sentence begins with it.
    clause:
        Whether it comes after a mark of punctuation.
    inside:
        Whether it begins within a word of text without spaces, or with hiragana, which belong to the word before, or
        after a title or an abbreviation.
    cut:
        Whether it begins within a word that had to be cut.
    pause:
        Seconds of silence before it.
    """

    text: str
    columns: int
    wide: bool
    start: float
    end: float
    space: bool
    cut: bool
    sentence: bool = False
    clause: bool = False
    inside: bool = False
    pause: float = 0.0


def units_of(words: Sequence[Word], options: CueOptions) -> list[Unit]:
    """The units of words, in order: starts never decrease, and each fits a line."""
    units: list[Unit] = []
    for word in words:
        parts = [
            (part, i == 0 and (word.space_before or j > 0), i > 0)
            for j, piece in enumerate(word.text.split())
            for i, part in enumerate(_fitting(piece, options))
        ]
        start = max(word.start, units[-1].start if units else 0.0)
        length = max(word.end - start, 0.0)
        widths = [columns(part) for part, *_ in parts]
        before, total = 0, max(sum(widths), 1)
        for (part, space, cut), width in zip(parts, widths, strict=True):
            begin, end = start + length * before / total, start + length * (before + width) / total
            units.append(Unit(part, width, has_wide_letters(part), begin, end, space and bool(units), cut))
            before += width
    _describe(units)
    return units


def _describe(units: list[Unit]) -> None:
    """Say of each unit what begins with it."""
    text = ""
    begins = []
    for unit in units:
        text += " " * unit.space
        begins.append(len(text))
        text += unit.text
    # Unicode's rules expect a sentence to begin with a capital. Some models write none.
    cased = text if text != text.lower() else "".join(map(_capital, text))
    sentences = set(sentence_breaks(cased)) if text else set()
    within_words = is_unspaced(text)
    words = set(word_breaks(text)) if within_words else set()
    for i in range(1, len(units)):
        unit, before = units[i], units[i - 1]
        unit.pause = max(unit.start - before.end, 0.0)
        abbreviation = _ABBREVIATION.search(before.text) is not None
        hiragana = unicodedata.name(unit.text[0], "").startswith("HIRAGANA")
        unit.sentence = begins[i] in sentences and not unit.cut and not abbreviation
        unit.clause = unicodedata.category(before.text[-1]).startswith("P") and not abbreviation
        unit.inside = abbreviation or not (unit.space or unit.clause) and (hiragana or begins[i] not in words)


def _capital(char: str) -> str:
    capital = char.upper()
    return capital if len(capital) == 1 else char


def _fitting(text: str, options: CueOptions) -> list[str]:
    """A text without spaces in parts that fit a line: broken where Unicode allows it, else between characters."""
    room = options.line_columns(has_wide_letters(text))
    if columns(text) <= room:
        return [text]
    breaks = set(line_breaks(text))
    between = set(clusters(text))
    found, start = [], 0
    while start < len(text):
        stop = start + 1
        while stop < len(text) and columns(text[start : stop + 1]) <= room:
            stop += 1
        if stop < len(text):
            fitting = range(start + 1, stop + 1)
            stop = max(breaks.intersection(fitting) or between.intersection(fitting) or {stop})
        found.append(text[start:stop])
        start = stop
    return found
