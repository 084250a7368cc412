"""Confidence measures, compared with NeMo's own functions and with what the searches report."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.vocabulary import Vocabulary
from tdtdecode.confidence import MEASURES, NORMALIZATIONS, Statistic
from tests.conftest import RandomTransducer, random_frames

ALL = [
    tdt.Confidence(measure, alpha=alpha, normalization=normalization)
    for measure in MEASURES
    for alpha in (0.33, 0.5, 1.0, 2.0)
    for normalization in NORMALIZATIONS
]


def probabilities(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def sums(confidence, p):
    """The sum that a measure needs, over each row of probabilities [N, v]; in float64."""
    kind, a = confidence.statistic
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return {
        Statistic.MAX_PROB: p.max(axis=1),
        Statistic.POWER_SUM: (p**a).sum(axis=1),
        Statistic.POWER_LOG_SUM: (p**a * logs).sum(axis=1),
        Statistic.SHANNON: (p * logs).sum(axis=1),
    }[kind]


def measured(confidence, p):
    return confidence.from_sum(sums(confidence, p), p.shape[1])


@pytest.mark.parametrize("confidence", ALL, ids=str)
@pytest.mark.parametrize("entries", [2, 30, 1025, 8193])
def test_certain_is_one_and_uniform_is_zero(confidence, entries):
    certain = np.zeros((1, entries))
    certain[0, entries // 2] = 1
    uniform = np.full((1, entries), 1 / entries)
    assert measured(confidence, certain)[0] == pytest.approx(1, abs=1e-5)
    assert measured(confidence, uniform)[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("confidence", ALL, ids=str)
def test_values_are_nemos(confidence):
    utils = pytest.importorskip(
        "nemo.collections.asr.parts.utils.asr_confidence_utils", reason="NeMo is not installed"
    )
    import torch

    logits = np.random.default_rng(0).normal(size=(50, 129)) * np.linspace(0.1, 8, 50)[:, None]
    bank = utils.get_confidence_measure_bank()
    name = "max_prob"
    if confidence.measure != "max_prob":
        name = f"entropy_{confidence.measure}_{confidence.normalization}"
    logprobs = torch.log_softmax(torch.tensor(logits), dim=-1)
    expected = bank[name](logprobs, 129, confidence.alpha).numpy()
    # For alpha > 1 some of NeMo's measures leave the range from 0 to 1.
    np.testing.assert_allclose(measured(confidence, probabilities(logits)), np.clip(expected, 0, 1), atol=1e-4)


@pytest.mark.parametrize("measure", MEASURES[1:])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_alpha_of_one_is_the_limit(measure, normalization):
    p = probabilities(np.random.default_rng(1).normal(size=(20, 40)) * 2)
    near, at = (
        measured(tdt.Confidence(measure, alpha=alpha, normalization=normalization), p) for alpha in (1.0001, 1.0)
    )
    if (measure, normalization) not in (("tsallis", "exp"), ("gibbs", "exp")):  # the exponential of another entropy
        np.testing.assert_allclose(near, at, atol=2e-3)


@pytest.mark.parametrize("confidence", [ALL[0], ALL[9], ALL[12], ALL[16], tdt.Confidence()], ids=str)
@pytest.mark.parametrize("search", [tdt.Greedy, tdt.Beam], ids=["greedy", "beam"])
def test_searches_report_the_measure_of_each_row(kernels, confidence, search):
    spec = tdt.TransducerSpec(vocab_size=21)
    model = RandomTransducer(spec, 4)
    frames, lengths = random_frames(3, model.encoder_size, 15, 4)
    decoder = model.decoder(spec, kernels=kernels)
    plain = decoder.decode(frames, lengths, search=search())
    for utterance, result in enumerate(decoder.decode(frames, lengths, search=search(confidence=confidence))):
        np.testing.assert_array_equal(result.tokens, plain[utterance].tokens)
        assert result.score == pytest.approx(plain[utterance].score, abs=1e-4)
        for hypothesis in result.nbest:
            g, state = model.predict(np.array([spec.blank]), None)
            for i, token in enumerate(hypothesis.tokens):
                joint = model.joint(frames[utterance : utterance + 1, :, hypothesis.frames[i]], g)
                expected = measured(confidence, probabilities(joint[:, : spec.vocab_size + 1]))
                assert hypothesis.token_confidence[i] == pytest.approx(expected[0], abs=1e-4)
                g, state = model.predict(np.array([token]), state)


def test_bad_numbers_have_a_confidence(kernels):
    spec = tdt.TransducerSpec(vocab_size=9)
    for measure in MEASURES:
        model = RandomTransducer(spec, 0, bad=0.3)
        frames, _ = random_frames(2, model.encoder_size, 30, 0)
        search = tdt.Beam(confidence=tdt.Confidence(measure))
        for result in model.decoder(spec, kernels=kernels).decode(frames, search=search):
            for hypothesis in result.nbest:
                assert ((0 <= hypothesis.token_confidence) & (hypothesis.token_confidence <= 1)).all()


@pytest.mark.parametrize(("how", "expected"), [("min", 0.2), ("mean", 0.5), ("prod", 0.08)])
def test_a_word_has_the_confidence_of_its_tokens(how, expected):
    vocabulary = Vocabulary(("\u2581ab", "c", "d", "<blk>"), 3)
    numbers = np.arange(3, dtype=np.int32)
    logprobs = np.log(np.array([0.9, 0.6, 0.7], np.float32))
    hypothesis = tdt.Hypothesis(numbers, numbers, numbers, logprobs, logprobs, 0.0, np.array([0.2, 0.8, 0.5]))
    (word,) = vocabulary.words(hypothesis, 0.08, tdt.Confidence(aggregation=how))
    assert (word.text, word.confidence) == ("abcd", pytest.approx(expected))
    (word,) = vocabulary.words(replace(hypothesis, token_confidence=None), 0.08)
    assert word.confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "entropy"}, "measure must be one of 'max_prob', "),
        ({"normalization": "log"}, "normalization must be"),
        ({"aggregation": "max"}, "aggregation must be"),
        ({"alpha": 0}, "alpha must be a positive number"),
        ({"alpha": math.nan}, "alpha must be a positive number"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(tdt.InputError, match=message):
        tdt.Confidence(**options)
