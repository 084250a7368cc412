"""The words of a stream are those of the whole, whatever the script."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.confidence import Confidence
from tdtdecode.speech.streaming.wording import Wording

pytest.importorskip("icu4py", reason="icu4py is not installed")


def hypothesis(tokens, first=0):
    n = len(tokens)
    return tdt.Hypothesis(
        np.array(tokens, np.int32), np.arange(7 * first, 7 * (first + n), 7, dtype=np.int32), np.full(n, 2, np.int32),
        np.full(n, -0.1, np.float32), np.full(n, -0.1, np.float32), 0.0,
    )  # fmt: skip


@pytest.mark.parametrize("pieces", [
    ["▁hel", "lo", ",", "▁how", "▁are", "▁you", "?", "▁", "fi", "ne", "."],
    ["▁of▁the", "m", "▁of▁the", "▁of▁the"],  # a token of two words
    ["▁", "私", "は", "学生", "です", "。", "「", "はい", "」", "iPhone", "を"],
    ["私", "は", "。", "学生", "です"],
    ["你好", "，", "<0xE4>", "<0xBD>", "<0xA0>", "好", "▁hello"],
    list("ผมเป็นนักเรียนไทยครับวันนี้อากาศดีมากเราจะไปเที่ยวทะเลกัน"),
    list("เรากินข้าวที่มหาวิทยาลัยกรุงเทพอยู่ประเทศไทยโรงเรียนมากสวัสดี"),
    list("ຂ້ອຍເປັນນັກຮຽນລາວຢູ່ວຽງຈັນມື້ນີ້ອາກາດດີຫຼາຍ"),
    list("ខ្ញុំជាសិស្សនៅភ្នំពេញថ្ងៃនេះអាកាសធាតុល្អណាស់"),
    list("ကျွန်တော်ကျောင်းသားပါဒီနေ့ရာသီဥတုကောင်းတယ်"),
    ["▁say", "“", "hello", "”", "▁now", "▁“", "é", "\u0301", "”"],
])  # fmt: skip
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_settled_words_are_those_of_the_whole(pieces, at_once):
    known = [*dict.fromkeys(pieces)]
    vocabulary = Vocabulary((*known, "<blk>"), len(known))
    tokens = [known.index(piece) for piece in pieces]
    wording = Wording(SimpleNamespace(vocabulary=vocabulary, frame_seconds=0.0625), Confidence())
    settled = []
    for start in range(0, len(tokens), at_once):
        wording.add(hypothesis(tokens[start : start + at_once], start))
        settled += wording.settle(ended=start + at_once >= len(tokens), seconds=float("inf"))
    assert settled == wording.words == vocabulary.words(hypothesis(tokens), 0.0625)


def test_what_continues_a_word_after_the_end_of_an_utterance_has_no_space_before_it():
    vocabulary = Vocabulary(("▁hel", "lo", "▁you", "<blk>"), 3)
    wording = Wording(SimpleNamespace(vocabulary=vocabulary, frame_seconds=0.0625), Confidence())
    for i, token in enumerate([0, 1, 2]):
        wording.add(hypothesis([token], i))
        wording.settle(ended=True, seconds=float("inf"))
    assert [(word.text, word.space_before) for word in wording.words] == [("hel", True), ("lo", False), ("you", True)]
