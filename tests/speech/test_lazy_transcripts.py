"""Transcripts make their words and alternatives when they are looked at; otherwise they are as any other."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading

import numpy as np
import pytest

from tdtdecode.hypothesis import Hypothesis, Transcript, Word


def hypothesis():
    integers, numbers = np.zeros(2, np.int32), np.zeros(2, np.float32)
    return Hypothesis(integers, integers, integers, numbers, numbers, 0.0)


class Made:
    def __init__(self):
        self.words = self.alternatives = 0

    def transcript(self):
        def words():
            self.words += 1
            return [Word("a", 0.0, 0.5, 1.0), Word("b", 0.5, 1.0, 0.5)]

        def alternatives():
            self.alternatives += 1
            return [Transcript("c", [], 2.0)]

        return Transcript.lazy("a b", 2.0, hypothesis(), "en-US", words=words, alternatives=alternatives)


@pytest.fixture
def made():
    return Made()


def check_all_there(out):
    assert type(out) is Transcript and isinstance(out.hypothesis, Hypothesis)
    assert (out.text, out.duration, [word.text for word in out.words]) == ("a b", 2.0, ["a", "b"])
    assert [other.text for other in out.alternatives] == ["c"]
    assert (out.language, out.segments) == ("en-US", None)


def test_made_once_when_looked_at(made):
    out = made.transcript()
    assert (out.text, out.duration) == ("a b", 2.0) and (made.words, made.alternatives) == (0, 0)
    assert out.words is out.words and (made.words, made.alternatives) == (1, 0)
    check_all_there(out)
    assert (made.words, made.alternatives) == (1, 1)
    assert repr(out) == repr(Transcript("a b", out.words, 2.0, out.hypothesis, out.alternatives))


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("copied", [
    lambda out: pickle.loads(pickle.dumps(out)), copy.copy, copy.deepcopy,
    lambda out: dataclasses.replace(out, hypothesis=hypothesis()),
])  # fmt: skip
def test_copies_are_whole(made, copied, looked_at):
    """The functions that make the words refer to the model: no copy takes them along."""
    out = made.transcript()
    assert not looked_at or out.words
    again = copied(out)
    check_all_there(again)
    assert set(vars(again)) == {field.name for field in dataclasses.fields(Transcript)}
    assert dataclasses.asdict(again).keys() == vars(again).keys()


def test_equality_is_identity_and_nothing_can_be_set(made):
    out, other = made.transcript(), made.transcript()
    assert out == out and out != other and hash(out) == hash(out)
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.words = []
    with pytest.raises(AttributeError, match="'Transcript' object has no attribute 'word'"):
        out.word
    with pytest.raises(AttributeError):
        Transcript("a").word


def test_threads_get_the_same_words():
    both = threading.Barrier(4)

    def words():
        both.wait()  # all of them make the words
        return [Word("a", 0.0, 1.0, 1.0)]

    out = Transcript.lazy("a", 1.0, hypothesis(), None, words=words, alternatives=list)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(out.words)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(words) for words in seen}) == 1 and seen[0] is out.words
