"""Other decoders as oracles, on the demo model and real recordings of synthetic speech."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tests import demo
from tests.peers import sherpa_onnx_texts

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    return [(samples, RATE) for samples, _ in demo.recordings().values()]


@pytest.fixture(scope="module")
def ours(speech):
    return tdt.load_model("demo").recognize(speech)


@pytest.fixture(scope="module")
def peer():
    """onnx-asr with the shipped files as they are."""
    import onnx_asr

    return onnx_asr.load_model("nemo-conformer-tdt", demo.DIRECTORY, providers=["CPUExecutionProvider"])


def test_the_demo_understands_its_recordings(ours):
    texts = [text for _, text in demo.recordings().values()]
    right = sum(transcript.text == text for transcript, text in zip(ours, texts, strict=True))
    assert right >= 14, [(transcript.text, text) for transcript, text in zip(ours, texts)]


def test_onnx_asr_from_recording_to_tokens(peer, speech, ours):
    """Each with its own features: pieces and times are equal."""
    names = demo.pieces()
    for (samples, _), transcript in zip(speech, ours, strict=True):
        result = peer.with_timestamps().recognize(samples)
        tokens = [names[token].replace("\u2581", " ") for token in transcript.hypothesis.tokens]
        assert result.tokens == tokens
        np.testing.assert_allclose(result.timestamps, transcript.hypothesis.frames * 0.08, atol=1e-6)


def test_onnx_asr_on_the_same_encoder_output(peer, speech):
    decoder = tdt.Decoder.from_bundle(demo.DIRECTORY)
    for samples, _ in speech:
        features, lengths = peer.asr._preprocessor(samples[None], np.array([len(samples)]))
        frames, counts = peer.asr._encode(features, lengths)
        ((tokens, timestamps, logprobs),) = peer.asr._decoding(frames, counts, need_logprobs=True)
        (hypothesis,) = decoder.decode(frames.transpose(0, 2, 1), counts)
        assert hypothesis.tokens.tolist() == tokens and hypothesis.frames.tolist() == timestamps
        np.testing.assert_allclose(hypothesis.token_logprobs, logprobs, atol=1e-4)


@pytest.mark.parametrize("layout", ["split", "combined", "genai"])
def test_every_layout_says_the_same(tmp_path, speech, ours, layout):
    found = tdt.load_model(demo.write_demo(tmp_path, layout)).recognize(speech)
    assert [t.hypothesis.tokens.tolist() for t in found] == [t.hypothesis.tokens.tolist() for t in ours]
    assert [t.text for t in found] == [t.text for t in ours]


def test_sherpa_onnx_takes_our_split_layout(tmp_path, ours, capsys):
    """Its features differ (another window, another upper edge of the filters), so its text may."""
    texts = sherpa_onnx_texts(demo.write_demo(tmp_path, "split"))
    equal = sum(text == transcript.text for text, transcript in zip(texts, ours, strict=True))
    with capsys.disabled():
        print(f"\nsherpa-onnx says the same as we do on {equal} of {len(texts)} recordings")
    assert equal >= 12
