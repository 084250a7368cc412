"""Traces of beams have every candidate of every step, and the search is the one that `decode` runs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.packing import Arithmetic
from tdtdecode.traces import WAITS, BeamTrace
from tests.conftest import COMPILED, RandomTransducer, random_frames
from tests.decoding.fused_helpers import fused, random_weights

SPECS = {
    "tdt": tdt.TransducerSpec(30, encoder_size=6),
    "rnnt": tdt.TransducerSpec(12, (), encoder_size=6),
    "blank-first": tdt.TransducerSpec(20, (0, 1, 2, 4, 8), blank=0, encoder_size=6),
}
SEARCHES = (
    tdt.Beam(size=3, nbest=3, max_symbols=2, blank_penalty=0.5),
    tdt.Beam(size=2, temperature=1.3, threshold=1.5),
    tdt.Beam("malsd", size=4, max_symbols=3),
    tdt.Beam("malsd", size=2, pruning_mode="late"),
)


def check_same_bits(a, b):
    """Whether two hypotheses and their alternatives are equal to the bit."""
    assert len(a.nbest) == len(b.nbest)
    for one, other in zip(a.nbest, b.nbest):
        assert one.score == other.score
        for name in ("tokens", "frames", "durations", "token_logprobs", "duration_logprobs"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def check_beam_trace(trace: BeamTrace, hypothesis, length, search):
    """The steps lead from one to the next, and the last to the n-best list; nothing is dropped without a reason."""
    check_same_bits(trace.hypothesis, hypothesis)
    merged = trace.merged_into >= 0
    numbers = np.arange(len(trace))
    assert (trace.kept.astype(int) + merged + trace.pruned == 1).all(), "one fate each"
    assert (np.diff(trace.steps) >= 0).all() and (trace.emitted <= (trace.tokens >= 0)).all()
    waits = trace.tokens == WAITS
    assert (trace.next_frames[waits] == trace.frames[waits]).all() and not trace.durations[waits].any()
    blanks = trace.tokens == trace.blank
    moves = np.where(blanks, np.maximum(trace.durations, 1), trace.durations)
    stays = trace.emitted & (trace.durations == 0)
    assert (trace.next_frames - trace.frames == moves)[~stays].all()
    assert (trace.frames[~waits] < length).all()
    before = np.array([-1])
    for step in range(trace.steps.max(initial=-1) + 1):
        mine = numbers[trace.steps == step]
        assert set(trace.parents[mine]) == set(before), "all of the beam are extended or wait"
        parent_totals = np.where(before >= 0, trace.totals[before], 0)
        for number in mine:
            into = trace.merged_into[number]
            if into >= 0:
                assert trace.steps[into] == step and into != number and trace.merged_into[into] < 0
                assert trace.next_frames[into] == trace.next_frames[number]
            group = mine[(mine == number) | (trace.merged_into[mine] == number)]
            assert trace.alignments[number] in group
            assert into >= 0 or abs(trace.totals[number] - np.logaddexp.reduce(trace.scores[group])) < 1e-5
        if not search.fusion and search.blank_penalty >= 0:
            assert (trace.scores[mine] <= parent_totals.max() + 1e-9).all(), "a step cannot gain"
        if search.strategy == "tsd":
            check_pruning(trace, mine[~merged[mine]], search)
        else:
            assert trace.kept[mine].sum() <= search.size
            dropped = trace.pruned[mine]
            assert trace.scores[mine][dropped].max(initial=-np.inf) <= trace.scores[mine][~dropped].min()
        before = mine[trace.kept[mine]]
    assert (before < 0).all() or (trace.next_frames[before] >= length).all()
    assert len(trace.ends) >= len(hypothesis.nbest)
    for end, entry in zip(trace.ends, hypothesis.nbest):
        path = trace.path(end)
        path = path[trace.emitted[path]]
        for name in ("tokens", "frames", "durations"):
            np.testing.assert_array_equal(getattr(trace, name)[path], getattr(entry, name))


def check_pruning(trace: BeamTrace, candidates: np.ndarray, search):
    """A candidate is dropped exactly if enough others, or one that is much better, are as far in the audio."""
    totals, frames = trace.totals[candidates], trace.next_frames[candidates]
    for i, number in enumerate(candidates):
        ahead = (frames > frames[i]) | ((frames == frames[i]) & (totals > totals[i]))
        dropped = (totals[ahead] >= totals[i]).sum() >= search.size
        dropped |= totals[ahead].max(initial=-np.inf) - search.threshold > totals[i]
        assert dropped == trace.pruned[number]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_on_every_network_and_kernel_set(golden_tdt, tmp_path, cell, search):
    network, kernels = cell
    decoder = tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path), network=network, kernels=kernels)
    utterances = golden_tdt.utterances[:2]
    frames, lengths = golden_tdt.encoder_out[utterances], np.minimum(golden_tdt.lengths[utterances], 12)
    hypotheses = decoder.decode(frames, lengths, search)
    for trace, hypothesis, length in zip(decoder.trace(frames, lengths, search), hypotheses, lengths, strict=True):
        check_beam_trace(trace, hypothesis, length, search)
        assert len(trace) > trace.kept.sum() > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_in_every_precision(precision, spec):
    frames, lengths = random_frames(9, 6, 25, seed=3)
    for seed, search in enumerate(SEARCHES):
        decoder = fused(random_weights(spec, seed=seed), spec, "cpu", Arithmetic(precision))
        hypotheses = decoder.decode(frames, lengths, search)
        for trace, hypothesis, length in zip(decoder.trace(frames, lengths, search), hypotheses, lengths, strict=True):
            check_beam_trace(trace, hypothesis, length, search)


@pytest.mark.parametrize("kernels", ["jit", *COMPILED])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_kernel_sets_choose_from_the_same_candidates(kernels, spec):
    """Of the same joint rows, every kernel set lists the candidates of the specification."""
    frames, lengths = random_frames(3, 6, 15, seed=4)
    merged = 0
    for search in SEARCHES:
        expected, found = (
            tdt.Decoder(_network(spec), spec, kernels=name).trace(frames, lengths, search)
            for name in ("reference", kernels)
        )
        for one, other in zip(expected, found, strict=True):
            merged += (one.merged_into >= 0).sum()
            for column in fields(BeamTrace):
                a, b = getattr(one, column.name), getattr(other, column.name)
                if column.name in ("scores", "totals"):
                    np.testing.assert_allclose(a, b, atol=1e-4)
                elif column.name != "hypothesis":
                    np.testing.assert_array_equal(a, b, column.name)
                    assert not isinstance(a, np.ndarray) or a.dtype == b.dtype
    assert merged


def _network(spec):
    model = RandomTransducer(spec, seed=3)
    return tdt.CallableNetwork(model.predict, model.joint, model.select)


def test_nothing_depends_on_batch_or_threads():
    spec = SPECS["tdt"]
    frames, lengths = random_frames(9, 6, 25, seed=5)
    weights = random_weights(spec, seed=2)
    search = tdt.Beam(size=3)
    together = fused(weights, spec).trace(frames, lengths, search)
    alone = [fused(weights, spec).trace(frames[i : i + 1], lengths[i : i + 1], search)[0] for i in range(len(frames))]
    for others in (fused(weights, spec, threads=2).trace(frames, lengths, search), alone):
        for one, other in zip(together, others, strict=True):
            for column in fields(BeamTrace):
                if column.name != "hypothesis":
                    np.testing.assert_array_equal(getattr(one, column.name), getattr(other, column.name))


def test_greedy_search_with_phrases_has_one_candidate_a_step(golden_tdt, tmp_path):
    decoder = tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path))
    frames, lengths = golden_tdt.encoder_out[:1], golden_tdt.lengths[:1]
    search = tdt.Greedy(confidence=tdt.Confidence())
    (trace,) = decoder.trace(frames, lengths, search)
    check_same_bits(trace.hypothesis, decoder.decode(frames, lengths, search)[0])
    assert trace.kept.all() and trace.steps.tolist() == list(range(len(trace)))
    (greedy,) = decoder.trace(frames, lengths, tdt.Greedy())
    np.testing.assert_array_equal(trace.tokens, greedy.tokens)
    np.testing.assert_array_equal(trace.frames, greedy.frames)


def test_a_trace_says_what_it_is():
    spec = SPECS["tdt"]
    (trace,) = fused(random_weights(spec), spec).trace(np.zeros((1, 6, 4), np.float32), search=tdt.Beam())
    counts = f"{trace.steps[-1] + 1} steps, {len(trace)} candidates, {trace.kept.sum()} of them kept"
    assert repr(trace) == f"<BeamTrace: {counts}>"
