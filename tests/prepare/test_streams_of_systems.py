"""Streaming models that this package writes: sherpa-onnx and onnxruntime-genai find the same tokens with them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tdtdecode import load_model
from tdtdecode.prepare import convert
from tests import systems
from tests.conventions import GOLDEN, LAYERS_FIRST, edited, rename, without_metadata
from tests.speech.test_cache_aware import PARAKEET_RS
from tests.speech.test_streaming import MODELS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systems are tried in forked processes")
RNNT = [name for name in MODELS if not name.startswith("tdt")]


def features_of_sherpa_onnx(mel_bins: int) -> np.ndarray:
    """float32 [mel, T] of the audio that `systems.ask` uses, with the options that sherpa-onnx sets for NeMo's models:
    frames lie half a frame later than NeMo's, and the logarithm has another floor."""
    fbank = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    options = fbank.FbankOptions()
    frames, mel = options.frame_opts, options.mel_opts
    frames.samp_freq, frames.dither, frames.snip_edges = systems.RATE, 0, False
    frames.remove_dc_offset, frames.window_type = False, "hann"
    mel.num_bins, mel.low_freq, mel.high_freq, mel.is_librosa = mel_bins, 0, 8000, True
    computer = fbank.OnlineFbank(options)
    computer.accept_waveform(systems.RATE, systems.live_audio().tolist())
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)], np.float32).T


def tokens_by_windows(model, features: np.ndarray) -> str:
    """The tokens of a stream that is walked as sherpa-onnx does: whole windows from the first feature frame on."""
    encoder, state, parts = model.encoder, model.encoder.begin(), []
    caches = encoder.caches
    for start in range(0, features.shape[1] - caches.window, caches.shift):
        window = features[None, :, start : start + caches.window]
        (frames,), (state,) = encoder.step(window, np.array([caches.window]), [state], [encoder.language(None)])
        parts.append(frames)
    (found,) = model.decoder.decode([np.concatenate(parts, axis=1)])
    pieces = model.bundle.vocabulary.pieces
    return " ".join(pieces[token].replace("\u2581", " ").strip() for token in found.tokens)


@pytest.mark.parametrize("name", RNNT)
def test_sherpa_onnx_finds_our_tokens(tmp_path, name):
    """Of a file as its scripts write it, and of those that are converted from the other conventions."""
    edited(tmp_path / "given", name)
    convert(tmp_path / "given", tmp_path / "genai", "genai")
    convert(tmp_path / "genai", tmp_path / "from-genai", "split")
    languages = ("prompt_dictionary", "auto_prompt_id")
    edited(tmp_path / "rs", name, without_metadata(*languages), LAYERS_FIRST, rename(PARAKEET_RS))
    convert(tmp_path / "rs", tmp_path / "combined", "combined")
    convert(tmp_path / "combined", tmp_path / "from-rs", "split")
    directories = [tmp_path / folder for folder in ("given", "from-genai", "from-rs")]
    found = [answer.get("text", answer) for answer in systems.ask("sherpa-onnx", [(d, "online") for d in directories])]
    expected = tokens_by_windows(load_model(GOLDEN / name, layout="split"), features_of_sherpa_onnx(128))
    assert len(expected.split()) > 40 and found == [expected] * 3


@pytest.mark.parametrize("name", RNNT)
def test_onnxruntime_genai_finds_our_tokens(tmp_path, name):
    """From its own features, which are NeMo's but for rounding where the audio is loud enough."""
    convert(edited(tmp_path / "given", name), tmp_path / "genai", "genai")
    (answer,) = systems.ask("onnxruntime-genai", [(tmp_path / "genai", "online")])
    model = load_model(tmp_path / "genai")
    language = None
    if model.encoder.caches.prompt is not None:  # it takes the number 0 if it is told none
        (language,) = [name for name, number in model.encoder.caches.languages.items() if number == 0]
    stream = model.stream(language=language)
    stream.feed_features(np.load(tmp_path / "genai" / "features.npy").T)
    expected = stream.finish().hypothesis.tokens.tolist()
    assert len(expected) > 15 and answer["text"] == " ".join(map(str, expected))
