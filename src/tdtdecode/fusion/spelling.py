"""Splits text into the pieces of a vocabulary, in all the ways that a model is likely to emit it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from ..errors import InputError

SPACE = "\u2581"
MAX_SPELLINGS = 16
EXTRA_PIECES = 1
"""A word's spellings have at most this many pieces more than its shortest one; byte-pair encoding's split is always
kept. Models seldom emit longer ones, and each further piece multiplies their number."""


class Speller:
    """Splits text into the V + 1 ``pieces`` of a token file, without that of ``blank``."""

    def __init__(self, pieces: Sequence[str], blank: int):
        self._tokens: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        for token, piece in enumerate(pieces):
            if token == blank:
                continue
            self._tokens.setdefault(piece.replace(" ", SPACE), token)
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                self._bytes[int(piece[3:5], 16)] = token
        self._longest = max(map(len, self._tokens), default=0)
        self._spaces = any(SPACE in piece for piece in self._tokens)

    def spellings(self, text: str) -> list[list[int]]:
        """The spellings of a text as lists of token ids, 16 at most.

        Byte-pair encoding's spelling comes first, then those with the fewest pieces. Each word is split by itself,
        together with the space before it, as in SentencePiece.

        Raises
        ------
        InputError
            If the text is empty, or the pieces cannot spell it.
        """
        words = text.split()
        if not words:
            raise InputError(f"a phrase must have a word, got {text!r}")
        phrases: list[list[int]] = [[]]
        for word in words:
            splits = self._split(SPACE + word if self._spaces else word, text)
            # Ranked by the sum of both ranks, so that the best spellings of all words together come first.
            places = sorted(((i + j, a + b) for i, a in enumerate(phrases) for j, b in enumerate(splits)), key=_place)
            phrases = [tokens for _, tokens in places[:MAX_SPELLINGS]]
        return phrases

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

    def _split(self, word: str, text: str) -> list[list[int]]:
        """A word's splits: byte-pair encoding's, then the others, those with the fewest pieces first."""
        edges = [list(self._edges(word, start)) for start in range(len(word))]
        fewest = self._fewest(word, edges)
        if fewest[0] is None and self._bytes:
            edges = [edge or self._spelt_in_bytes(word, start) for start, edge in enumerate(edges)]
            fewest = self._fewest(word, edges)
        if fewest[0] is None:
            reached = max(self._reachable(word, edges))
            raise InputError(
                f"the phrase {text!r} cannot be spelt with the model's pieces: none fits at {word[reached:][:8]!r}"
            )
        longest = fewest[0] + EXTRA_PIECES
        splits = [split for split in islice(self._walk(edges, fewest), MAX_SPELLINGS) if len(split) <= longest]
        merged = self._merged(word)
        return splits if merged is None else [merged, *(split for split in splits if split != merged)]

    def _edges(self, word: str, start: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The pieces that match the word at a place, as (end, tokens), longest first."""
        for end in range(min(len(word), start + self._longest), start, -1):
            if word[start:end] in self._tokens:
                yield end, (self._tokens[word[start:end]],)

    def _spelt_in_bytes(self, word: str, start: int) -> list[tuple[int, tuple[int, ...]]]:
        values = word[start].replace(SPACE, " ").encode()
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
        """All splits, those with the fewest tokens first.

        A best-first search. `fewest` tells exactly how many tokens are still needed, so no split comes too early.
        """
        count = 0
        waiting: list[tuple[int, int, int, list[int]]] = [(fewest[0] or 0, 0, 0, [])]
        while waiting:
            _, _, place, tokens = heapq.heappop(waiting)
            if place == len(edges):
                yield tokens
                continue
            for end, step in edges[place]:
                rest = fewest[end]
                if rest is not None:
                    count += 1
                    heapq.heappush(waiting, (len(tokens) + len(step) + rest, count, end, [*tokens, *step]))


def _place(entry: tuple[int, list[int]]) -> int:
    return entry[0]
