"""onnx-asr models give the same results with our decoder behind them, whatever is asked of them."""

from __future__ import annotations

import importlib.metadata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

onnx_asr = pytest.importorskip("onnx_asr", reason="onnx-asr is not installed")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

from onnx_asr.models.nemo import NemoConformerCtc, NemoConformerRnnt  # noqa: E402
from onnx_asr.vad import BaseVad  # noqa: E402

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.integrations.onnx_asr import accelerate  # noqa: E402
from tests import demo  # noqa: E402


def load(directory, model_type="nemo-conformer-tdt", quantization=None):
    return onnx_asr.load_model(model_type, directory, quantization=quantization, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def plain():
    return load(demo.DIRECTORY)


@pytest.fixture(scope="module")
def fast(plain):
    return accelerate(plain)


@pytest.fixture(scope="module")
def waves():
    return [samples for samples, _ in demo.recordings().values()]


@pytest.fixture()
def without_steps(monkeypatch):
    """Makes onnx-asr's own step an error, so that a result can only be ours."""

    def step(*_):
        raise AssertionError("onnx-asr's own loop was run")

    return lambda: monkeypatch.setattr(NemoConformerRnnt, "_decode", step)


def check_equal(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert (a.text, a.tokens, a.timestamps) == (b.text, b.tokens, b.timestamps)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


class HalfSecondsVad(BaseVad):
    """Calls everything speech, cut in pieces of a second and a half."""

    def segment_batch(self, waveforms, waveforms_len, sample_rate, **options):
        def pieces(length):
            piece = 3 * sample_rate // 2
            return ((start, min(start + piece, length)) for start in range(0, length, piece))

        return (pieces(int(length)) for length in waveforms_len)


def test_text(plain, fast, waves, without_steps):
    expected = [plain.recognize(wave) for wave in waves]
    without_steps()
    assert [fast.recognize(wave) for wave in waves] == expected
    assert sum(map(bool, expected)) == len(waves)


def test_timestamps_tokens_and_logprobs(plain, fast, waves, without_steps):
    expected = plain.with_timestamps().recognize(waves)
    without_steps()
    check_equal(fast.with_timestamps().recognize(waves), expected)


def test_files_rates_and_empty_input(plain, fast, waves, tmp_path):
    soundfile.write(tmp_path / "a.wav", waves[0], 16000, subtype="PCM_16")
    path = str(tmp_path / "a.wav")
    assert fast.recognize(path) == plain.recognize(path)
    half = waves[1][::2].copy()
    assert fast.recognize(half, sample_rate=8000) == plain.recognize(half, sample_rate=8000)
    assert fast.recognize([]) == []
    assert fast.recognize(np.zeros(1600, np.float32)) == plain.recognize(np.zeros(1600, np.float32))


def test_voice_activity_detection(plain, fast, waves, without_steps):
    def segments(model):
        return [list(found) for found in model.recognize(waves[:4])]

    texts, stamped = (segments(m) for m in (plain.with_vad(HalfSecondsVad()), fast.with_vad(HalfSecondsVad())))
    assert texts == stamped and sum(map(len, texts)) > 4
    expected = segments(plain.with_vad(HalfSecondsVad(), batch_size=2).with_timestamps())
    adapted = accelerate(plain.with_vad(HalfSecondsVad(), batch_size=2).with_timestamps())
    without_steps()
    for model in (fast.with_vad(HalfSecondsVad(), batch_size=2).with_timestamps(), adapted):
        for a, b in zip(segments(model), expected, strict=True):
            assert [(s.start, s.end) for s in a] == [(s.start, s.end) for s in b]
            check_equal(a, b)


def test_the_given_model_is_left_alone(plain, waves, monkeypatch):
    fast = accelerate(plain)
    monkeypatch.setattr(fast.asr, "_decoding", None)
    assert plain.recognize(waves[0])
    assert type(fast) is type(plain) and fast.asr is not plain.asr and fast.asr._encoder is plain.asr._encoder


def test_threads(plain, fast, waves):
    expected = [plain.recognize(wave) for wave in waves]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fast.recognize, waves)) == expected


@pytest.mark.parametrize("options", [
    {}, {"precision": "int8"}, {"vocab_size": 40, "biases": False}, {"predictor_layers": 3, "activation": "tanh"},
    {"durations": (), "model_type": "nemo-conformer-rnnt"},
], ids=str)  # fmt: skip
def test_random_models(tmp_path, options, without_steps):
    options = dict(options)
    model_type = options.pop("model_type", "nemo-conformer-tdt")
    quantization = options.get("precision")
    sizes = {"vocab_size": 60, "encoder_size": 24, "predictor_size": 20, "joint_size": 20, "mel_bins": 80, **options}
    make_bundle(tmp_path, "combined", **sizes)
    plain = load(tmp_path, model_type, quantization).with_timestamps()
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) for n in (16000, 40000, 3000, 64000)]
    expected = plain.recognize(waves)
    fast = accelerate(plain)
    without_steps()
    check_equal(fast.recognize(waves), expected)
    assert sum(len(result.tokens) for result in expected) > 5


def test_options_reach_the_decoder(plain, waves):
    fast = accelerate(plain, network="fused", precision="bfloat16", threads=2, search=tdt.Greedy(blank_penalty=100.0))
    assert len(fast.with_timestamps().recognize(waves[0]).tokens) > len(
        plain.with_timestamps().recognize(waves[0]).tokens
    )
    decoder = fast.asr._decoding._decoder
    assert (decoder.network.name, decoder.network.precision, decoder.network.threads) == ("fused", "bfloat16", 2)


class TestErrors:
    def test_another_version(self, plain, monkeypatch):
        monkeypatch.setattr("tdtdecode.integrations.onnx_asr.version", lambda _: "0.13.1")
        with pytest.raises(tdt.UnsupportedVersionError, match=r"onnx-asr 0\.13\.1 is installed; .* is 0\.12\.\*"):
            accelerate(plain)

    def test_not_installed(self, plain, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr("tdtdecode.integrations.onnx_asr.version", missing)
        with pytest.raises(tdt.MissingDependencyError, match=r"onnx-asr.*tdtdecode\[onnx-asr\]"):
            accelerate(plain)

    def test_something_else(self, plain):
        with pytest.raises(tdt.InputError, match="what onnx_asr.load_model returned, got str"):
            accelerate("demo")
        with pytest.raises(tdt.InputError, match="got NemoConformerTdt"):
            accelerate(plain.asr)

    def test_a_model_without_transducer(self, plain):
        model = type(plain)(NemoConformerCtc.__new__(NemoConformerCtc), plain.resampler)
        with pytest.raises(tdt.InputError, match="NemoConformerCtc, which is not a NeMo transducer"):
            accelerate(model)

    def test_another_directory(self, plain, tmp_path):
        with pytest.raises(tdt.BundleError, match="combined"):
            accelerate(plain, directory=tmp_path)
