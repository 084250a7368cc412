"""Pieces to text and words."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary

PIECES = (
    "<unk>", "\u2581he", "llo", "\u2581", "\u2581world", "<0xE2>", "<0x82>", "<0xAC>", "\u2581of\u2581the", ".", "<blk>"
)
VOCABULARY = Vocabulary(PIECES, blank=10)


def hypothesis(tokens, durations=None, logprobs=None) -> tdt.Hypothesis:
    n = len(tokens)
    return tdt.Hypothesis(
        tokens=np.array(tokens, np.int32),
        frames=np.arange(0, 2 * n, 2, dtype=np.int32),
        durations=np.array([2] * n if durations is None else durations, np.int32),
        token_logprobs=np.array([-0.1] * n if logprobs is None else logprobs, np.float32),
        duration_logprobs=np.zeros(n, np.float32),
        score=0.0,
    )


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], ""),
        ([1, 2, 4], "hello world"),
        ([2, 4], "llo world"),
        ([3, 1, 2], "hello"),
        ([1, 2, 3, 2], "hello llo"),
        ([1, 0, 4], "he\u2047 world"),
        ([3, 5, 6, 7, 4], "\u20ac world"),
        ([5, 4], "\ufffd world"),
        ([5, 6, 1], "\ufffd he"),
        ([8, 4, 9], "of the world."),
        ([1, 10, 2], "hello"),
    ],
)
def test_detokenize(tokens, text):
    assert VOCABULARY.detokenize(tokens) == text
    assert VOCABULARY.detokenize(np.array(tokens, np.int32)) == text


@pytest.mark.parametrize("token", [-1, 11])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(tdt.InputError, match="outside the vocabulary|at least 0"):
        VOCABULARY.detokenize([token])


def test_words_have_times_and_confidence():
    words = VOCABULARY.words(hypothesis([1, 2, 4], logprobs=[-0.1, -0.7, -0.2]), frame_seconds=0.08)
    assert [word.text for word in words] == ["hello", "world"]
    assert [(word.start, word.end) for word in words] == [(0.0, pytest.approx(0.32)), (pytest.approx(0.32), 0.48)]
    assert words[0].confidence == pytest.approx(math.exp(-0.7), rel=1e-5)
    assert words[1].confidence == pytest.approx(math.exp(-0.2), rel=1e-5)


def test_a_token_without_duration_lasts_a_frame():
    (word,) = VOCABULARY.words(hypothesis([1, 2], durations=[0, 0]), 1.0)
    assert (word.start, word.end) == (0.0, 3.0)


def test_a_lone_space_starts_the_word_that_follows():
    words = VOCABULARY.words(hypothesis([3, 2, 3, 3, 9, 3]), 1.0)
    assert [(word.text, word.start, word.end) for word in words] == [("llo", 0.0, 4.0), (".", 6.0, 8.0)]


def test_a_piece_of_two_words_gives_two():
    words = VOCABULARY.words(hypothesis([8, 2]), 1.0)
    assert [(word.text, word.start, word.end) for word in words] == [("of", 0.0, 0.8), ("thello", 0.8, 4.0)]


def test_without_spaces_each_character_is_a_word():
    vocabulary = Vocabulary(("\u4f60", "\u597d", "<blk>"), blank=2)
    words = vocabulary.words(hypothesis([0, 1]), 1.0)
    assert [word.text for word in words] == ["\u4f60", "\u597d"]
    assert vocabulary.detokenize([0, 1]) == "\u4f60\u597d"


def test_characters_with_a_space_symbol():
    vocabulary = Vocabulary((" ", "a", "b", "<blk>"), blank=3)
    words = vocabulary.words(hypothesis([1, 2, 0, 2]), 1.0)
    assert [(word.text, word.start) for word in words] == [("ab", 0.0), ("b", 6.0)]  # the space itself is in no word
    assert vocabulary.detokenize([1, 2, 0, 2]) == "ab b"


def test_words_make_up_the_text():
    from hypothesis import given
    from hypothesis import strategies as st

    @given(st.lists(st.integers(0, len(PIECES) - 1), max_size=12))
    def any_tokens(tokens):
        words = VOCABULARY.words(hypothesis(tokens), 0.08)
        assert " ".join(word.text for word in words).split() == VOCABULARY.detokenize(tokens).split()
        assert all(word.text and " " not in word.text for word in words)
        assert all(0 <= word.start <= word.end and 0 < word.confidence <= 1 for word in words)
        assert [word.start for word in words] == sorted(word.start for word in words)

    any_tokens()
