"""Comparing token sequences, and texts with what was said."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .optional import needed
from .segmentation import clusters


def edit_distance(reference: Sequence[Any], other: Sequence[Any]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein distance)."""
    row = list(range(len(other) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(other, 1):
            diagonal, row[j] = row[j], min(diagonal + (expected != found), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@dataclass(frozen=True)
class Errors:
    """The fewest edits that turn references into hypotheses.

    Attributes
    ----------
    substitutions, insertions, deletions:
        Units of the hypotheses in place of others, units beside the reference's, and units of the reference that lack.
    length:
        The units of the references.
    """

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    length: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.substitutions + other.substitutions, self.insertions + other.insertions,
            self.deletions + other.deletions, self.length + other.length,
        )  # fmt: skip

    @property
    def edits(self) -> int:
        """All of them."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits for each unit of the references. Where these are empty: 0 without edits, else infinity."""
        return self.edits / self.length if self.length else math.inf if self.edits else 0.0


@dataclass(frozen=True)
class Part:
    """A part of an alignment.

    Attributes
    ----------
    kind:
        ``"equal"``, ``"substitute"``, ``"insert"`` or ``"delete"``.
    reference, hypothesis:
        The units on either side; of an insertion or a deletion, those of one side alone.
    """

    kind: str
    reference: list[str]
    hypothesis: list[str]


def words_of(text: str) -> list[str]:
    """The words of a text, as white space divides it. Characters are composed (NFC), so that equal ones are equal."""
    return unicodedata.normalize("NFC", text).split()


def characters_of(text: str) -> list[str]:
    """The characters that people see (grapheme clusters, UAX #29), with one space between words."""
    text = " ".join(words_of(text))
    return [text[a:b] for a, b in pairwise([0, *clusters(text), len(text)])] if text else []


def aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Errors, list[Part]]:
    """The errors of a hypothesis, and where they are.

    Parameters
    ----------
    reference, hypothesis:
        Units: words, or characters.

    Raises
    ------
    MissingDependencyError
        If jiwer is not installed.
    """
    with needed("jiwer", "evaluate", "comparing texts"):
        import jiwer
    units = jiwer.ReduceToListOfListOfWords(word_delimiter=_BETWEEN)
    found = jiwer.process_words([_BETWEEN.join(reference)], [_BETWEEN.join(hypothesis)], units, units)
    parts = [
        Part(
            chunk.type, list(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            list(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in found.alignments[0]
    ]  # fmt: skip
    return Errors(found.substitutions, found.insertions, found.deletions, len(reference)), parts


_BETWEEN = "\n"
"""What stands between units for jiwer. No unit holds white space, but for the space alone."""


def _whisper() -> Callable[[str], str]:
    with needed("whisper_normalizer", "evaluate", "Whisper's normaliser"):
        from whisper_normalizer.english import EnglishTextNormalizer
    return EnglishTextNormalizer()


def _whisper_basic() -> Callable[[str], str]:
    with needed("whisper_normalizer", "evaluate", "Whisper's normaliser"):
        from whisper_normalizer.basic import BasicTextNormalizer
    return BasicTextNormalizer()


NORMALIZERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "none": lambda: str, "whisper": _whisper, "whisper-basic": _whisper_basic,
}  # fmt: skip
"""Name -> what makes the function that is applied to both texts. Whisper's are for English, and for other languages."""
