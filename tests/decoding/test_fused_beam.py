"""Beam search on the fused network, compared with its specification; and all that must not change its results."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tdtdecode as tdt
from tests.conftest import COMPILED, random_frames
from tests.decoding import fused_helpers
from tests.decoding.fused_helpers import fused
from tests.decoding.test_beam import check_same, in_chunks

SHAPES = {
    "tdt": (tdt.TransducerSpec(vocab_size=40, encoder_size=24), 2),
    "one-layer": (tdt.TransducerSpec(vocab_size=150, durations=(1, 2, 8), blank=0, encoder_size=17), 1),
    "three-layers": (tdt.TransducerSpec(vocab_size=9, durations=(4, 0, 2), encoder_size=8), 3),
    "stateless": (tdt.TransducerSpec(vocab_size=30, encoder_size=16), 0),
    "rnnt": (tdt.TransducerSpec(vocab_size=70, durations=(), encoder_size=20), 2),
    "context": (tdt.TransducerSpec(vocab_size=25, durations=(), blank=0, encoder_size=12, max_symbols=1), 0),
    "multi-blank": (tdt.TransducerSpec(vocab_size=30, durations=(), encoder_size=12, big_blanks=(2, 4, 8)), 1),
}
SEARCHES = [
    tdt.Beam(size=4),
    tdt.Beam(size=8, threshold=math.inf, max_symbols=2),
    tdt.Beam(strategy="malsd", size=4, max_symbols=3),
    tdt.Beam(size=3, fusion=[tdt.PhraseBoost([[1, 2, 3], [4, 5], [6]], 1.0)]),
    tdt.Greedy(fusion=[tdt.PhraseBoost([[1, 2, 3], [4, 5], [6]], 1.0)]),
    tdt.Beam(size=4, allow=tdt.OnlyTokens([2, 5, 7, 8])),
]


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def random_weights(spec, layers=2, seed=0):
    """A model of the shape. One that limits the tokens at a frame is k2's, whose predictors look at two tokens."""
    return fused_helpers.random_weights(spec, layers=layers, seed=seed, context=2 if spec.max_symbols else 1)


@pytest.fixture(params=SEARCHES, ids=["tsd", "tsd-8", "malsd", "phrases", "greedy-phrases", "allowed"])
def search(request, shape):
    if isinstance(request.param, tdt.Beam) and request.param.strategy == "malsd" and shape[0].big_blanks:
        pytest.skip("malsd knows one blank, as NeMo's does")
    return request.param


def test_it_is_the_specification(shape, search):
    spec, layers = shape
    for seed in range(2):
        weights = random_weights(spec, layers=layers, seed=seed)
        frames, lengths = random_frames(4, spec.encoder_size, 18, seed)
        expected = fused(weights, spec, "reference").decode(frames, lengths, search=search)
        for kernels in COMPILED:
            check_same(fused(weights, spec, kernels).decode(frames, lengths, search=search), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_nothing_depends_on_the_batch(shape, search, precision):
    spec, layers = shape
    weights = random_weights(spec, layers=layers, seed=7)
    frames, lengths = random_frames(40, spec.encoder_size, 30, 7)
    decoder = fused(weights, spec, precision=precision)
    whole = decoder.decode(frames, lengths, search=search)
    order = np.random.default_rng(0).permutation(40)
    check_same(decoder.decode(frames[order], lengths[order], search=search), [whole[i] for i in order], 0)
    check_same([decoder.decode(frames[i : i + 1], lengths[i : i + 1], search=search)[0] for i in range(40)], whole, 0)
    for threads in (2, 3):
        other = fused(weights, spec, precision=precision, threads=threads)
        check_same(other.decode(frames, lengths, search=search), whole, 0)
    utterances = [np.asfortranarray(one[:, :length]) for one, length in zip(frames, lengths)]
    check_same(decoder.decode(utterances, search=search), whole, 0)


@pytest.mark.parametrize("chunk", [1, 4, 11])
def test_chunks_change_nothing(shape, search, chunk):
    if isinstance(search, tdt.Beam) and search.strategy == "malsd":
        pytest.skip("malsd depends on chunks, as NeMo's does")
    spec, layers = shape
    weights = random_weights(spec, layers=layers, seed=3)
    frames, lengths = random_frames(5, spec.encoder_size, 24, 3)
    for decoder in (fused(weights, spec), fused(weights, spec, threads=2)):
        found = in_chunks(decoder, frames, lengths, search, chunk)
        whole = decoder.decode(frames, lengths, search=search)
        if isinstance(search, tdt.Greedy):  # its scores differ: each covers one chunk
            for a, b in zip(found, whole):
                np.testing.assert_array_equal(a.tokens, b.tokens)
                np.testing.assert_array_equal(a.frames, b.frames)
        else:
            check_same(found, whole, 0)


@pytest.mark.parametrize("search", [SEARCHES[0], SEARCHES[4]], ids=["tsd", "greedy-phrases"])
def test_states_of_kernels_are_the_same(search):
    """A stream may go on with another kernel set of the same network."""
    spec, layers = SHAPES["tdt"]
    weights = random_weights(spec, layers=layers, seed=5)
    frames, lengths = random_frames(4, spec.encoder_size, 30, 5)
    decoders = [fused(weights, spec, "reference"), fused(weights, spec)]
    whole = decoders[0].decode(frames, search=search)
    for first, second in (decoders, decoders[::-1]):
        before, state = first.decode_chunk(frames[:, :, :13], search=search)
        after, _ = second.decode_chunk(frames[:, :, 13:], state=state, final=True, search=search)
        for a, b, hypothesis in zip(before, after, whole, strict=True):
            assert a.tokens.tolist() + b.tokens.tolist() == hypothesis.tokens.tolist()


def test_hypotheses_may_be_far_apart():
    """In malsd one hypothesis may still be at the first frame when another is near the end of a long utterance."""
    spec = tdt.TransducerSpec(vocab_size=3, durations=(0, 4), encoder_size=8)
    weights = random_weights(spec, layers=1, seed=1)
    frames, _ = random_frames(2, spec.encoder_size, 200, 1)
    search = tdt.Beam(strategy="malsd", size=6, max_symbols=40)
    expected = fused(weights, spec, "reference").decode(frames, search=search)
    check_same(fused(weights, spec).decode(frames, search=search), expected, 1e-3)


def test_failing_functions():
    spec, layers = SHAPES["tdt"]

    def scores(state, out):
        if state[0] > 3:
            raise ValueError("enough")

    def advance(state, token, following):
        following[0] = state[0] + 1

    search = tdt.Beam(fusion=[tdt.ScoringFunction(scores, advance)])
    frames, lengths = random_frames(30, spec.encoder_size, 40, 0)
    for threads in (1, 3):
        decoder = fused(random_weights(spec, layers=layers), spec, threads=threads)
        with pytest.raises(tdt.InputError, match=r"called with state \[4\], raised ValueError: enough"):
            decoder.decode(frames, lengths, search=search)
        assert decoder.decode(frames, lengths)  # nothing is left behind


def test_beams_that_need_too_much():
    spec = tdt.TransducerSpec(vocab_size=5, durations=(0, 1 << 20), encoder_size=8)
    decoder = fused(random_weights(spec), spec)
    with pytest.raises(tdt.InputError, match="a beam of 4 with durations up to 1048576 .* make the beam smaller"):
        decoder.decode(np.zeros((1, 8, 3), np.float32), search=tdt.Beam(size=4))
    assert len(decoder.decode(np.zeros((1, 8, 3), np.float32), search=tdt.Beam(strategy="malsd"))) == 1
