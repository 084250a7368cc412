"""Random bundles behave like trained models, and other runtimes take them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benches.random_bundle import make_bundle, random_encoder_out, random_weights
from benches.random_weights import FRAME_SECONDS
from tdtdecode.bundle import read_bundle
from tests.bundle.helpers import SMALL

SIZES = {"encoder_size": 32, "predictor_size": 24, "predictor_layers": 2, "joint_size": 32}


@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), (1, 2, 3, 4), ()], ids=["01234", "1234", "rnnt"])
def test_rates_are_tuned(durations):
    weights = random_weights(200, durations, **SIZES, seed=3)
    frames = random_encoder_out(1500, SIZES["encoder_size"], seed=3).T
    rate = weights.count_tokens(weights.project_frames(frames)) / (len(frames) * FRAME_SECONDS)
    assert 1.5 < rate < 6.5  # tuned for 3.3 on fewer frames
    if durations:
        output, _ = weights.predict(weights.blank, weights.start())
        rows = weights.rows(weights.project_frames(frames), weights.project_prediction(output))
        mean = np.asarray(durations)[rows[:, 201:].argmax(1)].mean()
        assert 2.0 < mean < 3.0
    assert not weights.embedding[weights.blank].any()


def test_encoder_output_has_unit_variance_and_memory():
    out = random_encoder_out(4000, 8, seed=1)
    assert out.shape == (8, 4000) and out.dtype == np.float32
    assert out.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(out[:, 1:].ravel(), out[:, :-1].ravel())[0, 1] == pytest.approx(0.6, abs=0.05)
    np.testing.assert_array_equal(out, random_encoder_out(4000, 8, seed=1))
    assert random_encoder_out(0, 8).shape == (8, 0)


def test_seeds_differ_and_repeat(tmp_path):
    names = [make_bundle(tmp_path / name, seed=seed, **SMALL) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    data = [(directory / "decoder_joint-model.onnx").read_bytes() for directory in names]
    assert data[0] == data[1] != data[2]


def test_command_line(tmp_path):
    arguments = ["--layout", "split", "--vocab-size", "9", "--encoder-size", "8", "--predictor-size", "6"]
    arguments += ["--joint-size", "5", "--durations", "0", "1", "--mel-bins", "8", "--external-weights"]
    command = [sys.executable, "-m", "benches.random_bundle", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    bundle = read_bundle(done.stdout.strip())
    assert (bundle.spec.vocab_size, bundle.spec.durations) == (9, (0, 1))


def audio(seconds=2.0):
    return np.random.default_rng(0).standard_normal(int(16000 * seconds)).astype(np.float32) * 0.1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sherpa_onnx_takes_the_split_layout(tmp_path, precision):
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa_onnx is not installed")
    directory = make_bundle(tmp_path, "split", mel_bins=80, precision=precision, **{**SMALL, "vocab_size": 30})
    suffix = "" if precision == "fp32" else f".{precision}"
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        *(str(directory / f"{name}{suffix}.onnx") for name in ("encoder", "decoder", "joiner")),
        tokens=str(directory / "tokens.txt"), model_type="nemo_transducer", num_threads=1,
    )
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, audio())
    recognizer.decode_stream(stream)
    assert all(0 <= time <= 2 for time in stream.result.timestamps)


def test_onnx_asr_takes_the_combined_layout(tmp_path):
    onnx_asr = pytest.importorskip("onnx_asr", reason="onnx-asr is not installed")
    directory = make_bundle(tmp_path, "combined", mel_bins=80, **{**SMALL, "vocab_size": 30})
    model = onnx_asr.load_model("nemo-conformer-tdt", directory)
    assert isinstance(model.recognize(audio()), str)
