"""What a search may emit: which tokens are of a script, masks by utterance, and the rule in greedy and beam search.

`test_kernels`, `test_fused` and `test_beam` compare random masks in every kernel set and network.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tests import demo
from tests.conftest import RandomTransducer, random_frames
from tests.decoding.compare import check_same_hypotheses
from tests.decoding.fused_helpers import check_same_bits, fused, random_weights
from tests.decoding.test_beam import check_same

PIECES = {
    "<unk>": "common", "\u2581the": "latin", "\u2581": "common", "s": "latin", ",": "common", "5": "common",
    "5th": "latin", "don't": "latin", "\u00e9": "latin", "e\u0301": "latin", "\u0301": "common",
    "\u2581\u043c\u0438\u0440": "cyrillic",
    "\u03b1\u03b2": "greek", "a\u0431": "mixed", "\u65e5": "han", "\u3042": "hiragana", "\u30fc": "common",
    "\U0001f600": "common",
    "<EOU>": "none", "<en-US>": "none", "<0xD0>": "none",
}  # fmt: skip
"""Pieces, and the script that they are of; those that are no text by themselves are of none."""
VOCABULARY = Vocabulary((*PIECES, "<blk>"), len(PIECES))
SPEC = tdt.TransducerSpec(len(PIECES))


def allowed_by(allow):
    may = allow.tokens(SPEC, VOCABULARY)
    return {piece for piece, good in zip(PIECES, may) if good}


@pytest.mark.parametrize("scripts", [
    ("latin",), ("latin", "common"), ("LATIN", "Zyyy"), ("Latn", "cyrillic"), ("greek",), ("han", "hiragana", "common"),
    ("common",),
], ids=" ".join)  # fmt: skip
def test_tokens_of_scripts(scripts):
    names = {"latn": "latin", "zyyy": "common"}
    wanted = {names.get(name.lower(), name.lower()) for name in scripts} | {"none"}
    expected = {piece for piece, script in PIECES.items() if script in wanted}
    if {"latin", "cyrillic"} <= wanted:
        expected.add("a\u0431")
    assert allowed_by(tdt.Script(*scripts)) == expected


def test_tokens_of_lists():
    assert allowed_by(tdt.OnlyTokens([1, 3])) == {"\u2581the", "s"}
    assert allowed_by(tdt.ExceptTokens(np.array([1, 3]))) == PIECES.keys() - {"\u2581the", "s"}


def test_what_is_refused(monkeypatch):
    for wrong in ((), ("klingon",), (3,), ("latin}[",), ("",)):
        with pytest.raises(tdt.InputError, match="script"):
            tdt.Script(*wrong)
    for wrong in (3, "abc", [1.5], [-1]):
        with pytest.raises(tdt.InputError, match="ids"):
            tdt.OnlyTokens(wrong)
    decoder = RandomTransducer(SPEC, 0).decoder(SPEC, vocabulary=VOCABULARY)
    frames, _ = random_frames(2, 6, 4, 0)
    for allow, problem in (
        (tdt.OnlyTokens([30]), "there is no token 30; tokens are 0 to 21, except 21"),
        (tdt.ExceptTokens(range(21)), r"ExceptTokens\(21 tokens\) leaves no token"),
        ([tdt.OnlyTokens([1])], "given for 1 utterances, but there are 2"),
        ("latin", r"give tdtdecode.Script\('latin'\)"),
        (tdt.Script, "must be a Script"),
        ([3], r"allow\[0\] must be"),
    ):
        with pytest.raises(tdt.InputError, match=problem):
            decoder.decode(frames, search=tdt.Greedy(allow=allow))
    with pytest.raises(tdt.InputError, match="needs a vocabulary"):
        RandomTransducer(SPEC, 0).decoder(SPEC, search=tdt.Greedy(allow=tdt.Script("latin")))
    with pytest.raises(tdt.InputError, match="needs a vocabulary"):
        tdt.kernels.GreedySearch(SPEC, tdt.Greedy(allow=tdt.Script("latin")), [3])
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(tdt.MissingDependencyError, match=r"tdtdecode\[cpu\]"):
        tdt.Script("latin")


EVERY = [tdt.Greedy, tdt.Beam, lambda **more: tdt.Beam("malsd", **more),
         lambda **more: tdt.Greedy(confidence=tdt.Confidence(), **more)]  # fmt: skip


@pytest.mark.parametrize("made", EVERY, ids=["greedy", "tsd", "malsd", "confident"])
def test_each_utterance_has_its_own(kernels, made):
    spec = tdt.TransducerSpec(12, (0, 1, 2))
    model = RandomTransducer(spec, 4)
    frames, lengths = random_frames(5, model.encoder_size, 20, 4)
    few, others = tdt.OnlyTokens([0, 3, 5]), tdt.ExceptTokens([0, 3, 5])
    allow = [few, None, others, few, None]
    decoder = model.decoder(spec, kernels=kernels)
    found = decoder.decode(frames, lengths, made(allow=allow))
    for i, one in enumerate(allow):
        alone = decoder.decode(frames[i : i + 1], lengths[i : i + 1], made(allow=one))
        check_same(found[i : i + 1], alone, 0)
        for hypothesis in found[i].nbest:
            tokens = set(hypothesis.tokens.tolist())
            assert tokens <= {0, 3, 5} if one == few else not tokens & {0, 3, 5} if one == others else True
    assert sum(map(len, found)) > 10


@pytest.mark.parametrize("made", EVERY, ids=["greedy", "tsd", "malsd", "confident"])
def test_a_mask_that_allows_what_wins_changes_nothing(made):
    spec = tdt.TransducerSpec(12, (0, 1, 2))
    model = RandomTransducer(spec, 5)
    frames, lengths = random_frames(6, model.encoder_size, 20, 5)
    decoder = model.decoder(spec)
    plain = decoder.decode(frames, lengths, made())
    check_same(decoder.decode(frames, lengths, made(allow=tdt.OnlyTokens(range(12)))), plain, 0)


def test_a_token_is_replaced_and_no_word_is_deleted():
    """The predictor here does not look at tokens. So the same frames emit, whatever may be emitted."""
    spec = tdt.TransducerSpec(30, (0, 1, 2))
    model = RandomTransducer(spec, 6)
    model.embedding[:] = model.embedding[0]
    model.predict = lambda tokens, state: (model.embedding[tokens], model.embedding[tokens])
    frames, lengths = random_frames(8, model.encoder_size, 30, 6)
    decoder = model.decoder(spec)
    plain = decoder.decode(frames, lengths)
    masked = decoder.decode(frames, lengths, tdt.Greedy(allow=tdt.OnlyTokens(range(0, 30, 3))))
    changed = 0
    for a, b in zip(plain, masked):
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.durations, b.durations)
        same = a.tokens % 3 == 0
        np.testing.assert_array_equal(a.tokens[same], b.tokens[same])
        assert not (b.tokens % 3).any()
        assert (b.token_logprobs[~same] < a.token_logprobs[~same]).all()  # the network's: it thought them less likely
        changed += int((~same).sum())
    assert changed > 20


def test_screening_and_threads_change_nothing():
    spec = tdt.TransducerSpec(4200, encoder_size=12)
    weights = random_weights(spec, joint=64, seed=1)
    frames, lengths = random_frames(70, 12, 20, 4)
    allow = [None if i % 3 == 0 else tdt.OnlyTokens(range(i % 5, 4200, 7)) for i in range(70)]
    search = tdt.Greedy(allow=allow)
    decoder = fused(weights, spec)
    assert decoder.program.packed.screen is not None
    expected = decoder.decode(frames, lengths, search)
    check_same_bits(expected, fused(weights, spec, threads=3).decode(frames, lengths, search))
    alone = [decoder.decode(frames[i : i + 1], lengths[i : i + 1], tdt.Greedy(allow=allow[i]))[0] for i in range(8)]
    check_same_hypotheses(expected[:8], alone)
    assert sum(map(len, expected)) > 200


def test_whole_recordings_in_a_script():
    model = tdt.load_model("demo")
    recordings = [(samples, 16000) for samples, _ in list(demo.recordings().values())[:3]]
    plain = model.recognize(recordings)
    everything = tdt.Script("latin", "common")
    assert [out.text for out in model.recognize(recordings, tdt.Greedy(allow=everything))] == [o.text for o in plain]
    vocabulary = model.decoder.vocabulary
    with_s = [i for i in range(vocabulary.size) if "s" in vocabulary.pieces[i]]
    allow = [tdt.ExceptTokens(with_s), None, everything]
    found = model.recognize(recordings, tdt.Greedy(allow=allow), batch_size=2)
    assert "s" in plain[0].text and "s" not in found[0].text
    assert [out.text for out in found[1:]] == [out.text for out in plain[1:]]
