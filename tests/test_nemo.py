"""NeMo's own greedy decoding with the demo model's weights, on the same encoder output."""

from __future__ import annotations

import pytest

import tdtdecode as tdt
from tdtdecode.audio import FeatureExtractor
from tests import demo

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
