"""The sizes of published models: what small random models do not reach, such as windows of frames and large tables."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from benches.random_weights import random_encoder_out, random_weights
from tests.conftest import COMPILED
from tests.decoding.compare import check_hypotheses, traced_decode
from tests.decoding.fused_helpers import as_lifted, check_same_bits, fused
from tests.decoding.test_beam import check_same

pytestmark = pytest.mark.xdist_group("published sizes")  # the models are made once

MODELS = {
    "TDT-1024": (1024, (0, 1, 2, 3, 4)),
    "TDT-8192": (8192, (0, 1, 2, 3, 4)),
    # Without durations there is a joint pass for every frame.
    "RNN-T-13087": (13_087, ()),
}
"""The sizes of vocabularies, and durations."""


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """Weights, spec, frames and lengths. Tokens are as frequent as in speech."""
    vocab_size, durations = MODELS[request.param]
    spec = tdt.TransducerSpec(vocab_size, durations, encoder_size=1024)
    weights = as_lifted(random_weights(vocab_size, durations, 1024, 640, 2, 640))
    frames = np.stack([random_encoder_out(40, 1024, seed) for seed in range(4)])
    return weights, spec, frames, np.array([33, 0, 7, 40])


@pytest.fixture(scope="module")
def specified(model):
    """What the specification decodes greedily, and its decisions."""
    weights, spec, frames, lengths = model
    found = traced_decode(fused(weights, spec, "reference"), frames, lengths, tdt.Greedy())
    assert 0.1 < sum(map(len, found[0])) / lengths.sum() < 0.5, "blanks and tokens"
    return found


@pytest.mark.parametrize("kernels", COMPILED)
def test_greedy_is_the_specification(model, specified, kernels):
    weights, spec, frames, lengths = model
    decoder = fused(weights, spec, kernels)
    found = decoder.decode(frames, lengths)
    assert check_hypotheses(*specified, found, spec, tdt.Greedy()) == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_nothing_depends_on_batch_chunks_or_threads(model, precision):
    """The same bits: alone, with other rows, in pieces of any size, and however many threads share the work."""
    weights, spec, frames, lengths = model
    decoder = fused(weights, spec, precision=precision)
    together = decoder.decode(frames, lengths)
    check_same_bits(together[3:], decoder.decode(frames[3:], lengths[3:]))
    check_same_bits(together, fused(weights, spec, precision=precision, threads=2).decode(frames, lengths))
    tokens, state = [[] for _ in together], None
    for start in range(0, frames.shape[2], 7):
        piece = frames[:, :, start : start + 7]
        found, state = decoder.decode_chunk(piece, np.clip(lengths - start, 0, piece.shape[2]), state)
        for known, more in zip(tokens, found):
            known += zip(more.tokens, more.frames, more.token_logprobs)
    assert tokens == [list(zip(one.tokens, one.frames, one.token_logprobs)) for one in together]


def test_beams_are_the_specification(model):
    weights, spec, frames, lengths = model
    frames, lengths = frames[2:], np.minimum(lengths[2:], 10)
    search = tdt.Beam(size=3)
    expected = fused(weights, spec, "reference").decode(frames, lengths, search)
    check_same(fused(weights, spec).decode(frames, lengths, search), expected)
