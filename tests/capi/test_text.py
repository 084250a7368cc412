"""Text, words and their times are those of the package, but for scripts without spaces."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import Vocabulary
from tests.capi.models import model_of
from tools import unicode_tables

SPACE = "\u2581"
PIECES = [
    SPACE, f"{SPACE}the", "the", "s", "t", "'", "-", ".", ",", "?", "!", f"{SPACE}.", f"{SPACE}...", "a,b", f"{SPACE}é",
    "e\u0301", "ü", "ß", "<unk>", "<0xE2>", "<0x82>", "<0xAC>", "<0xF0><0x9F>", "<0xFF>", "<0xC3>", "<0x20>", "<0x61>",
    "<EOU>", "<en-US>", "<x>", "[noise]", "##", "", " ", "\u00a0", "a b", f"a{SPACE}b", f"end{SPACE}", "\u00bf",
    "\u201c", f"{SPACE}\u201d", "\U0001f44d", "\U0001f3fd", "\u200d", "0", "12", f"{SPACE}7", "\u2026", "$",
    "한", "국", "\u0640",
]  # fmt: skip


def random_hypothesis(rng, vocabulary: Vocabulary, tdt_model: bool, slow: bool) -> tdt.Hypothesis:
    count = int(rng.integers(0, 40))
    tokens = rng.integers(0, len(vocabulary), count).astype(np.int32)
    durations = rng.integers(0, 5, count) if tdt_model else np.zeros(count, int)
    steps = durations + (rng.random(count) < 0.3) * rng.integers(0, 120 if slow else 9, count)
    frames = np.concatenate([[0], np.cumsum(steps)[:-1]])[:count]
    logprobs = -rng.random((2, count)) if tdt_model else np.stack([-rng.random(count), np.zeros(count)])
    return tdt.Hypothesis(
        tokens, frames.astype(np.int32), durations.astype(np.int32), *logprobs.astype(np.float32), 0.0,
        rng.random(count).astype(np.float32) if rng.random() < 0.5 else None,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_words(seed):
    """Random pieces, tokens and times, with everything that pieces can be."""
    rng = np.random.default_rng(seed)
    pieces = [str(piece) for piece in rng.permutation(PIECES)[: rng.integers(8, len(PIECES) + 1)]]
    if seed % 4 == 3:
        pieces = [piece for piece in pieces if SPACE not in piece and " " not in piece]  # a vocabulary without spaces
    vocabulary = Vocabulary((*pieces, "<blk>"), len(pieces))
    model = model_of(vocabulary.pieces, vocabulary.blank)
    for _ in range(150):
        hypothesis = random_hypothesis(rng, vocabulary, rng.random() < 0.8, rng.random() < 0.2)
        previous = float(rng.random()) if rng.random() < 0.3 else None
        aggregation = int(rng.integers(3))
        confidence = tdt.Confidence(aggregation=("min", "mean", "prod")[aggregation])
        text, words = model.text(hypothesis, aggregation, previous)
        assert text == vocabulary.detokenize(hypothesis.tokens)
        expected = vocabulary.words_and_tokens(hypothesis, 0.08, confidence, previous)
        assert [word.text for word, _ in words] == [word.text for word, _ in expected]
        for (a, tokens), (b, others) in zip(expected, words, strict=True):
            assert (tokens, a.space_before) == (others, b.space_before)
            assert (a.start, a.end, a.confidence) == pytest.approx((b.start, b.end, b.confidence), abs=1e-6)


def test_scripts_without_spaces():
    """Words are divided between tokens there, and punctuation stays with its word."""
    model = model_of(("今", "天", "。", f"{SPACE}ok", "天气", "<blk>"), 5)
    tokens = np.array([0, 1, 4, 2, 3], np.int32)
    frames, durations = np.arange(0, 10, 2, dtype=np.int32), np.full(5, 2, np.int32)
    zeros = np.zeros(5, np.float32)
    text, words = model.text(tdt.Hypothesis(tokens, frames, durations, zeros, zeros - 1, 0.0))
    assert text == "今天天气。 ok"
    assert [word.text for word, _ in words] == ["今", "天", "天气。", "ok"]


def test_tables_of_characters():
    """They are what tools/unicode_tables.py makes, with the Unicode version that they name."""
    text = unicode_tables.TABLES.read_text(encoding="utf-8")
    if f"// Unicode {unicodedata.unidata_version}.\n" not in text:
        pytest.skip("this Python has another version of Unicode")
    assert text == unicode_tables.header()
