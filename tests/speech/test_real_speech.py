"""Real speech through reading and features: the recordings of LibriVox in Debian's package pocketsphinx-testdata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

from tdtdecode.errors import AudioWarning, InputError  # noqa: E402
from tdtdecode.speech.audio import FeatureExtractor, as_samples, audio_seconds, read_audio  # noqa: E402
from tests.speech.containers import CONTAINERS, encoded  # noqa: E402

FOLDER = Path("/usr/share/pocketsphinx/test/data")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="Debian's package pocketsphinx-testdata is not installed")
RECORDINGS = sorted((FOLDER / "librivox").glob("*.wav"))


def assert_close(ours, theirs):
    difference = np.abs(ours - theirs)
    assert ours.shape == theirs.shape and difference.mean() < 1e-4 and difference.max() < 1e-2


@pytest.fixture(scope="module")
def recordings():
    assert RECORDINGS
    return [read_audio(path) for path in RECORDINGS]


def padded(recordings):
    batch = np.zeros((len(recordings), max(map(len, recordings))), np.float32)
    for row, samples in zip(batch, recordings, strict=True):
        row[: len(samples)] = samples
    return batch, np.array([len(samples) for samples in recordings])


def test_they_are_read_exactly(recordings, recwarn):
    for path, samples in zip(RECORDINGS, recordings, strict=True):
        expected, rate = soundfile.read(path, dtype="float32")
        assert rate == 16_000 and audio_seconds(path) == len(samples) / rate
        np.testing.assert_array_equal(samples, expected)
    for path in sorted((FOLDER / "cards").glob("*.wav")):
        assert len(read_audio(path)) > 16_000
    assert not recwarn


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_features_equal_nemo(recordings, mel_bins):
    torch = pytest.importorskip("torch", reason="NeMo's own preprocessor needs torch")
    modules = pytest.importorskip("nemo.collections.asr.modules", reason="NeMo is not installed")
    preprocessor = modules.AudioToMelSpectrogramPreprocessor(
        window_size=0.025, window_stride=0.01, n_fft=512, features=mel_bins, dither=0.0, pad_to=0
    ).eval()
    batch, counts = padded(recordings)
    with torch.no_grad():
        theirs, lengths = preprocessor(input_signal=torch.from_numpy(batch), length=torch.from_numpy(counts))
    ours, ours_lengths = FeatureExtractor(mel_bins)(recordings)
    assert ours_lengths.tolist() == lengths.tolist()
    assert_close(ours, theirs.numpy())


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_features_equal_onnx_asr(recordings, mel_bins):
    """onnx-asr's features are NeMo's, computed apart from ours: the test for where NeMo is not installed."""
    pytest.importorskip("onnx_asr", reason="onnx-asr is not installed")
    from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy

    theirs, lengths = NemoPreprocessorNumpy(f"nemo{mel_bins}")(*padded(recordings))
    ours, ours_lengths = FeatureExtractor(mel_bins)(recordings)
    assert ours_lengths.tolist() == lengths.tolist()
    assert_close(ours, theirs)


@pytest.mark.parametrize("stated", [0, 500, "44 bytes more", "twice"])
def test_recorders_that_wrote_a_wrong_size(recordings, stated):
    for path, samples in zip(RECORDINGS, recordings, strict=True):
        number = {"44 bytes more": len(samples) + 22, "twice": 2 * len(samples)}.get(stated, stated)
        with pytest.warns(AudioWarning, match="its header states"):
            found = read_audio(CONTAINERS["wav"].states(path.read_bytes(), number))
        np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("name", ["flac", "aiff", "caf", "w64", "rf64", "au", "sph"])
def test_containers_that_lose_nothing(recordings, name, recwarn):
    features, _ = FeatureExtractor(80)(recordings)
    found = [read_audio(CONTAINERS[name].written(samples)) for samples in recordings]
    assert_close(FeatureExtractor(80)(found)[0], features)
    assert not recwarn


@pytest.mark.parametrize(("container", "codec"), [("ipod", "alac"), ("mov", "pcm_s16le"), ("matroska", "flac")])
def test_media_that_lose_nothing(recordings, container, codec, recwarn):
    pytest.importorskip("av", reason="PyAV is not installed")
    for samples in recordings[:2]:
        found = read_audio(encoded(container, codec, samples))
        np.testing.assert_allclose(found[: len(samples)], samples, atol=1e-4)
    assert not recwarn


def test_a_stereo_recording_with_one_channel_turned_round(recordings):
    for samples in recordings[:2]:
        file = io.BytesIO()
        soundfile.write(file, np.stack([samples, -samples], axis=1), 16_000, format="WAV", subtype="PCM_16")
        with pytest.warns(AudioWarning, match="its channels cancel each other"):
            found = read_audio(file)
        assert np.corrcoef(found, samples)[0, 1] > 0.999


def test_samples_without_a_header_are_refused():
    with pytest.raises(InputError, match=r"goforward\.raw: not a recording that can be read"):
        as_samples(FOLDER / "goforward.raw")
