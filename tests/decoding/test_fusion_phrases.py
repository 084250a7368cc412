"""Boosted phrases: their automaton compared with its definition and with NeMo's tree, how text is spelt, lists for each
utterance. And scoring functions."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.fusion.spelling import MAX_SPELLINGS, Speller
from tests.conftest import KERNELS, RandomTransducer, random_frames
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
        boost = tdt.PhraseBoost(phrases, 1.0, context_score, depth_scaling)
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
    assert boost.automaton(9, 9, PIECES).arc_token is automaton.arc_token  # compiled once
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


@pytest.mark.parametrize("kernels", KERNELS)
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
    with pytest.raises(tdt.InputError, match="phrases are given for 2 utterances, but there are 6"):
        boosted("cpu", [tdt.PhraseBoost.per_row([[[1]], [[2]]], 1.0)])


@pytest.mark.parametrize("kernels", KERNELS)
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


@pytest.mark.parametrize("kernels", KERNELS)
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


# Scoring functions are compiled once for all kernels, because the functions are the same.


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


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_scoring_function_that_fails(kernels):
    for scores, advance, message in (
        (nan_after_two, counting, "scores of the scoring function .*nan_after_two.*gave token 3 a score that is NaN"),
        (infinite, counting, "gave token 3 a score that is NaN or infinite"),
        (raising, counting, r"called with state \[1\], raised ValueError: no more"),
        (repeats, failing, "advance of the scoring function .*repeats.*raised ValueError: cannot go on"),
    ):
        with pytest.raises(tdt.InputError, match=message):
            boosted(kernels, [tdt.ScoringFunction(scores, advance, start=[0], weight=0.5)])


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


@pytest.mark.parametrize("kernels", KERNELS)
def test_fusions_add_up(kernels):
    """Two weighted fusions are the same as one that is their sum."""
    one = boosted(kernels, [tdt.ScoringFunction(both, remember, [-1])])
    two = boosted(kernels, [tdt.ScoringFunction(first, remember, [-1], 2.0),
                            tdt.ScoringFunction(second, remember, [-1], 0.5)])  # fmt: skip
    for a, b in zip(one, two, strict=True):
        assert [h.tokens.tolist() for h in a.nbest] == [h.tokens.tolist() for h in b.nbest]
        assert [h.score for h in a.nbest] == pytest.approx([h.score for h in b.nbest], abs=1e-5)
