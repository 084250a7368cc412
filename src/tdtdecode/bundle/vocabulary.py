"""The pieces of a model's vocabulary, and how they are joined to text and words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..confidence import Confidence
from ..errors import InputError
from ..forks import cached_property
from ..hypothesis import Hypothesis, Word

SPACE = "\u2581"
"""The character with which SentencePiece writes a space."""

UNKNOWN = "<unk>"
UNKNOWN_SURFACE = "\u2047"
"""What `UNKNOWN` becomes in text: the double question mark, as SentencePiece writes it."""

_EVENT = re.compile(r"<(EOU|EOB|[a-z]{2,3}(-[A-Za-z0-9]{2,8})+)>")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class _Segment:
    """A piece of text, and the first and last index of the hypothesis's tokens that it came from."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Vocabulary:
    """The pieces by token id, including blank.

    Attributes
    ----------
    pieces:
        V + 1 strings by token id.
    blank:
        Id of blank.
    """

    pieces: tuple[str, ...]
    blank: int

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def size(self) -> int:
        """V, the number of pieces without blank."""
        return len(self.pieces) - 1

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of token ids, without leading spaces. Blanks are skipped.

        Pieces such as ``<0xE2>`` are bytes of UTF-8 text. ``<unk>`` becomes U+2047.

        Raises
        ------
        InputError
            If an id is not in the vocabulary.
        """
        return "".join(segment.text for segment in self._segments(tokens)).lstrip(" ")

    def words(
        self, hypothesis: Hypothesis, frame_seconds: float, confidence: Confidence = Confidence()
    ) -> list[Word]:
        """The words of a hypothesis, in order.

        A word begins at a piece that begins with a space. It starts at the frame of its first token and ends where
        the duration of its last token (at least one frame) ends. If no piece of the vocabulary has a space, each piece
        is a word. Joined by spaces, the words are the text of `detokenize`, except for white space.

        Parameters
        ----------
        frame_seconds:
            Duration of an encoder frame in seconds.
        confidence:
            How a word's confidence is computed from its tokens', if the hypothesis has `Hypothesis.token_confidence`.
            Otherwise it is the smallest probability among its tokens.
        """
        words = []
        for text, first, last in self._spans(self._segments(hypothesis.tokens)):
            start = int(hypothesis.frames[first])
            end = int(hypothesis.frames[last]) + max(int(hypothesis.durations[last]), 1)
            tokens = slice(first, last + 1)
            if hypothesis.token_confidence is not None:
                certainty = confidence.aggregate(hypothesis.token_confidence[tokens])
            else:
                certainty = math.exp(min(float(np.min(hypothesis.token_logprobs[tokens])), 0.0))
            words.append(Word(text, start * frame_seconds, end * frame_seconds, certainty))
        return words

    def word_tokens(self, tokens: Iterable[int]) -> list[slice]:
        """For each of `words`, the tokens that it is made of."""
        return [slice(first, last + 1) for _, first, last in self._spans(self._segments(tokens))]

    @cached_property
    def events(self) -> dict[int, str]:
        """The tokens that are no text, by id: ``<EOU>`` and ``<EOB>`` end utterances, ``<en-US>`` names a language."""
        return {
            i: piece[1:-1] for i, piece in enumerate(self.pieces) if i != self.blank and _EVENT.fullmatch(piece)
        }

    @cached_property
    def _has_spaces(self) -> bool:
        return any(SPACE in piece or " " in piece for piece in self.pieces)

    def _segments(self, tokens: Iterable[int]) -> list[_Segment]:
        segments: list[_Segment] = []
        pending = bytearray()
        for i, token in enumerate(tokens):
            if not 0 <= token < len(self.pieces):
                raise InputError(f"token id {token} is outside the vocabulary of {len(self.pieces)} entries")
            piece = self.pieces[token]
            byte = _BYTE.fullmatch(piece)
            if byte:
                # The bytes of one character may be spread over several pieces, so a run of them is decoded as a whole.
                first = segments.pop().first if pending else i
                pending.append(int(byte[1], 16))
                segments.append(_Segment(pending.decode("utf-8", errors="replace"), first, i))
                continue
            pending.clear()
            if token != self.blank and token not in self.events:
                text = UNKNOWN_SURFACE if piece == UNKNOWN else piece.replace(SPACE, " ")
                segments.append(_Segment(text, i, i))
        return segments

    def _spans(self, segments: list[_Segment]) -> list[tuple[str, int, int]]:
        """(text, first token, last token) of each word. The token with the space before a word belongs to that word."""
        if not self._has_spaces:
            return [(s.text.strip(), s.first, s.last) for s in segments if s.text.strip()]
        spans: list[tuple[str, int, int]] = []
        inside = False
        space_token: int | None = None
        for segment in segments:
            for part in re.split(r"( )", segment.text):
                if part == " ":
                    inside, space_token = False, segment.first
                elif part and inside:
                    text, first, _ = spans[-1]
                    spans[-1] = (text + part, first, segment.last)
                elif part:
                    spans.append((part, segment.first if space_token is None else space_token, segment.last))
                    inside = True
        return spans
