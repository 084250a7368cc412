"""Traces have every step of a greedy decode; the steps are those that `decode` takes."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.networks.packing import Arithmetic
from tests.conftest import CELLS, COMPILED, RandomTransducer, random_frames
from tests.decoding.fused_helpers import fused, random_weights

SPECS = {
    "tdt": tdt.TransducerSpec(30, encoder_size=6),
    "rnnt": tdt.TransducerSpec(12, (), encoder_size=6),
    "blank-first": tdt.TransducerSpec(20, (0, 1, 2, 4, 8), blank=0, encoder_size=6),
}
SEARCHES = tdt.Greedy(), tdt.Greedy(max_symbols=2, blank_penalty=1.5), tdt.Greedy(blank_penalty=-2.0)


def check_trace(trace, hypothesis, length, search):
    """The steps that emit make up the hypothesis. Each step leads to the next, from frame 0 to past the last."""
    emitted = trace.emitted
    for name in ("tokens", "frames", "durations"):
        np.testing.assert_array_equal(getattr(trace, name)[emitted], getattr(hypothesis, name))
    for name in ("token_logprobs", "duration_logprobs"):
        np.testing.assert_allclose(getattr(trace, name)[emitted], getattr(hypothesis, name), atol=1e-5)
        assert (getattr(trace, name) <= 0).all()
    frame, symbols = 0, 0
    for at, duration, is_token in zip(trace.frames, trace.durations, emitted):
        assert at == frame < length
        symbols = symbols + 1 if is_token and duration == 0 else 0
        stays = is_token and duration == 0 and symbols < search.max_symbols
        frame += 0 if stays else max(duration, 1)
        symbols = symbols if stays else 0
    assert frame >= length


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_on_every_network_and_kernel_set(golden_tdt, tmp_path, cell, search):
    network, kernels = cell
    decoder = tdt.Decoder.from_bundle(golden_tdt.directory("split", tmp_path), network=network, kernels=kernels)
    utterances = golden_tdt.utterances[:3]
    frames, lengths = golden_tdt.encoder_out[utterances], golden_tdt.lengths[utterances]
    traces = decoder.trace(frames, lengths, search)
    hypotheses = decoder.decode(frames, lengths, search)
    for trace, hypothesis, length in zip(traces, hypotheses, lengths, strict=True):
        check_trace(trace, hypothesis, length, search)
    if search == tdt.Greedy():
        assert any((~trace.emitted).any() for trace in traces) and any(trace.emitted.any() for trace in traces)


@pytest.mark.parametrize("kernels", COMPILED)
@pytest.mark.parametrize("precision", ["float32", "screened", "bfloat16", "int8"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_in_every_precision(kernels, precision, spec):
    screened = precision == "screened"
    arithmetic = Arithmetic("float32" if screened else precision, screen=screened)
    frames, lengths = random_frames(70, 6, 25, seed=len(precision))
    for seed, search in enumerate(SEARCHES):
        decoder = fused(random_weights(spec, seed=seed), spec, kernels, arithmetic)
        hypotheses = decoder.decode(frames, lengths, search)
        for trace, hypothesis, length in zip(decoder.trace(frames, lengths, search), hypotheses, lengths, strict=True):
            check_trace(trace, hypothesis, length, search)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_log_probs_of_blanks(kernels, spec):
    """They are a log-softmax of the joint rows that the user's function returned."""
    model, rows = RandomTransducer(spec, seed=3), []

    def joint(frames, g):
        rows.append(model.joint(frames, g))
        return rows[-1]

    network = tdt.CallableNetwork(model.predict, joint, model.select)
    decoder = tdt.Decoder(network, spec, kernels=kernels)
    frames, _ = random_frames(1, 6, 40, seed=1)
    (trace,) = decoder.trace(frames, search=tdt.Greedy(blank_penalty=0.5))
    logits = np.concatenate(rows).astype(np.float64)
    tokens, durations = logits[:, : spec.vocab_size + 1], logits[:, spec.vocab_size + 1 :]
    assert len(trace) == len(logits) and (~trace.emitted).any()
    log_sum = np.log(np.exp(tokens).sum(1))
    np.testing.assert_allclose(trace.token_logprobs, tokens[np.arange(len(trace)), trace.tokens] - log_sum, atol=1e-4)
    if len(spec.durations):
        expected = durations.max(1) - np.log(np.exp(durations).sum(1))
        np.testing.assert_allclose(trace.duration_logprobs, expected, atol=1e-4)
    else:
        assert not trace.duration_logprobs.any()
        np.testing.assert_array_equal(trace.durations, np.where(trace.emitted, 0, 1))  # a blank moves one frame


def test_of_no_utterance_and_of_one_without_frames():
    spec = SPECS["tdt"]
    decoder = fused(random_weights(spec), spec)
    assert decoder.trace(np.zeros((0, 6, 4), np.float32)) == []
    assert decoder.trace(np.zeros((0, 6, 4), np.float32), search=tdt.Beam()) == []
    for search in (tdt.Greedy(), tdt.Beam()):
        empty, some = decoder.trace(np.zeros((2, 6, 4), np.float32), [0, 4], search)
        assert len(empty) == 0 and len(some) > 0 and some.blank == spec.blank


def test_a_decode_is_not_traced():
    """Tracing one call does not change later calls."""
    spec = SPECS["tdt"]
    decoder = fused(random_weights(spec), spec)
    frames, lengths = random_frames(4, 6, 20, seed=2)
    before = decoder.decode(frames, lengths)
    decoder.trace(frames, lengths)
    for a, b in zip(before, decoder.decode(frames, lengths), strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert spec.blank not in a.tokens


def test_networks_are_all_covered():
    assert {network for network, _ in CELLS} == {"ort", "fused"}
