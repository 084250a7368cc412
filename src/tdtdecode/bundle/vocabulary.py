"""The pieces of a model's vocabulary, and how they are joined to text and words."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from codecs import getincrementaldecoder
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..arguments import as_instance, as_integer, as_number, as_tuple
from ..confidence import Confidence
from ..errors import InputError
from ..forks import cached_property
from ..hypothesis import Hypothesis, Word
from ..reprs import counted, one_line
from .words import Segment, spans, token_times

SPACE = "\u2581"
"""The character with which SentencePiece writes a space."""

UNKNOWN = "<unk>"
UNKNOWN_SURFACE = "\u2047"
"""What `UNKNOWN` becomes in text: the double question mark, as SentencePiece writes it."""

_SPECIAL = re.compile(r"\[.*\]$|<.*>$|##|\u2581|\s*$")
"""Pieces whose punctuation does not count as the vocabulary's, as in NeMo."""

_EVENT = re.compile(r"<(EOU|EOB|[a-z]{2,3}(-[A-Za-z0-9]{2,8})+)>")
_BYTES = re.compile(r"(<0x[0-9A-Fa-f]{2}>)+")


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

    def __repr__(self) -> str:
        return one_line(self, counted(self.size, "piece"), f"blank {self.blank}")

    @property
    def size(self) -> int:
        """V, the number of pieces without blank."""
        return len(self.pieces) - 1

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of token ids, without leading spaces. Blanks are skipped.

        Pieces such as ``<0xE2>`` or ``<0xE2><0x82>`` are bytes of UTF-8 text. ``<unk>`` becomes U+2047. As in NeMo
        3.0.0, one space before a mark of punctuation is left out: any mark that a piece without a space before it has,
        opening ones, too.

        Raises
        ------
        InputError
            If an id is not in the vocabulary.
        """
        ids = as_tuple("tokens", tokens, "token ids")
        text, removed = self._joined(self._segments([as_integer("a token", token) for token in ids]))
        text = "".join(char for i, char in enumerate(text) if i not in removed).lstrip(" ")
        return text.rstrip(" ") if self._marks_ends else text

    def words(
        self, hypothesis: Hypothesis, frame_seconds: float, confidence: Confidence = Confidence()
    ) -> list[Word]:
        """The words of a hypothesis, in order. They do not overlap.

        Words are divided at spaces. Text of scripts without spaces between words (Japanese, Chinese, Thai, Lao, Khmer,
        Burmese and others) is divided where a line may be broken. If the vocabulary has no spaces, and the script is
        one that has them, each piece is a word. What is longer than a subtitle (7 s or 84 columns) is divided as well.
        Joined by spaces where `Word.space_before` says so, the words are the text of `detokenize`, except for white
        space.

        A word starts at the frame of its first token, a space mark before it included, and ends where its last token
        ends, or where the next word starts. Punctuation takes no time: models predict it late, often after a pause.
        These are the times of NeMo 3.0.0. A token of RNN-T lasts a frame. If a token belongs to several words, they
        share its time by their numbers of characters.

        Parameters
        ----------
        frame_seconds:
            Duration of an encoder frame in seconds.
        confidence:
            How a word's confidence is computed from its tokens', if the hypothesis has `Hypothesis.token_confidence`.
            Otherwise it is the smallest probability among its tokens.

        Raises
        ------
        MissingDependencyError
            If the text has no spaces, and the package that divides it is not installed.
        """
        return [word for word, _ in self.words_and_tokens(hypothesis, frame_seconds, confidence)]

    def words_and_tokens(
        self,
        hypothesis: Hypothesis,
        frame_seconds: float,
        confidence: Confidence = Confidence(),
        previous_end: float | None = None,
    ) -> list[tuple[Word, slice]]:
        """`words`, each with the tokens that it is made of. Neighbours may share a token.

        Parameters
        ----------
        previous_end:
            Of a hypothesis that continues others: where the word before it ends, in seconds.
        """
        as_instance("hypothesis", hypothesis, Hypothesis, "a Hypothesis, as Decoder.decode returns them")
        frame_seconds = as_number("frame_seconds", frame_seconds, "seconds, above 0", above=0, high=sys.float_info.max)
        as_instance("confidence", confidence, Confidence, "Confidence(...)")
        segments = self._segments(hypothesis.tokens)
        # RNN-T has neither durations nor their log-probs.
        tdt = bool(np.any(hypothesis.durations) or np.any(hypothesis.duration_logprobs))
        before = None if previous_end is None else previous_end / frame_seconds
        times = token_times(segments, hypothesis.frames, hypothesis.durations, tdt, before)
        _, removed = self._joined(segments)
        found = []
        for span in spans(segments, times, removed, frame_seconds, self._has_spaces, before is not None):
            tokens = slice(span.first, span.last + 1)
            if hypothesis.token_confidence is not None:
                certainty = confidence.aggregate(hypothesis.token_confidence[tokens])
            else:
                certainty = math.exp(min(float(np.min(hypothesis.token_logprobs[tokens])), 0.0))
            start, end = span.start * frame_seconds, span.end * frame_seconds
            found.append((Word(span.text, start, end, certainty, span.spaced), tokens))
        return found

    def text(self, token: int) -> str | None:
        """The text of a token; None if it is none by itself: blank, an event, or bytes of UTF-8."""
        piece = self.pieces[token]
        if token == self.blank or token in self.events or _BYTES.fullmatch(piece):
            return None
        return UNKNOWN_SURFACE if piece == UNKNOWN else piece.replace(SPACE, " ")

    @cached_property
    def events(self) -> dict[int, str]:
        """The tokens that are no text, by id: ``<EOU>`` and ``<EOB>`` end utterances, ``<en-US>`` names a language."""
        return {
            i: piece[1:-1] for i, piece in enumerate(self.pieces) if i != self.blank and _EVENT.fullmatch(piece)
        }

    def language(self, tokens: Iterable[int]) -> str | None:
        """The last language that tokens name, such as "en-US"; None if they name none."""
        named = [event for token in tokens if (event := self.events.get(token)) and not event.startswith("EO")]
        return named[-1] if named else None

    @cached_property
    def _has_spaces(self) -> bool:
        return any(SPACE in piece or " " in piece for piece in self.pieces)

    @cached_property
    def _marks_ends(self) -> bool:
        """Whether the space is written where a word ends, so that each text would end with one."""
        return any(piece.endswith(SPACE) and piece != SPACE for piece in self.pieces)

    @cached_property
    def _marks(self) -> frozenset[str]:
        """The marks of punctuation of which NeMo speaks as supported (``extract_punctuation_from_vocab``)."""
        return frozenset(
            char
            for piece in self.pieces
            if not _SPECIAL.match(piece)
            for char in piece
            if unicodedata.category(char).startswith("P")
        )

    @cached_property
    def _space_before_mark(self) -> re.Pattern[str]:
        marks = "|".join(map(re.escape, sorted(self._marks)))
        return re.compile(rf"\s(?={marks})" if marks else r"(?!)")

    def _segments(self, tokens: Iterable[int]) -> list[Segment]:
        segments: list[Segment] = []
        # The bytes of one character may be spread over several pieces, and a piece may end within a character.
        characters = getincrementaldecoder("utf-8")("replace")
        began: int | None = None  # the token in which an unfinished character began
        i = -1
        for i, token in enumerate(tokens):
            if not 0 <= token < len(self.pieces):
                raise InputError(f"token id {token} is outside the vocabulary of {len(self.pieces)} entries")
            piece = self.pieces[token]
            if _BYTES.fullmatch(piece):
                text = characters.decode(bytes.fromhex(piece.replace("<0x", "").replace(">", "")))
                if text:
                    segments.append(Segment(text, i if began is None else began, i))
                    began = None
                if began is None and characters.getstate()[0]:
                    began = i
                continue
            if began is not None:
                segments.append(Segment(characters.decode(b"", final=True), began, i - 1))
                began = None
            if whole := self.text(token):
                segments.append(Segment(whole, i, i, whole.strip(" ") in self._marks, piece == " "))
        if began is not None:
            segments.append(Segment(characters.decode(b"", final=True), began, i))
        return segments

    def _joined(self, segments: list[Segment]) -> tuple[str, set[int]]:
        """The text of segments with all their spaces, and the indexes of those that are left out."""
        text = "".join(segment.text for segment in segments)
        return text, {match.start() for match in self._space_before_mark.finditer(text)}
