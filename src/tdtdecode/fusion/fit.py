"""Whether a language model and a vocabulary belong together: how much of each the other knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, LanguageModelWarning
from ..forks import cached_property
from .spelling import SPACE, Speller

UNITS = ("pieces", "nemo")
NEMO_OFFSET = 100

_MOST, _HALF = 0.9, 0.5
"""What a good fit needs: most words are tokens. Half of the tokens are words if the others share the probability of
<unk>; most of them if the others are impossible."""
_WORDS_TRIED = 100_000
_WORDS_SPELT = 200


@dataclass(frozen=True)
class Tokens:
    """The tokens of a vocabulary as words of a language model.

    Attributes
    ----------
    units:
        What the words are: ``"pieces"``, as in the token file, or ``"nemo"``, where ``chr(i + 100)`` is token i.
    pieces:
        The V + 1 entries of the token file; None if there is none.
    blank, entries:
        Id of blank; V + 1.
    """

    units: str
    pieces: tuple[str, ...] | None
    blank: int
    entries: int

    @cached_property
    def ids(self) -> dict[str, tuple[int, ...]]:
        """The tokens of each word: several where a piece stands twice in the vocabulary."""
        found: dict[str, tuple[int, ...]] = {}
        for i, token in enumerate(self.all):
            word = chr(i + NEMO_OFFSET) if self.pieces is None or self.units == "nemo" else self.pieces[token]
            found[word] = (*found.get(word, ()), token)
        return found

    @property
    def all(self) -> list[int]:
        """All tokens but blank."""
        return [token for token in range(self.entries) if token != self.blank]

    @property
    def ordinary(self) -> list[int]:
        """The tokens that text is made of: not ``<unk>``, bytes or marks of languages; all where only these are left.
        """
        if self.pieces is None:
            return self.all
        found = [token for token in self.all if not (self.pieces[token][:1] == "<" and self.pieces[token][-1:] == ">")]
        return found or self.all


@dataclass(frozen=True)
class Fit:
    """How a language model's words and a vocabulary's tokens meet.

    Attributes
    ----------
    words, words_known:
        The model's words, without ``<s>``, ``</s>`` and ``<unk>``; how many of them are tokens.
    tokens, tokens_known:
        The vocabulary's tokens, without blank and special ones; how many of them are words of the model.
    has_unknown:
        Whether the model gives ``<unk>`` a probability.
    better, better_share:
        Other units that fit more of the words, and the share of the words that they fit; empty and 0 if there are none.
    """

    words: int
    words_known: int
    tokens: int
    tokens_known: int
    has_unknown: bool
    better: str = ""
    better_share: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the language model suits the vocabulary."""
        words, tokens = self._shares
        return words >= _MOST and tokens >= (_HALF if self.has_unknown else _MOST)

    @property
    def _shares(self) -> tuple[float, float]:
        return self.words_known / max(self.words, 1), self.tokens_known / max(self.tokens, 1)

    def require(self, path: Path, units: str) -> None:
        """Refuse a language model that cannot be meant for the vocabulary.

        Raises
        ------
        InputError
            If none of its words is a token, if both shares are small, or if other units fit all of its words.
        """
        words, tokens = self._shares
        if not self.words_known:
            raise InputError(
                f"{path}: none of its words is a token of this model. units='pieces' expects tokens spelt as in the "
                f"model's token file, units='nemo' the characters that NeMo writes for them{self._hint}"
            )
        if (words < _HALF and tokens < _HALF) or (words < _MOST and self.better_share == 1):
            raise InputError(f"{path}: a language model of other units or another vocabulary: {self._said(units)}")

    def warn(self, path: Path, units: str) -> None:
        """Warn of a language model that hardly fits the vocabulary."""
        if not self.is_good:
            rest = "are impossible: it gives <unk> no probability"
            if self.has_unknown:
                rest = "share the probability of <unk>"
            warnings.warn(
                f"{path}: a doubtful language model: {self._said(units)}. Tokens that it does not know {rest}",
                LanguageModelWarning, stacklevel=2,
            )  # fmt: skip

    def _said(self, units: str) -> str:
        words, tokens = self._shares
        return (
            f"with units={units!r}, {self.words_known:,} of its {self.words:,} words ({words:.1%}) are tokens, and it "
            f"knows {self.tokens_known:,} of the model's {self.tokens:,} tokens ({tokens:.1%}){self._hint}"
        )

    @property
    def _hint(self) -> str:
        if not self.better:
            return ""
        return f"; {self.better_share:.0%} of its words fit if they are read as {self.better}"


def measured(words: Sequence[str], has_unknown: bool, tokens: Tokens) -> Fit:
    """How a language model's words, without its special ones, fit a vocabulary's tokens."""
    known = {token for word in words for token in tokens.ids.get(word, ())}
    ordinary = tokens.ordinary
    fit = Fit(
        len(words), sum(word in tokens.ids for word in words), len(ordinary), len(known.intersection(ordinary)),
        has_unknown,
    )  # fmt: skip
    if fit.is_good or not words:
        return fit
    better, share = _other_units(words[:: -(-len(words) // _WORDS_TRIED)], tokens)
    return replace(fit, better=better, better_share=share) if share > fit.words_known / fit.words else fit


def _other_units(words: Sequence[str], tokens: Tokens) -> tuple[str, float]:
    """The units that fit most of the words, and the share of the words that they fit."""
    readings: dict[str, tuple[Callable[[str], str], Collection[str]]] = {
        "ids of tokens": (str, set(map(str, tokens.all))),
        "units='nemo'": (str, replace(tokens, units="nemo").ids),
    }
    if tokens.pieces is not None:
        pieces = replace(tokens, units="pieces").ids
        readings |= {
            "units='pieces'": (str, pieces),
            f"pieces with 'Ġ' for {SPACE!r}": (lambda word: word.replace("Ġ", SPACE), pieces),
            f"pieces with '_' for {SPACE!r}": (lambda word: word.replace("_", SPACE), pieces),
            "pieces with '##' where no word begins": (_of_word_piece, pieces),
            "pieces in lower case": (str.lower, pieces),
            "pieces in upper case": (str.upper, pieces),
        }
    shares = {name: sum(f(word) in known for word in words) / len(words) for name, (f, known) in readings.items()}
    if tokens.pieces is not None:
        shares["whole words, which must be split into pieces before training"] = _whole_words(words, tokens)
    best = max(shares, key=shares.__getitem__)
    return best, shares[best]


def _of_word_piece(word: str) -> str:
    return word[2:] if word.startswith("##") else SPACE + word


def _whole_words(words: Sequence[str], tokens: Tokens) -> float:
    """The share of words that are whole ones: without a space mark, and spelt by pieces with one."""
    assert tokens.pieces is not None
    speller = Speller(tokens.pieces, tokens.blank)
    tried = words[:: -(-len(words) // _WORDS_SPELT)]
    return sum(SPACE not in word and speller.begins_a_word(word) for word in tried) / len(tried)
