"""Splits text into the pieces of a vocabulary, in all the ways that a model is likely to emit it."""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..errors import InputError

SPACE = "\u2581"
BEGIN = -1
"""Stands before a spelling that is only found where an utterance begins."""
MAX_SPELLINGS = 16
EXTRA_PIECES = 1
"""A word's spellings have at most this many pieces more than its shortest one; byte-pair encoding's split is always
kept. Models seldom emit longer ones, and each further piece multiplies their number."""
MAX_TOKENIZERS = 64

_TYPED_OTHERWISE = str.maketrans({"\u2018": "'", "\u2019": "'", "\u2010": "-", "\u2011": "-", "\u2013": "-"})
"""Apostrophes and hyphens of word processors, as models have them."""

_SCRIPTS_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x312F),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3134F),
)  # fmt: skip
"""Thai and Lao; Tibetan; Burmese; Khmer; kana, Bopomofo and Han: ranges of code points, ends counted in."""


class CannotSpell(InputError):
    """A text has a place where no piece fits."""

    text: str
    place: str

    @staticmethod
    def at(text: str, place: str) -> CannotSpell:
        """The error for a text and the place where no piece fits."""
        error = CannotSpell(f"the phrase {text!r} cannot be spelt with the model's pieces: none fits at {place!r}")
        error.text, error.place = text, place
        return error


class Speller:
    """Spells text with the V + 1 ``pieces`` of a token file, without that of ``blank``.

    Tokens of the same text, as vocabularies have that were joined from several, stand for each other: a spelling names
    the first of them, and `same` has them all. With `ignore_case` that goes for tokens that differ in case only.
    """

    def __init__(self, pieces: Sequence[str], blank: int, ignore_case: bool = False):
        self._ignore_case = ignore_case
        tokens = {token: piece.replace(" ", SPACE) for token, piece in enumerate(pieces) if token != blank}
        by_text: dict[str, list[int]] = {}
        for token, piece in tokens.items():
            by_text.setdefault(piece.casefold() if ignore_case else piece, []).append(token)
        self.same = {same[0]: tuple(same) for same in by_text.values()}
        """All tokens that a token of a spelling stands for."""
        self._first_of = {token: same[0] for same in by_text.values() for token in same}
        self._tokenizers = [_Tokenizer(part) for part in _tokenizers(tokens)]
        self._folded = _Tokenizer((text, same[0]) for text, same in by_text.items()) if ignore_case else None

    def first_of(self, token: int) -> int:
        """The token that stands for all of a token's text."""
        return self._first_of.get(token, token)

    def spellings(self, text: str) -> list[list[int]]:
        """The spellings of a text as lists of token ids, 16 at most for each tokenizer and form of the text.

        Byte-pair encoding's spelling comes first, then those with the fewest pieces. Each word is split by itself,
        together with the space before it, as in SentencePiece. Where scripts need no spaces, a word is also spelt
        without. In a vocabulary whose space is a piece of its own, as of single characters, no space precedes the first
        word of an utterance: that spelling begins with `BEGIN`.

        Raises
        ------
        InputError
            If the text is empty, or the pieces cannot spell it.
        """
        if not text.split():
            raise InputError(f"a phrase must have a word, got {text!r}")
        failure: CannotSpell | None = None
        for plain in dict.fromkeys([text, unicodedata.normalize("NFKC", text.translate(_TYPED_OTHERWISE))]):
            found: dict[tuple[int, ...], None] = {}
            for form in _cased(plain) if self._ignore_case else [plain]:
                for tokenizer in self._tokenizers:
                    try:
                        found |= dict.fromkeys(self._spelt(tokenizer, form))
                    except CannotSpell as error:
                        failure = failure or error
            if self._folded is not None:
                try:
                    found |= dict.fromkeys(self._spelt(self._folded, plain.casefold()))
                except CannotSpell as error:
                    failure = failure or error
            if found:
                return [list(tokens) for tokens in found]
        assert failure is not None
        raise CannotSpell.at(text, failure.place)

    def spells(self, text: str) -> bool:
        """Whether a text can be spelt."""
        try:
            return bool(self.spellings(text))
        except CannotSpell:
            return False

    def begins_a_word(self, word: str) -> bool:
        """Whether a word can be spelt together with the space before it, in a vocabulary that has such pieces."""
        try:
            return any(tokenizer.has_spaces and tokenizer.splits(SPACE + word) for tokenizer in self._tokenizers)
        except CannotSpell:
            return False

    def _spelt(self, tokenizer: _Tokenizer, text: str) -> Iterator[tuple[int, ...]]:
        first, *others = words = text.split()
        forms = [[SPACE + first] if tokenizer.has_spaces else [first]]
        for before, word in zip(words, others):
            forms.append([SPACE + word] if tokenizer.has_spaces else [word])
            if tokenizer.has_spaces and (_needs_no_space(before[-1]) or _needs_no_space(word[0])):
                forms[-1].append(word)
        if tokenizer.has_spaces and _needs_no_space(first[0]):
            forms[0].append(first)
        for tokens in tokenizer.spellings(forms):
            yield tuple(map(self.first_of, tokens))
        if tokenizer.has_lone_spaces and len(forms[0]) == 1:
            for tokens in tokenizer.spellings([[first], *forms[1:]]):
                yield (BEGIN, *map(self.first_of, tokens))


class _Tokenizer:
    """The pieces of one tokenizer, by text. Their ids rank the merges of byte-pair encoding."""

    def __init__(self, pieces: Iterable[tuple[str, int]]):
        self._tokens: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        for piece, token in pieces:
            self._tokens.setdefault(piece, token)
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                self._bytes[int(piece[3:5], 16)] = token
        self._longest = max(map(len, self._tokens), default=0)
        self._known: dict[str, list[list[int]]] = {}  # the splits of words; those of a list of phrases come again
        with_space = [piece for piece in self._tokens if SPACE in piece]
        self.has_spaces = bool(with_space)
        self.has_lone_spaces = with_space == [SPACE]

    def spellings(self, words: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """The best spellings of words, each in any of its forms."""
        phrases: list[tuple[int, ...]] = [()]
        for forms in words:
            splits, failure = [], None
            for form in forms:
                try:
                    splits += [split for split in self.splits(form) if split not in splits]
                except CannotSpell as error:
                    failure = failure or error
            if not splits:
                assert failure is not None
                raise failure
            # Ranked by the sum of both ranks, so that the best spellings of all words together come first.
            ranks = sorted(((i + j, i, j) for i in range(len(phrases)) for j in range(len(splits))), key=_sum)
            phrases = [(*phrases[i], *splits[j]) for _, i, j in ranks[:MAX_SPELLINGS]]
        return phrases

    def splits(self, word: str) -> list[list[int]]:
        """A word's splits: byte-pair encoding's, then the others, those with the fewest pieces first."""
        if word not in self._known:
            self._known[word] = self._found_splits(word)
        return self._known[word]

    def _found_splits(self, word: str) -> list[list[int]]:
        edges = [list(self._edges(word, start)) for start in range(len(word))]
        fewest = self._fewest(word, edges)
        if fewest[0] is None and self._bytes:
            edges = [edge or self._spelt_in_bytes(word, start) for start, edge in enumerate(edges)]
            fewest = self._fewest(word, edges)
        if fewest[0] is None:
            reached = max(self._reachable(word, edges))
            raise CannotSpell.at(word, word[reached:][:8])
        longest = fewest[0] + EXTRA_PIECES
        splits = [split for split in islice(self._walk(edges, fewest), MAX_SPELLINGS) if len(split) <= longest]
        merged = self._merged(word)
        return splits if merged is None else [merged, *(split for split in splits if split != merged)]

    def _merged(self, word: str) -> list[int] | None:
        """A word's split by byte-pair encoding, or None if one of its characters is not a piece.

        The order of the merges is that of the pieces in the vocabulary.
        """
        parts = list(word)
        while True:
            joined = ((self._tokens.get(a + b), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
            first = min(((token, i) for token, i in joined if token is not None), default=None)
            if first is None:
                break
            i = first[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        tokens = [self._tokens.get(part) for part in parts]
        return None if None in tokens else [token for token in tokens if token is not None]

    def _edges(self, word: str, start: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The pieces that match the word at a place, as (end, tokens), longest first."""
        for end in range(min(len(word), start + self._longest), start, -1):
            if word[start:end] in self._tokens:
                yield end, (self._tokens[word[start:end]],)

    def _spelt_in_bytes(self, word: str, start: int) -> list[tuple[int, tuple[int, ...]]]:
        values = word[start].replace(SPACE, " ").encode("utf-8", "surrogatepass")
        if not all(value in self._bytes for value in values):
            return []
        return [(start + 1, tuple(self._bytes[value] for value in values))]

    @staticmethod
    def _fewest(word: str, edges: list[list]) -> list[int | None]:
        """The fewest tokens from each place to the end; None where no pieces lead to the end."""
        fewest: list[int | None] = [None] * len(word) + [0]
        for start in range(len(word) - 1, -1, -1):
            counts = [len(tokens) + rest for end, tokens in edges[start] if (rest := fewest[end]) is not None]
            fewest[start] = min(counts, default=None)
        return fewest

    @staticmethod
    def _reachable(word: str, edges: list[list]) -> set[int]:
        reached, waiting = {0}, [0]
        while waiting:
            place = waiting.pop()
            for end, _ in edges[place] if place < len(word) else ():
                if end not in reached:
                    reached.add(end)
                    waiting.append(end)
        return reached

    @staticmethod
    def _walk(edges: list[list], fewest: list[int | None]) -> Iterator[list[int]]:
        """All splits, those with the fewest tokens first, and of these, those that begin with the longest pieces.

        A best-first search. `fewest` tells exactly how many tokens are still needed, so no split comes too early. Of
        splits that need the same, the latest is followed first: it gets to the end before others are begun, however
        many there are.
        """
        count = 0
        waiting: list[tuple[int, int, int, list[int]]] = [(fewest[0] or 0, 0, 0, [])]
        while waiting:
            _, _, place, tokens = heapq.heappop(waiting)
            if place == len(edges):
                yield tokens
                continue
            for end, step in reversed(edges[place]):
                rest = fewest[end]
                if rest is not None:
                    count -= 1
                    heapq.heappush(waiting, (len(tokens) + len(step) + rest, count, end, [*tokens, *step]))


def _tokenizers(pieces: dict[int, str]) -> list[list[tuple[str, int]]]:
    """All pieces of a vocabulary with their tokens; and if some stand twice, those of each vocabulary that it was
    joined from: one ends where a piece comes again. Each of them merges in an order of its own."""
    parts: list[list[tuple[str, int]]] = [[]]
    seen: set[str] = set()
    for token, piece in pieces.items():
        if piece in seen:
            parts.append([])
            seen = set()
        seen.add(piece)
        parts[-1].append((piece, token))
    whole = [(piece, token) for token, piece in pieces.items()]
    return [whole, *parts] if 1 < len(parts) <= MAX_TOKENIZERS else [whole]


def _cased(text: str) -> list[str]:
    """A text as it is given, and as models write it: in lower case, in capitals, words with a capital in front."""
    words = [word[:1].upper() + word[1:].lower() for word in text.split()]
    forms = [text, text.lower(), " ".join(words), " ".join([*words[:1], *(word.lower() for word in words[1:])])]
    return list(dict.fromkeys([*forms, text.upper()]))


def _needs_no_space(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _SCRIPTS_WITHOUT_SPACES)


def _sum(rank: tuple[int, int, int]) -> int:
    return rank[0]
