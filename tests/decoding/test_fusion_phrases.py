"""Boosted phrases: their automaton compared with its definition and with NeMo's tree, how text is spelt, lists for each
utterance. And scoring functions."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import pickle
import sys
import time
import warnings
from functools import partial

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import Vocabulary
from tdtdecode.fusion.spelling import MAX_SPELLINGS, Speller
from tests.conftest import RandomTransducer, random_frames
from tests.decoding.test_beam import Rows

SPEC = tdt.TransducerSpec(vocab_size=8)
PIECES = ("\u2581new", "\u2581", "new", "\u2581y", "york", "or", "k", "y", "s", "<blk>")


def scored(boost, tokens, vocab_size=50):
    """The score of each token of a sequence."""
    automaton = boost.automaton(vocab_size, vocab_size, None)
    state, found = int(automaton.start[0]), []
    for token in tokens:
        everything = automaton.scores(state, vocab_size + 1)
        score, state = automaton.step(state, token)
        assert score == pytest.approx(everything[token], abs=1e-5)
        found.append(score)
    return found


def test_the_rule_by_example():
    boost = tdt.PhraseBoost([[1, 2, 3], [1, 2, 4], [3]], weight=1.0, depth_scaling=1.0)
    assert scored(boost, [1, 2, 3, 2, 1]) == pytest.approx([1, 1.6931, 2.0986, 0, 1], abs=1e-4)
    assert scored(boost, [3, 1, 2, 1]) == pytest.approx([1, 1, 1.6931, -1.6931], abs=1e-4)


def test_phrases_of_their_own_weight():
    boost = tdt.PhraseBoost([([1, 2], 3.0), [1, 3]], weight=1.0, depth_scaling=1.0)
    assert scored(boost, [1, 2]) == pytest.approx([3, 3 * (1 + math.log(2))])
    assert scored(boost, [1, 3]) == pytest.approx([3, 1 + math.log(2)])


def definition(phrases, tokens, context_score, depth_scaling):
    """The scores by definition: the trie is a set of prefixes, without back-off links."""
    def arc(prefix):
        return context_score if len(prefix) == 1 else context_score * depth_scaling + math.log(len(prefix))

    prefixes = {tuple(phrase[: i + 1]) for phrase in phrases for i in range(len(phrase))}
    complete = {tuple(phrase) for phrase in phrases}

    def total(prefix):
        return sum(arc(prefix[: i + 1]) for i in range(len(prefix)))

    at, found = (), []
    for token in tokens:
        score = 0.0
        while True:
            if (*at, token) in prefixes:
                at = (*at, token)
                score += arc(at)
                break
            if not at:
                break
            shorter = next(at[i:] for i in range(1, len(at) + 1) if at[i:] in prefixes or i == len(at))
            score += 0.0 if at in complete else total(shorter) - total(at)
            at = shorter
        found.append(score)
    return found


def test_scores_are_the_definitions():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        phrases = [rng.integers(0, 4, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, 9))]
        context_score, depth_scaling = rng.uniform(0.5, 2), rng.uniform(0.5, 3)
        tokens = rng.integers(0, 4, 40).tolist()
        boost = tdt.PhraseBoost(phrases, 1.0, context_score=context_score, depth_scaling=depth_scaling)
        assert scored(boost, tokens) == pytest.approx(
            definition(phrases, tokens, context_score, depth_scaling), abs=1e-4
        )


def test_scores_are_nemos():
    tree = pytest.importorskip(
        "nemo.collections.asr.parts.context_biasing.boosting_graph_batched", reason="NeMo is not installed"
    )
    import torch
    from nemo.collections.asr.parts.context_biasing.context_graph_universal import ContextGraph

    for seed in range(20):
        rng = np.random.default_rng(seed)
        phrases = [rng.integers(0, 5, rng.integers(1, 6)).tolist() for _ in range(6)]
        graph = ContextGraph(context_score=1.0, depth_scaling=2.0)
        graph.build(token_ids=phrases)
        nemo = tree.GPUBoostingTreeModel.from_context_graph(
            context_graph=graph, vocab_size=50, unk_score=0.0, final_eos_score=0.0, use_triton=False,
            uniform_weights=False,
        )  # fmt: skip
        tokens, states, expected = rng.integers(0, 5, 30).tolist(), nemo.get_init_states(1, bos=True), []
        for token in tokens:
            scores, following = nemo.advance(states)
            expected.append(float(scores[0, token]))
            states = torch.tensor([following[0, token]])
        assert scored(tdt.PhraseBoost(phrases, 1.0), tokens) == pytest.approx(expected, abs=1e-4)


def test_ending_inside_a_phrase_takes_its_scores_back():
    automaton = tdt.PhraseBoost([[1, 2, 3], [1]], 1.0).automaton(5, 5, None)
    states = [automaton.step(0, 1)[1]]
    for token in (2, 3):
        states.append(automaton.step(states[-1], token)[1])
    assert automaton.final_weight[states].tolist() == pytest.approx([0, -(2 + math.log(2)), 0])


def test_text_is_spelt_by_the_vocabulary():
    speller = Speller(PIECES, blank=9)
    spelt = ["|".join(PIECES[token] for token in tokens) for tokens in speller.spellings("new york")]
    assert spelt == [
        "\u2581new|\u2581y|or|k", "\u2581new|\u2581|york", "\u2581|new|\u2581y|or|k", "\u2581|new|\u2581|york",
    ]  # fmt: skip
    assert speller.spellings(" new  york ") == speller.spellings("new york")
    with pytest.raises(tdt.InputError, match="the phrase 'new zork' cannot be spelt .* none fits at 'zork'"):
        speller.spellings("new zork")
    boost = tdt.PhraseBoost(["new york", ("new", 2.0)], 0.5)
    automaton = boost.automaton(9, 9, PIECES)
    assert automaton.step(0, 0)[0] == 2.0 and automaton.step(0, 4)[0] == 0
    assert boost.automaton(9, 9, PIECES) is automaton  # compiled once
    with pytest.raises(tdt.InputError, match="'new york' needs a decoder with a vocabulary: give its token ids"):
        boost.automaton(9, 9, None)


def test_bytes_spell_what_no_piece_has():
    pieces = ("\u2581a", "b", *(f"<0x{value:02X}>" for value in range(256)), "<blk>")
    tokens = Speller(pieces, 258).spellings("aéb")
    assert tokens == [[0, 2 + 0xC3, 2 + 0xA9, 1]]


def test_a_vocabulary_without_spaces():
    assert Speller(("東", "京", "東京", "<blk>"), 3).spellings("東京 東") == [[2, 0], [0, 1, 0]]


def test_byte_pair_encoding_comes_first():
    """The first spelling merges pieces in the order of their ids, even if another spelling is shorter."""
    assert Speller(("bc", "ab", "cd", "a", "b", "c", "d", "<blk>"), 7).spellings("abcd")[:2] == [[3, 0, 6], [1, 2]]
    assert Speller(("ab", "abc", "a", "b", "c", "d", "cd", "<blk>"), 7).spellings("abcd")[:2] == [[1, 5], [0, 6]]


def test_spellings_stay_few():
    pieces = [a * n for a in "ab" for n in range(1, 5)]
    found = Speller([*pieces, "<blk>"], 8).spellings("aaaaaaaa bbbbbbbb aaaabbbb" * 3)
    assert 0 < len(found) <= MAX_SPELLINGS


def test_thousands_of_phrases():
    rng = np.random.default_rng(0)
    phrases = [rng.integers(0, 1024, rng.integers(1, 12)).tolist() for _ in range(20_000)]
    started = time.perf_counter()
    automaton = tdt.PhraseBoost(phrases, 0.5).automaton(1024, 1024, None)
    print(f"{len(automaton)} states in {time.perf_counter() - started:.1f} s")
    automaton.check(1025)
    state = 0
    for token in phrases[777]:
        score, state = automaton.step(state, token)
        assert score > 0


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ("new york", "phrases must be a list"),
        ({"new york": 2.0}, "phrases must be a list of phrases, perhaps of .phrase, weight., got"),
        ([""], "a phrase must not be empty"),
        (["  "], "a phrase must not be empty"),
        ([[]], "a phrase must not be empty"),
        ([3], "a phrase must be text or a list of token ids"),
        ([[1.5]], "must be an integer"),
        ([[-1]], "must be at least 0"),
        ([("a", 0)], "weight of the phrase 'a' must be a positive number"),
        ([("a", math.nan)], "must be a positive number"),
    ],
)
def test_phrases_are_checked(phrases, message):
    with pytest.raises(tdt.InputError, match=message):
        tdt.PhraseBoost(phrases, 1.0)


def test_tokens_that_do_not_exist():
    for phrase in ([9], [0, 8]):
        with pytest.raises(tdt.InputError, match="has token [89]; tokens are 0 to 8, except 8"):
            tdt.PhraseBoost([phrase], 1.0).automaton(8, 8, None)


def boosted(kernels, fusion, **options):
    model = RandomTransducer(SPEC, 11)
    frames, lengths = random_frames(6, model.encoder_size, 20, 11)
    decoder = model.decoder(SPEC, kernels=kernels)
    return decoder.decode(frames, lengths, search=tdt.Beam(fusion=fusion, **options))


@pytest.mark.parametrize("strategy", ["tsd", "malsd"])
def test_phrases_for_each_utterance(kernels, strategy):
    lists = [[[1, 2]], [], [[3, 4, 5]], [[1, 2]], [], [[7]]]
    found = boosted(kernels, [tdt.PhraseBoost.per_row(lists, 2.0)], strategy=strategy)
    for i, phrases in enumerate(lists):
        alone = boosted(kernels, [tdt.PhraseBoost(phrases, 2.0)], strategy=strategy)[i]
        assert [h.tokens.tolist() for h in found[i].nbest] == [h.tokens.tolist() for h in alone.nbest]
        assert [h.score for h in found[i].nbest] == [h.score for h in alone.nbest]


def test_lists_for_no_utterances():
    none = tdt.PhraseBoost.per_row([], 1.0)
    decoder = RandomTransducer(SPEC, 0).decoder(SPEC, search=tdt.Beam(fusion=[none]))
    assert decoder.decode(np.empty((0, 6, 4), np.float32)) == []


def test_lists_for_another_batch():
    with pytest.raises(tdt.InputError, match="phrases or tokens are given for 2 utterances, but there are 6"):
        boosted("cpu", [tdt.PhraseBoost.per_row([[[1]], [[2]]], 1.0)])


def test_boosts_steer_and_do_not_leak(kernels):
    """A strong boost changes tokens. Log-probs stay those of the model; the score includes the boost."""
    plain = boosted(kernels, [])
    strong = boosted(kernels, [tdt.PhraseBoost([[1, 2, 1, 2, 1, 2]], 8.0)])
    assert [h.tokens.tolist() for h in plain] != [h.tokens.tolist() for h in strong]
    model = RandomTransducer(SPEC, 11)
    frames, lengths = random_frames(6, model.encoder_size, 20, 11)
    for i, result in enumerate(strong):
        rows = Rows(model, SPEC, frames[i, :, : lengths[i]])
        for hypothesis in result.nbest:
            tokens = tuple(hypothesis.tokens.tolist())
            for at, token in enumerate(tokens):
                logprobs, timing = rows.row(tokens[:at], int(hypothesis.frames[at]))
                assert hypothesis.token_logprobs[at] == pytest.approx(logprobs[token], abs=1e-4)
                assert hypothesis.duration_logprobs[at] == pytest.approx(timing[hypothesis.durations[at]], abs=1e-4)
    assert [h.score for h in boosted(kernels, [tdt.PhraseBoost([[1]], 0.0)])] == [h.score for h in plain]


def repeats(state, out):
    if state[0] >= 0:
        out[state[0]] = -np.inf


def remember(state, token, following):
    following[0] = token


NO_REPEATS = tdt.ScoringFunction(repeats, remember, start=[-1])


@pytest.mark.parametrize("search", [tdt.Greedy, tdt.Beam, lambda fusion: tdt.Beam(strategy="malsd", fusion=fusion)],
                         ids=["greedy", "tsd", "malsd"])  # fmt: skip
def test_a_scoring_function(kernels, search):
    model = RandomTransducer(SPEC, 5)
    frames, lengths = random_frames(6, model.encoder_size, 30, 5)
    decoder = model.decoder(SPEC, kernels=kernels)
    found = decoder.decode(frames, lengths, search=search(fusion=[NO_REPEATS]))
    assert sum(map(len, found)) > 10
    plain = decoder.decode(frames, lengths, search=search(fusion=[]))
    assert any((np.diff(h.tokens) == 0).any() for h in plain)
    for result in found:
        for hypothesis in result.nbest:
            assert not (np.diff(hypothesis.tokens) == 0).any()


def nan_after_two(state, out):
    if state[0] >= 2:
        out[3] = np.nan


def infinite(state, out):
    out[3] = np.inf


def raising(state, out):
    if state[0] >= 1:
        raise ValueError("no more")


def counting(state, token, following):
    following[0] = state[0] + 1


def failing(state, token, following):
    raise ValueError("cannot go on")


# Each is compiled once, for all kernels.
FAILING = [
    (tdt.ScoringFunction(scores, advance, start=[0], weight=0.5), message)
    for scores, advance, message in (
        (nan_after_two, counting, "scores of the scoring function .*nan_after_two.*gave token 3 a score that is NaN"),
        (infinite, counting, "gave token 3 a score that is NaN or infinite"),
        (raising, counting, r"called with state \[1\], raised ValueError: no more"),
        (repeats, failing, "advance of the scoring function .*repeats.*raised ValueError: cannot go on"),
    )
]


@pytest.mark.xdist_group("scoring functions")  # compiled in one process alone
def test_a_scoring_function_that_fails(kernels):
    for function, message in FAILING:
        with pytest.raises(tdt.InputError, match=message):
            boosted(kernels, [function])


def test_scoring_functions_are_checked():
    with pytest.raises(tdt.InputError, match="scores must be a function"):
        tdt.ScoringFunction(None, remember)
    with pytest.raises(tdt.InputError, match="start must have at least one integer"):
        tdt.ScoringFunction(repeats, remember, start=[])
    with pytest.raises(tdt.InputError, match="weight must be a finite number"):
        tdt.ScoringFunction(repeats, remember, weight=math.inf)
    with pytest.raises(tdt.InputError, match="Numba cannot compile the scoring function"):
        boosted("cpu", [tdt.ScoringFunction(lambda state, out: open("x"), remember)])


def both(state, out):
    out[1] += 1.5
    if state[0] >= 0:
        out[state[0]] += -2.0


def first(state, out):
    out[1] = 0.75


def second(state, out):
    if state[0] >= 0:
        out[state[0]] = -4.0


BOTH = tdt.ScoringFunction(both, remember, [-1])
FIRST = tdt.ScoringFunction(first, remember, [-1], 2.0)
SECOND = tdt.ScoringFunction(second, remember, [-1], 0.5)


@pytest.mark.xdist_group("scoring functions")
def test_fusions_add_up(kernels):
    """Two weighted fusions are the same as one that is their sum."""
    one, two = boosted(kernels, [BOTH]), boosted(kernels, [FIRST, SECOND])
    for a, b in zip(one, two, strict=True):
        assert [h.tokens.tolist() for h in a.nbest] == [h.tokens.tolist() for h in b.nbest]
        assert [h.score for h in a.nbest] == pytest.approx([h.score for h in b.nbest], abs=1e-5)


SPACE = "\u2581"
LETTERS = (" ", *"abcdefghijklmnopqrstuvwxyz'", "<blk>")


def spelt(pieces, text, **options):
    """All spellings of a text, pieces joined by |; ^ where only an utterance's begin fits."""
    speller = Speller(pieces, len(pieces) - 1, **options)
    return ["|".join("^" if token < 0 else pieces[token] for token in tokens) for tokens in speller.spellings(text)]


def totals(boost, pieces, *sentences):
    """What each sentence, a list of tokens, gets in all, the end counted in."""
    automaton = boost.automaton(len(pieces) - 1, len(pieces) - 1, pieces)
    automaton.check(len(pieces))
    found = []
    for tokens in sentences:
        state, total = int(automaton.start[0]), 0.0
        for token in tokens:
            score, state = automaton.step(state, token)
            total += score
        found.append(total + float(automaton.final_weight[state]))
    return found


def letters(text):
    return [LETTERS.index(letter) for letter in text]


def test_characters_as_pieces():
    """The first word of an utterance has no space before it; elsewhere a phrase does not begin inside a word."""
    assert spelt(LETTERS, "art") == [" |a|r|t", "^|a|r|t"]
    boost = tdt.PhraseBoost(["art", "an art"], 1.0)
    first, later, inside, two, other = totals(
        boost, LETTERS, letters("art"), letters("the art"), letters("start"), letters("so an art"), letters("arm")
    )
    assert first == pytest.approx(1 + 2 + math.log(2) + 2 + math.log(3))
    assert later == pytest.approx(first + 2 + math.log(4)) and two > later
    assert inside == other == 0
    assert totals(boost, LETTERS, [], letters("a"), letters("an a")) == pytest.approx([0, 0, 0])


def test_characters_as_pieces_in_any_search():
    """The begin of an utterance is boosted in a decoder, whole and in chunks, and row by row."""
    spec = tdt.TransducerSpec(vocab_size=28, durations=(1,))
    model = RandomTransducer(spec, 4)
    frames, lengths = random_frames(3, model.encoder_size, 12, 4)
    lengths[:] = 12
    vocabulary = Vocabulary(LETTERS, 28)
    decoder = tdt.Decoder(
        tdt.CallableNetwork(model.predict, model.joint, model.select), spec=spec, vocabulary=vocabulary
    )
    lists = [["quiz"], [], ["jazz"]]
    for make in (tdt.Greedy, tdt.Beam, partial(tdt.Beam, strategy="malsd", pruning_mode="late")):
        search = make(fusion=[tdt.PhraseBoost.per_row(lists, 50.0)], blank_penalty=50.0)
        texts = [decoder.detokenize(h.tokens) for h in decoder.decode(frames, lengths, search=search)]
        assert texts[0].startswith("quiz") and texts[2].startswith("jazz")
        assert not texts[1].startswith(("quiz", "jazz"))
        state, streamed = None, [""] * 3
        for start in range(0, 12, 5):
            part = frames[:, :, start : start + 5]
            news, state = decoder.decode_chunk(part, [part.shape[2]] * 3, state, final=start == 10, search=search)
            streamed = [text + decoder.detokenize(h.tokens) for text, h in zip(streamed, news)]
        assert [text.replace(" ", "")[:4] for text in streamed][::2] == ["quiz", "jazz"]


@pytest.mark.parametrize(("pieces", "text", "expected"), [
    ((SPACE, "東", "京", "a", "<blk>"), "東京", [f"{SPACE}|東|京", "東|京"]),
    ((f"{SPACE}東", "東", "京", "東京", "<blk>"), "東京", [f"{SPACE}東|京", "東京", "東|京"]),
    ((SPACE, "東", "京", "a", "b", "<blk>"), "東京 ab", [
        f"{SPACE}|東|京|{SPACE}|a|b", f"東|京|{SPACE}|a|b", f"{SPACE}|東|京|a|b", "東|京|a|b",
    ]),
    ((SPACE, "ก", "า", "<blk>"), "กา", [f"{SPACE}|ก|า", "ก|า"]),
    ((SPACE, "a", "b", "<blk>"), "ab", [f"{SPACE}|a|b", "^|a|b"]),
    ((f"{SPACE}a", SPACE, "a", "b", "<blk>"), "ab", [f"{SPACE}a|b", f"{SPACE}|a|b"]),
])  # fmt: skip
def test_words_without_a_space_before_them(pieces, text, expected):
    assert sorted(spelt(pieces, text)) == sorted(expected)


# Two vocabularies in one, as an aggregate tokenizer has them: each merges in its own order.
AGGREGATE = (
    "<unk>", f"{SPACE}t", "h", "e", "he", f"{SPACE}the", "o", "r", "<unk>", "e", "o", "to", "ro", f"{SPACE}t", "r",
    "or", f"{SPACE}to", f"{SPACE}tor", "<blk>",
)  # fmt: skip


def test_pieces_that_stand_twice():
    boost = tdt.PhraseBoost(["tor"], 1.0)
    whole, english, spanish, mixed, other = totals(
        boost, AGGREGATE, [17], [1, 6, 7], [13, 10, 14], [1, 10, 7], [1, 6, 2]
    )
    assert whole == 1 and english == spanish == mixed == pytest.approx(1 + 2 + math.log(2) + 2 + math.log(3))
    assert other == 0
    # What one tokenizer needs is spelt, however few pieces another needs.
    found = spelt(("<unk>", f"{SPACE}abcd", "<unk>", f"{SPACE}a", *"bcd", "cd", "<blk>"), "abcd")
    assert sorted(found) == sorted([f"{SPACE}abcd", f"{SPACE}a|b|cd", f"{SPACE}a|b|c|d"])
    # Token ids mean what they say, and what is the same text.
    assert totals(tdt.PhraseBoost([[1, 6]], 1.0), AGGREGATE, [13, 10], [1, 10], [1, 7]) == pytest.approx(
        [3 + math.log(2)] * 2 + [0]
    )


def test_two_equal_pieces():
    pieces = ("a", "b", "a", "c", "<blk>")
    assert totals(tdt.PhraseBoost(["aba"], 1.0), pieces, [0, 1, 0], [2, 1, 2], [0, 1, 2], [2, 1, 3]) == pytest.approx(
        [5 + math.log(6)] * 3 + [0]
    )


def test_a_vocabulary_of_one_piece_over_and_over():
    pieces = (*["a"] * 5000, "<blk>")
    assert totals(tdt.PhraseBoost(["aa"], 1.0), pieces, [0, 4999], [17, 3]) == pytest.approx([3 + math.log(2)] * 2)


CASED = (
    f"{SPACE}T", f"{SPACE}t", "or", "on", "to", "OR", "ON", "TO", "O", "o", "i", "P", "p", "N", f"{SPACE}i", "hone",
    "h", "ne", "<blk>",
)  # fmt: skip


def test_ignoring_case():
    def tokens(*pieces):
        return [CASED.index(piece) for piece in pieces]

    ways = [
        tokens(first, *others)
        for first in (f"{SPACE}T", f"{SPACE}t")
        for others in (("or", "on", "to"), ("OR", "ON", "TO"), ("OR", "on", "TO"))
    ]
    for given in ("toronto", "Toronto", "TORONTO", "tOrOnTo"):
        boosted = totals(tdt.PhraseBoost([given], 1.0, ignore_case=True), CASED, *ways)
        assert boosted == pytest.approx([boosted[0]] * 6) and boosted[0] > 0
    as_given = totals(tdt.PhraseBoost(["Toronto"], 1.0), CASED, *ways)
    assert as_given[0] > 0 and as_given[1:] == [0] * 5
    iphone = tokens(f"{SPACE}i", "P", "hone")
    assert totals(tdt.PhraseBoost(["iphone"], 1.0, ignore_case=True), CASED, iphone)[0] > 0
    by_row = tdt.PhraseBoost.per_row([["toronto"], []], 1.0, ignore_case=True).select([0])
    assert totals(by_row, CASED, ways[0])[0] > 0
    with pytest.raises(tdt.InputError, match="ignore_case must be True or False"):
        tdt.PhraseBoost(["a"], 1.0, ignore_case=1)


def test_a_model_without_capitals():
    with pytest.raises(tdt.InputError, match="'Art' cannot be spelt.*1 can in another case: ignore_case=True"):
        tdt.PhraseBoost(["Art"], 1.0).automaton(28, 28, LETTERS)
    assert totals(tdt.PhraseBoost(["Art"], 1.0, ignore_case=True), LETTERS, letters("art"))[0] > 0


def test_text_as_word_processors_write_it():
    for text in ("o\u2019clock", "o'clock", "\uff4f'clock"):
        assert spelt(LETTERS, text)[0] == " |o|'|c|l|o|c|k"
    assert spelt(("\u2581caf\u00e9", "<blk>"), "cafe\u0301") == ["\u2581caf\u00e9"]
    as_it_stands = spelt(("\u2581e", "\u0301", "\u00e9", "<blk>"), "e\u0301")
    assert as_it_stands == ["\u2581e|\u0301"]


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    assert all(warning.category is tdt.PhraseWarning for warning in found)
    return result, [str(warning.message) for warning in found]


def test_phrases_that_cannot_be_spelt(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("new york\r\n\r\ncovid-19\r\n york\t2.5\r\nZürich\r\n".encode("utf-8-sig"))
    boost = tdt.PhraseBoost.from_file(path, 0.5)
    automaton, messages = caught(lambda: boost.automaton(9, 9, PIECES))
    assert messages == [
        f"{path}: 2 of 4 phrases cannot be spelt with the model's pieces: "
        "line 3, 'covid-19' (none fits at 'covid-19'); line 5, 'Zürich' (none fits at 'Zürich'); left out"
    ]
    expected = tdt.PhraseBoost(["new york", ("york", 2.5)], 0.5).automaton(9, 9, PIECES)
    np.testing.assert_array_equal(automaton.arc_weight, expected.arc_weight)
    assert caught(lambda: boost.automaton(9, 9, PIECES))[1] == []  # said once
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(tdt.PhraseWarning, match="line 3.*line 5"):
            tdt.PhraseBoost.from_file(path, 0.5).automaton(9, 9, PIECES)


def test_lists_of_which_something_is_left(tmp_path):
    _, messages = caught(lambda: tdt.PhraseBoost(["new", "19", "2x"], 1.0).automaton(9, 9, PIECES))
    assert messages[0].startswith("2 of 3 phrases cannot be spelt with the model's pieces: '19' (none fits at ")
    _, messages = caught(lambda: tdt.PhraseBoost(["new", "19"], 1.0).automaton(9, 9, PIECES))
    assert messages == ["the phrase '19' cannot be spelt with the model's pieces: none fits at '19'; left out"]
    _, messages = caught(lambda: tdt.PhraseBoost.per_row([["19"], ["new"], []], 1.0).automaton(9, 9, PIECES))
    assert len(messages) == 1 and "'19'" in messages[0]
    automaton, messages = caught(lambda: tdt.PhraseBoost.per_row([["19"]], 1.0).automaton(9, 9, PIECES))
    assert len(messages) == 1 and len(automaton.arc_token) == 0
    assert caught(lambda: tdt.PhraseBoost(["new york"], 1.0).automaton(9, 9, PIECES))[1] == []


def test_lists_of_which_nothing_is_left(tmp_path):
    (tmp_path / "names.txt").write_text("19\n2x\n")
    for boost in (tdt.PhraseBoost(["19", "2x"], 1.0), tdt.PhraseBoost.from_file(tmp_path / "names.txt", 1.0)):
        with pytest.raises(tdt.InputError, match="2 of 2 phrases cannot be spelt.*'19'.*'2x'"):
            boost.automaton(9, 9, PIECES)
    (tmp_path / "names.txt").write_text("\n \n")
    assert len(tdt.PhraseBoost.from_file(tmp_path / "names.txt", 1.0).automaton(9, 9, PIECES)) == 1


@pytest.mark.parametrize(("content", "message"), [
    (b"new\nyork\tmuch\n", "line 2: expected a number after the tab, got 'much'"),
    (b"new\nyork\t-1\n", "line 2: the weight of the phrase 'york' must be a positive number"),
    (b"new\nyork\t1e308\n", "line 2: the weight of the phrase 'york' must be a positive number of at most 1e.06"),
    (b"new\n" + b"a" * 1001, "line 2: a phrase may have 1,000 characters at most"),
    (b"new\n\xff\n", "line 2: is not UTF-8 text"),
    (b"PK\x03\x04\0\0", "is a zip archive or an office document, not a list of phrases"),
    (b"new\0\n", "is not text"),
    (b"{\\rtf1\\ansi new}", "is an RTF document"),
])  # fmt: skip
def test_files_that_are_no_lists(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(tdt.InputError, match=message) as error:
        tdt.PhraseBoost.from_file(tmp_path / "names.txt", 1.0)
    assert "names.txt" in str(error.value)


def test_lists_in_other_encodings_and_compressed(tmp_path):
    for content in ("new\nyork".encode("utf-16"), gzip.compress(b"new\nyork\n"), b"new\r\nyork"):
        (tmp_path / "names.txt").write_bytes(content)
        assert tdt.PhraseBoost.from_file(tmp_path / "names.txt", 1.0).phrases == ["new", "york"]


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_lists_from_pipes(tmp_path, monkeypatch):
    """One that a shell has opened is read; one that lies in a folder would be waited for."""
    os.mkfifo(tmp_path / "names.txt")
    for path in (tmp_path / "names.txt", "/dev/zero", tmp_path, tmp_path / "absent"):
        with pytest.raises(tdt.InputError, match="cannot be read"):
            tdt.PhraseBoost.from_file(path, 1.0)
    reader, writer = os.pipe()
    os.write(writer, b"new\nyork\t2\n")
    os.close(writer)
    assert tdt.PhraseBoost.from_file(f"/dev/fd/{reader}", 1.0).phrases == ["new", ("york", 2.0)]
    os.close(reader)
    monkeypatch.setattr("tdtdecode.fusion.phrases.MAX_FILE", 100)
    for content in (b"new\n" * 26, gzip.compress(b"new\n" * 26)):
        (tmp_path / "long.txt").write_bytes(content)
        with pytest.raises(tdt.InputError, match="more than 100 bytes|unpacks to far more"):
            tdt.PhraseBoost.from_file(tmp_path / "long.txt", 1.0)


@pytest.mark.parametrize("phrase", ["a" * 100_000, "a b " * 30_000, [1] * 100_000, itertools.repeat(1), "a" * 1001])
def test_phrases_are_bounded(phrase):
    with pytest.raises(tdt.InputError, match="a phrase may have 1,000 (characters|tokens) at most"):
        tdt.PhraseBoost([phrase], 1.0)


@pytest.mark.parametrize("text", ["a" * 1000, "ab" * 500, "a " * 500, f"{'a' * 26} " * 37, "a" * 999 + "x"])
def test_the_longest_phrases_cost_little(text):
    """Pieces that fit in a very great number of ways, all of them with equally many pieces."""
    powers = [letter * n for letter in "ab" for n in range(1, 9)]
    pieces = (SPACE, *powers, "ab", "ba", "aba", f"{SPACE}a", "<blk>")
    speller = Speller(pieces, len(pieces) - 1, ignore_case=True)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        speller.spells(text)
    finally:
        sys.setprofile(None)
    assert calls < 3_000_000  # some for each letter, form and spelling, far from a number for each way


def test_phrases_can_be_pickled(tmp_path):
    (tmp_path / "names.txt").write_text("new york\n19\n")
    for boost in (tdt.PhraseBoost(
        ["new york", ([1, 2], 3.0)], 0.5, context_score=2.0, depth_scaling=3.0, ignore_case=True
    ),
                  tdt.PhraseBoost((word for word in ("new", "york")), 0.5),
                  tdt.PhraseBoost.per_row([["new"], [], ["york"]], 0.5).select([2, 0]),
                  tdt.PhraseBoost.from_file(tmp_path / "names.txt", 0.5)):  # fmt: skip
        expected, said = caught(lambda: boost.automaton(9, 9, PIECES))
        copy = pickle.loads(pickle.dumps(tdt.Greedy(fusion=[boost]))).fusion[0]
        assert (copy.weight, copy.phrases, copy.utterances, copy.ignore_case) == (
            boost.weight, boost.phrases, boost.utterances, boost.ignore_case,
        )
        found, said_again = caught(lambda: copy.automaton(9, 9, PIECES))
        assert said_again == said
        for name, table in vars(expected).items():
            np.testing.assert_array_equal(vars(found)[name], table)
