"""Text split into a vocabulary's pieces, in all ways that a model is likely to emit it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from ..errors import InputError

SPACE = "\u2581"
MAX_SPELLINGS = 16
EXTRA_PIECES = 1
"""Beside byte-pair encoding's split, a word's spellings have at most so many pieces more than its shortest. Models
seldom emit more, and each further piece multiplies the spellings."""


class Speller:
    """Splits text by the V + 1 ``pieces`` of a token file, that of ``blank`` left out."""

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
        """The splits of a text into tokens, 16 at most: byte-pair encoding's own, then those of fewest pieces.

        Words are split each for themselves, as SentencePiece does, after the space before them.

        Raises
        ------
        InputError
            If the text is empty or has a character that no piece has.
        """
        words = text.split()
        if not words:
            raise InputError(f"a phrase must have a word, got {text!r}")
        phrases: list[list[int]] = [[]]
        for word in words:
            splits = self._split(SPACE + word if self._spaces else word, text)
            # By the sum of their places, so that the first of all words comes first.
            places = sorted(((i + j, a + b) for i, a in enumerate(phrases) for j, b in enumerate(splits)), key=_place)
            phrases = [tokens for _, tokens in places[:MAX_SPELLINGS]]
        return phrases

    def _merged(self, word: str) -> list[int] | None:
        """A word's split by byte-pair encoding, whose pieces stand in the vocabulary in the order of their merging;
        None where a character is no piece."""
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
        """A word's splits, shortest first."""
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
        """Pieces that stand at a place, as (end, tokens), longest first."""
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
        """The fewest tokens from each place to the end; None where the end is out of reach."""
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
        """All splits in order of their number of tokens (best first: what is left is known exactly)."""
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
