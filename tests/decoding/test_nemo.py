"""NeMo's own searches find the same, with the same weights on the same encoder output."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from benches.random_weights import random_encoder_out, random_weights
from tdtdecode.networks.fused import FusedNetwork
from tdtdecode.speech.audio import FeatureExtractor
from tests import demo
from tests.decoding.fused_helpers import as_lifted

torch = pytest.importorskip("torch", reason="NeMo is not installed (pip install torch nemo_toolkit[asr]==3.0.0)")
pytest.importorskip("nemo.collections.asr", reason="NeMo is not installed (pip install nemo_toolkit[asr]==3.0.0)")


@pytest.mark.parametrize("max_symbols", [10, 1])
def test_nemos_greedy_says_the_same(max_symbols):
    from benches.nemo_modules import nemo_greedy

    model = tdt.load_model("demo")
    samples = [recording for recording, _ in demo.recordings().values()]
    features, lengths = FeatureExtractor(80)(samples)
    frames, counts = model.encoder(features, lengths)
    encoder_out = frames.numpy()
    ours = model.decoder.decode(encoder_out, counts, search=tdt.Greedy(max_symbols=max_symbols))
    theirs = nemo_greedy(demo.weights(), max_symbols)(encoder_out, counts)
    for hypothesis, other in zip(ours, theirs, strict=True):
        assert hypothesis.tokens.tolist() == torch.as_tensor(other.y_sequence).tolist()
        assert hypothesis.frames.tolist() == torch.as_tensor(other.timestamp).tolist()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_nemos_beam_search_finds_the_same(size):
    """On speech, and on a random model with long utterances, where scores add up to many hundreds."""
    from benches.nemo_modules import nemo_malsd

    model = tdt.load_model("demo")
    features, lengths = FeatureExtractor(80)([recording for recording, _ in demo.recordings().values()])
    frames, counts = model.encoder(features, lengths)
    weights = random_weights(1024, (0, 1, 2, 3, 4), 64, 96, 2, 80)
    network = FusedNetwork(as_lifted(weights), tdt.TransducerSpec(vocab_size=1024))
    random_out = np.stack([random_encoder_out(300, 64, seed) for seed in range(16)])
    for decoder, theirs, encoder_out, valid in (
        (model.decoder, demo.weights(), frames.numpy(), counts),
        (tdt.Decoder(network, network.spec), weights, random_out, np.full(16, 300)),
    ):
        ours = decoder.decode(encoder_out, valid, search=tdt.Beam(strategy="malsd", size=size))
        for result, nbest in zip(ours, nemo_malsd(theirs, size)(encoder_out, valid), strict=True):
            assert len(result.nbest) == len(nbest)
            for hypothesis, other in zip(result.nbest, nbest):
                assert hypothesis.tokens.tolist() == torch.as_tensor(other.y_sequence).tolist()
                assert hypothesis.frames.tolist() == torch.as_tensor(other.timestamp).tolist()
                assert hypothesis.score == pytest.approx(float(other.score), abs=1e-2)
