"""The errors of recognised recordings."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..evaluation import NORMALIZERS, Errors, Part, aligned, characters_of, words_of
from .kinds import Entry
from .manifests import Manifest

_FREQUENT = 20
"""How many of the most frequent errors are listed."""


@dataclass(frozen=True)
class Scored:
    """A recording and its errors.

    Attributes
    ----------
    entry:
        The recording.
    words, characters:
        Its errors.
    parts:
        Where those in words are.
    """

    entry: Entry
    words: Errors
    characters: Errors
    parts: list[Part]


@dataclass
class Evaluation:
    """The errors of a file of results.

    Attributes
    ----------
    name:
        The file.
    normalizer:
        What was applied to both texts, a name in `NORMALIZERS`.
    scored:
        The recordings that could be compared, in the file's order.
    failed, without_text, without_reference, not_normalized:
        The numbers of the lines of those that could not: they were not transcribed, hold no recognised text, or no
        reference, or the normaliser failed.
    """

    name: str
    normalizer: str
    scored: list[Scored] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    without_text: list[int] = field(default_factory=list)
    without_reference: list[int] = field(default_factory=list)
    not_normalized: list[int] = field(default_factory=list)

    @property
    def left_out(self) -> dict[str, list[int]]:
        """Why recordings are not compared -> the numbers of their lines."""
        found = {
            "not transcribed": self.failed, "without pred_text": self.without_text,
            "without a text to compare with": self.without_reference, "not normalised": self.not_normalized,
        }  # fmt: skip
        return {why: lines for why, lines in found.items() if lines}

    @property
    def words(self) -> Errors:
        return sum((one.words for one in self.scored), Errors())

    @property
    def characters(self) -> Errors:
        return sum((one.characters for one in self.scored), Errors())

    @property
    def without_errors(self) -> int:
        """How many recordings have none."""
        return sum(not one.words.edits for one in self.scored)

    @property
    def seconds(self) -> float | None:
        """The length of the recordings; None if the file does not state that of each."""
        lengths = [one.entry.seconds for one in self.scored if one.entry.seconds is not None]
        return sum(lengths) if len(lengths) == len(self.scored) else None

    def worst(self, most: int) -> list[Scored]:
        """The recordings with errors, those of the highest rate first."""
        found = [one for one in self.scored if one.words.edits]
        return sorted(found, key=lambda one: (-one.words.rate, -one.words.edits))[:most]

    def frequent(self) -> dict[str, list[tuple[str, str, int]]]:
        """The most frequent errors of each kind: what was said, what was recognised, how often."""
        counts: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in ("substitute", "insert", "delete")}
        for one in self.scored:
            for part in one.parts:
                if part.kind == "substitute":
                    counts[part.kind].update(zip(part.reference, part.hypothesis))
                elif part.kind == "insert":
                    counts[part.kind].update(("", word) for word in part.hypothesis)
                elif part.kind == "delete":
                    counts[part.kind].update((word, "") for word in part.reference)
        return {
            kind: [(*pair, count) for pair, count in counter.most_common(_FREQUENT)] for kind, counter in counts.items()
        }

    def as_json(self, worst: int) -> dict[str, Any]:
        """All figures as JSON values. A rate that is infinite becomes null."""
        return {
            "file": self.name, "normalizer": self.normalizer, "recordings": len(self.scored),
            "seconds": None if self.seconds is None else round(self.seconds, 3), "without_errors": self.without_errors,
            "left_out": self.left_out,
            "words": _counts(self.words), "characters": _counts(self.characters),
            "frequent": self.frequent(),
            "worst": [
                {"line": one.entry.line, "name": one.entry.name, "reference": one.entry.reference,
                 "pred_text": one.entry.prediction, "words": _counts(one.words),
                 "characters": _counts(one.characters)}
                for one in self.worst(worst)
            ],
        }  # fmt: skip


def evaluate(results: Manifest, normalizer: str = "none") -> Evaluation:
    """Compare the recognised texts of a manifest with its references.

    Texts are compared as they are, but for white space and for the form of Unicode's characters; a normaliser is
    applied to both before. Over all recordings, edits and lengths are summed: long recordings count more. A recording
    in which nothing is said counts with its insertions.

    Parameters
    ----------
    results:
        A file of results, or any manifest that has both texts.
    normalizer:
        A name in `NORMALIZERS`.

    Raises
    ------
    MissingDependencyError
        If jiwer, or the normaliser's package, is not installed.
    """
    normalized = NORMALIZERS[normalizer]()
    found = Evaluation(results.name, normalizer)
    for entry in results:
        prediction, reference = entry.prediction, entry.reference
        if entry.error is not None:
            found.failed.append(entry.line)
        elif prediction is None:
            found.without_text.append(entry.line)
        elif reference is None:
            found.without_reference.append(entry.line)
        else:
            try:
                texts = normalized(reference), normalized(prediction)
            except Exception:  # Whisper's normaliser fails on some numbers
                found.not_normalized.append(entry.line)
                continue
            words, parts = aligned(words_of(texts[0]), words_of(texts[1]))
            characters, _ = aligned(characters_of(texts[0]), characters_of(texts[1]))
            found.scored.append(Scored(entry, words, characters, parts))
    return found


def _counts(errors: Errors) -> dict[str, Any]:
    rate = errors.rate
    return {
        "rate": rate if math.isfinite(rate) else None, "edits": errors.edits, "length": errors.length,
        "substitutions": errors.substitutions, "insertions": errors.insertions, "deletions": errors.deletions,
    }  # fmt: skip
