"""What a word is, in every script, and when it begins and ends; NeMo's functions are the oracle of punctuation."""

from __future__ import annotations

import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.segmentation import columns

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "words.json").read_text(encoding="utf-8"))
SECOND = 1 / 64
"""Seconds per frame: a power of two, so that frames come back exactly; short, so that no word is too long."""

needs_icu = pytest.mark.usefixtures("_icu")


@pytest.fixture
def _icu():
    pytest.importorskip("icu4py", reason="icu4py is not installed")


def hypothesis(tokens, frames=None, durations=None):
    """Tokens of 2 frames with pauses of 5 before them, if nothing else is said; RNN-T if durations is ()."""
    n = len(tokens)
    return tdt.Hypothesis(
        tokens=np.array(tokens, np.int32),
        frames=np.array([7 * i for i in range(n)] if frames is None else frames, np.int32),
        durations=np.array([2] * n if durations is None else durations or [0] * n, np.int32),
        token_logprobs=np.full(n, -0.1, np.float32),
        duration_logprobs=np.full(n, 0.0 if durations == () else -0.1, np.float32),
        score=0.0,
    )


def vocabulary(pieces):
    return Vocabulary((*pieces, "<blk>"), len(pieces))


def spoken(pieces, frames=None, durations=None, more=("▁the",), second=SECOND):
    """Words of pieces, each a token, as (text, first frame, end frame, space before)."""
    known = list(dict.fromkeys([*pieces, *more]))
    words = vocabulary(known).words(hypothesis([known.index(piece) for piece in pieces], frames, durations), second)
    return [(word.text, word.start / second, word.end / second, word.space_before) for word in words]


def texts(pieces, more=("▁the",)):
    return [text for text, *_ in spoken(pieces, more=more)]


# As NeMo has it


@pytest.mark.parametrize("name", [part["name"] for part in GOLDEN["vocabularies"]])
@needs_icu
def test_texts_and_times_are_nemos(name):
    (part,) = (part for part in GOLDEN["vocabularies"] if part["name"] == name)
    pieces = part["pieces"]
    words_of = vocabulary(pieces)
    alike = 0
    for case in part["cases"]:
        found = hypothesis(case["tokens"], case["frames"], case.get("durations", ()))
        what = [pieces[token] for token in case["tokens"]]
        assert words_of.detokenize(found.tokens) == case["text"].lstrip(" "), what
        ours = joined(words_of.words(found, SECOND))
        theirs, as_nemo = words_of_nemos_text(case)
        assert [word[:2] for word in ours] == [word[:2] for word in theirs], what
        if as_nemo:
            assert ours == theirs, what
        alike += as_nemo
    # The others hold a mark or "..." with a space of its own, of which NeMo makes a word where its text has none.
    assert alike >= 0.9 * len(part["cases"])


def joined(words):
    """Words as [text, first frame, end frame], those that no space separates as one."""
    found = []
    for word in words:
        if word.space_before:
            found.append([word.text, word.start / SECOND, word.end / SECOND])
        else:
            found[-1] = [found[-1][0] + word.text, found[-1][1], word.end / SECOND]
    return found


def words_of_nemos_text(case):
    """NeMo's words, those that its own text joins as one, and whether there are none."""
    rest = case["text"]
    found = []
    spaced = True
    for text, start, end in case["words"]:
        spaced = spaced or rest.startswith(" ")
        rest = rest.lstrip(" ")
        visible = ""
        for char in text:
            # Its text lacks the space before a mark, its words do not.
            if char != " ":
                assert rest.startswith(char)
                visible, rest = visible + char, rest[1:]
        if spaced and visible:
            found.append([visible, start, end])
        elif visible:
            found[-1][0] += visible
        spaced = spaced and not visible
    return found, len(found) == sum(bool(text.strip()) for text, *_ in case["words"])


def test_the_golden_results_say_where_they_come_from():
    assert GOLDEN["versions"]["nemo_toolkit"] == "3.0.0" and GOLDEN["versions"]["sentencepiece"]


# Punctuation


def test_punctuation_takes_no_time():
    assert spoken(["▁hello", ",", "▁how"], [0, 9, 13], [4, 4, 2]) == [
        ("hello,", 0, 4, True), ("how", 13, 15, True)]  # fmt: skip
    assert spoken(["▁he", "llo", "?", "!"], [0, 2, 20, 30], [2, 2, 4, 4]) == [("hello?!", 0, 4, True)]
    assert spoken(["你", "好", "。"], [0, 2, 20], [2, 2, 4])[-1][:3] == ("好。", 2, 4)


@pytest.mark.parametrize(("pieces", "text"), [
    (["▁hello", "▁", ",", "▁how"], "hello, how"),
    (["▁hello", "▁,", "▁how", "."], "hello, how."),
    (["▁hello", "▁", "?", "!", "▁"], "hello?! "),
    (["h", "o", " ", ",", " ", "h"], "ho, h"),
])  # fmt: skip
def test_no_space_before_punctuation(pieces, text):
    known = [*dict.fromkeys([*pieces, ","])]
    tokens = [known.index(piece) for piece in pieces]
    assert vocabulary(known).detokenize(tokens) == text
    assert texts(pieces, more=known) == text.split()


def test_a_pause_before_punctuation_stays_a_pause():
    assert spoken(["▁hello", "▁", ",", "▁how"]) == [("hello,", 0, 2, True), ("how", 21, 23, True)]


def test_marks_that_the_vocabulary_has_only_with_a_space_keep_it():
    pieces = ["▁the", "▁-", "▁the"]
    assert texts(pieces) == ["the", "-", "the"]
    assert texts(pieces, more=["-"]) == ["the-", "the"]


# Times


def test_words_do_not_overlap():
    # A token of duration 0, with the next word at the same frame.
    assert spoken(["▁li", "ke", "▁in"], [50, 60, 60], [4, 0, 3]) == [
        ("like", 50, 60, True), ("in", 60, 63, True)]  # fmt: skip
    assert spoken(["▁a", "▁the"], [5, 5], [0, 2]) == [("a", 5, 5, True), ("the", 5, 7, True)]
    # RNN-T: several tokens at a frame, each of one frame.
    assert spoken(["▁a", "▁the"], [5, 5], ()) == [("a", 5, 5, True), ("the", 5, 6, True)]
    assert spoken(["▁a", "▁the"], [5, 6], ()) == [("a", 5, 6, True), ("the", 6, 7, True)]


def test_words_of_one_piece_share_its_time():
    assert spoken(["▁of▁the", "m"], [0, 10], [10, 2]) == [("of", 0, 4, True), ("them", 4, 12, True)]


def test_what_cannot_be_divided_ends_in_time():
    # RNN-T, where punctuation keeps its time as in NeMo; and a token with an absurd duration.
    assert spoken(["▁so", "."], [0, 600], (), second=0.0625) == [("so.", 0, 112, True)]
    assert spoken(["▁so", "▁the"], [0, 600], [600, 2], second=0.0625)[0] == ("so", 0, 112, True)


def test_a_character_of_bytes_has_the_time_of_its_own_tokens():
    pieces = ["▁", *(f"<0x{byte:02X}>" for byte in "私は".encode()), "▁the"]
    assert spoken(pieces)[:2] == [("私", 0, 23, True), ("は", 28, 44, False)]
    # The second piece ends the first character and begins the second.
    pieces = ["▁", "<0xE7><0xA7>", "<0x81><0xE3>", "<0x81><0xAF>", "▁the"]
    assert [word[:3] for word in spoken(pieces)] == [("私", 0, 14), ("は", 14, 23), ("the", 28, 30)]


# Scripts without spaces


@needs_icu
@pytest.mark.parametrize(("text", "words"), [
    ("私は学生です。はい！", "私 は 学 生 で す。 は い！"),
    ("「はい」と", "「は い」 と"),
    ("きゃっとー", "きゃっ とー"),  # no small kana and no long mark at a start
    ("iPhoneを2024年", "iPhone を 2024 年"),
    ("ｱｲﾊﾟ", "ｱ ｲ ﾊﾟ"),  # half-width, with a mark
    ("か\u3099く", "か\u3099 く"),  # a combining mark
    ("我们，好", "我 们， 好"),
    ("𠮷野😀家", "𠮷 野 😀 家"),  # beyond 16 bits
    ("ผมเป็นนักเรียน",
     "ผม เป็น นักเรียน"),
    ("ຂ້ອຍເປັນ", "ຂ້ອຍ ເປັນ"),
    ("ខ្ញុំជា", "ខ្ញុំ ជា"),
    ("ကျွန်တော်ကျောင်းသား",
     "ကျွန်တော် ကျောင်းသား"),
])  # fmt: skip
def test_scripts_without_spaces(text, words):
    words = words.split(" ")
    # As characters, as one piece, and within a vocabulary that has no space.
    assert texts(["▁", *text]) == words
    assert texts(["▁" + text]) == words
    assert texts(list(text), more=()) == words
    # As bytes, of which each piece is a part of a character.
    parts = [f"<0x{byte:02X}>" for byte in text.encode()]
    assert texts(["▁", *parts], more=["▁the", *parts]) == words
    # As bytes in twos, so that pieces end within characters.
    twos = [piece + (following or "") for piece, following in itertools.zip_longest(parts[::2], parts[1::2])]
    assert texts(["▁", *twos], more=["▁the", *twos]) == words
    found = spoken(["▁", *text])
    assert [spaced for *_, spaced in found] == [True] + [False] * (len(words) - 1)
    assert all(end <= start for (_, _, end, _), (_, start, _, _) in itertools.pairwise(found))


@pytest.mark.parametrize("text", [
    "well-known", "don't", "http://a.example/b?c=d", "안녕하세요", "대韓은",
    "नमस्ते", "مرحبا", "na\u0308ive", "👩\u200d👩\u200d👧",
    "hello😀", "Donaudampfschifffahrtsgesellschaftskapitänsmütze", "🇩🇪", "��",
])  # fmt: skip
def test_scripts_with_spaces_are_not_divided(text):
    assert texts(["▁", *text]) == [text]
    assert texts(["▁" + text, "▁" + text]) == [text, text]


def test_a_vocabulary_without_spaces():
    assert texts(["he", "llo", "!", "e\u0301"], more=()) == ["he", "llo!", "e\u0301"]
    assert texts(["he", "\u0301llo"], more=()) == ["he\u0301llo"]  # no word begins with an accent


@needs_icu
def test_a_recording_in_japanese_has_short_words():
    kana = [chr(code) for code in range(0x3042, 0x3094)]
    pieces = ["▁", *kana]
    tokens = [1 + (i * 7) % len(kana) for i in range(1080)]
    words = vocabulary(pieces).words(hypothesis(tokens, range(0, 2160, 2), [2] * 1080), 0.08)
    assert len(words) > 500
    assert max(columns(word.text) for word in words) <= 12 and max(word.end - word.start for word in words) <= 1.0
    assert "".join(word.text for word in words) == "".join(pieces[token] for token in tokens)


@pytest.mark.parametrize("piece", ["ha", ".", "ー", "ก์", "😀", "e\u0301", "ß"])
@pytest.mark.parametrize("duration", [0, 1])
@needs_icu
def test_no_word_is_longer_than_a_subtitle(piece, duration):
    pieces = ["▁" + piece] + [piece] * 600
    words = spoken(pieces, [i * duration for i in range(601)], [duration] * 600 + [1], second=0.08)
    assert "".join(word[0] for word in words) == piece * 601
    for text, start, end, _ in words:
        assert columns(text) <= 84 and (end - start) * 0.08 <= 7.0 + 1e-9
        assert not unicodedata.combining(text[0])
    assert [spaced for *_, spaced in words][1:] == [False] * (len(words) - 1)


def test_a_word_with_a_long_pause_in_it_is_divided_there():
    assert spoken(["▁hel", "lo", ",", "▁the"], [0, 500, 510, 520], [3, 3, 1, 1], second=0.08) == [
        ("hel", 0, 3, True), ("lo,", 500, 503, False), ("the", 520, 521, True)]  # fmt: skip


@needs_icu
def test_words_make_up_the_text():
    from hypothesis import given
    from hypothesis import strategies as st

    pieces = [
        "<unk>", "▁", "▁he", "llo", ",", ".", "▁...", "'", "▁of▁the", "<0xE3>", "<0x81>", "<0x82>",
        "あ", "▁你好", "。", "「", "ผม", "\u0301", "안", "😀", "\ud800", "<blk>",
    ]  # fmt: skip
    words_of = Vocabulary(tuple(pieces), len(pieces) - 1)
    token = st.tuples(st.integers(0, len(pieces) - 1), st.sampled_from([0, 0, 1, 4]), st.sampled_from([0, 0, 1, 90]))

    @given(st.lists(token, max_size=14), st.booleans())
    def any_tokens(drawn, rnnt):
        tokens = [token for token, *_ in drawn]
        durations = [duration for _, duration, _ in drawn]
        frames = [0, *itertools.accumulate(duration + pause for _, duration, pause in drawn)][: len(drawn)]
        words = words_of.words(hypothesis(tokens, frames, () if rnnt else durations), 0.08)
        together = "".join(" " * word.space_before + word.text for word in words)
        assert together.split() == words_of.detokenize(tokens).split()
        assert all(word.text and word.text == "".join(word.text.split()) for word in words)
        assert all(0 <= word.start <= word.end and 0 < word.confidence <= 1 for word in words)
        assert all(word.end <= following.start for word, following in itertools.pairwise(words))

    any_tokens()


def test_without_icu_only_text_that_needs_it_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "icu4py.breakers", None)
    assert texts(["▁hello", ",", "▁naïve"]) == ["hello,", "naïve"]
    with pytest.raises(tdt.MissingDependencyError, match=r"icu4py.*tdtdecode\[cpu\]"):
        texts(["▁", "あ", "い"])
