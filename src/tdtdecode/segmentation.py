"""Where text may be broken, and how much room it takes: Unicode's rules, as ICU implements them.

ICU is the Unicode Consortium's own implementation. It comes with icu4py, which has wheels for every platform of ONNX
Runtime. Of the packages that find breaks in text, only those with ICU have dictionaries for Thai, Lao, Khmer and
Burmese, where nothing in the text shows the words. ICU is imported only for text that needs it: text with spaces is
divided at them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate

from .optional import needed

_UNSPACED = (
    "CJK", "IDEOGRAPHIC", "KANGXI", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HENTAIGANA", "BOPOMOFO", "YI",
    "NUSHU", "TANGUT", "THAI", "LAO", "KHMER", "MYANMAR", "TAI", "NEW TAI LUE", "TIBETAN", "BALINESE", "JAVANESE",
)  # fmt: skip
"""How the Unicode names of characters begin that belong to writing without spaces between words."""

_BY_DICTIONARY = ("THAI", "LAO", "KHMER", "MYANMAR")
"""The same of scripts in which ICU finds words by dictionaries."""

DICTIONARY_WORDS = 8
"""Words at the end of text of such a script that may be others once more text follows.

ICU looks three words ahead. The beginning of a long word may look like several short ones.
"""

_SURROGATES = re.compile("[\ud800-\udfff]")


def unspaced_breaks(text: str) -> list[int]:
    """Where to divide text without white space into words, as ascending indexes.

    These are the line breaks of Unicode (UAX #14) beside a character of a script that is written without spaces. So
    punctuation stays with its word, and text of other scripts is never divided. Korean has spaces: it is not divided
    either, not even beside a Chinese character.
    """
    if not any(map(_is_unspaced, text)):
        return []
    return [
        i
        for i in line_breaks(text)
        if (_is_unspaced(text[i - 1]) or _is_unspaced(text[i])) and not (_is_hangul(text[i - 1]) or _is_hangul(text[i]))
    ]


def is_unspaced(text: str) -> bool:
    """Whether some character belongs to a script that is written without spaces between words."""
    return any(map(_is_unspaced, text))


def needs_dictionary(text: str) -> bool:
    """Whether some character belongs to a script in which words are found by a dictionary."""
    return any(char > "\x7f" and unicodedata.name(char, "").startswith(_BY_DICTIONARY) for char in text)


def line_breaks(text: str) -> list[int]:
    """Where a line may end within a text (UAX #14), as ascending indexes."""
    with needed("icu4py", "cpu", "the words of text without spaces"):
        from icu4py.breakers import LineBreaker
    return _inner(LineBreaker(_encodable(text), "und"))


def clusters(text: str) -> list[int]:
    """Where a user-perceived character ends within a text (grapheme clusters, UAX #29), as ascending indexes."""
    if text.isascii():
        return list(range(1, len(text)))
    with needed("icu4py", "cpu", "the characters of words that are too long"):
        from icu4py.breakers import CharacterBreaker
    return _inner(CharacterBreaker(_encodable(text), "und"))


def word_breaks(text: str) -> list[int]:
    """Where a word begins or ends within a text (UAX #29, with ICU's dictionaries), as ascending indexes."""
    with needed("icu4py", "cpu", "the words of text without spaces"):
        from icu4py.breakers import WordBreaker
    return _inner(WordBreaker(_encodable(text), "und"))


def sentence_breaks(text: str) -> list[int]:
    """Where a sentence ends within a text (UAX #29), as ascending indexes."""
    with needed("icu4py", "cpu", "the sentences of subtitles"):
        from icu4py.breakers import SentenceBreaker
    return _inner(SentenceBreaker(_encodable(text), "und"))


def columns(text: str) -> int:
    """The room that a text takes: 2 for each wide or full-width character (UAX #11), 1 for others, 0 for format codes.

    A letter and its accents count as the one character that they are composed to, where there is one.
    """
    if text.isascii():
        return len(text)
    return sum(map(_character_columns, unicodedata.normalize("NFC", text)))


def has_wide_letters(text: str) -> bool:
    """Whether the text has letters of full width: ideographs, kana, Hangul. An emoji is no letter."""
    return not text.isascii() and any(
        unicodedata.east_asian_width(char) in "WF" and unicodedata.category(char) == "Lo" for char in text
    )


@lru_cache(maxsize=1 << 14)
def _is_unspaced(char: str) -> bool:
    return char > "\x7f" and unicodedata.name(char, "").startswith(_UNSPACED)


@lru_cache(maxsize=1 << 14)
def _is_hangul(char: str) -> bool:
    return char > "\x7f" and unicodedata.name(char, "").startswith(("HANGUL", "HALFWIDTH HANGUL"))


@lru_cache(maxsize=1 << 14)
def _character_columns(char: str) -> int:
    if unicodedata.category(char) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _inner(parts: Iterable[str]) -> list[int]:
    # The lengths of the parts, not ICU's own positions: those count UTF-16 units.
    return list(accumulate(map(len, parts)))[:-1]


def _encodable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which is no character."""
    return _SURROGATES.sub("\ufffd", text)
