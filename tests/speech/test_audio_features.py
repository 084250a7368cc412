"""The features against NeMo's own numbers, against onnx-asr, and their promises: no neighbours, no bad numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tdtdecode.errors import InputError
from tdtdecode.speech.audio import FeatureExtractor
from tdtdecode.speech.audio.features import mel_filters

REFERENCE = Path(__file__).parent / "nemo_features.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def cases():
    with np.load(REFERENCE) as arrays:
        return sorted({name.split("/")[0] for name in arrays.files})


def noise(length, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def assert_close(ours, theirs):
    difference = np.abs(ours - theirs)
    assert ours.shape == theirs.shape
    assert difference.size == 0 or (difference.mean() < 1e-4 and difference.max() < 1e-2)


@pytest.mark.parametrize("mel_bins", [80, 128])
@pytest.mark.parametrize("case", cases())
def test_equals_recorded_nemo(reference, case, mel_bins):
    samples = reference[f"{case}/samples"].astype(np.float32) / 32768
    features, lengths = FeatureExtractor(mel_bins)([samples])
    assert lengths.tolist() == [len(samples) // 160]
    assert_close(features[0], reference[f"{case}/{mel_bins}"])


def test_equals_recorded_nemo_without_normalisation(reference):
    samples = reference["noise/samples"].astype(np.float32) / 32768
    features, lengths = FeatureExtractor(80, normalize=None)([samples])
    assert_close(features[0, :, : lengths[0]], reference["noise/80/raw"][:, : lengths[0]])


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_equals_nemo_in_a_padded_batch(mel_bins):
    torch = pytest.importorskip("torch", reason="NeMo's own preprocessor needs torch")
    modules = pytest.importorskip("nemo.collections.asr.modules", reason="NeMo is not installed")
    recordings = [noise(length, seed) for seed, length in enumerate([112_077, 16_000, 161, 160, 40, 320, 8_000])]
    padded = np.zeros((len(recordings), max(map(len, recordings))), dtype=np.float32)
    for row, samples in zip(padded, recordings, strict=True):
        row[: len(samples)] = samples
    preprocessor = modules.AudioToMelSpectrogramPreprocessor(
        window_size=0.025, window_stride=0.01, n_fft=512, features=mel_bins, dither=0.0, pad_to=0
    ).eval()
    with torch.no_grad():
        theirs, counts = preprocessor(
            input_signal=torch.from_numpy(padded), length=torch.tensor([len(samples) for samples in recordings])
        )
    ours, lengths = FeatureExtractor(mel_bins)(recordings)
    assert lengths.tolist() == counts.tolist()
    assert_close(ours, theirs.numpy())


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_equals_onnx_asr(mel_bins):
    pytest.importorskip("onnx_asr", reason="onnx-asr is not installed")
    from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy

    recordings = [noise(length, seed) for seed, length in enumerate([50_000, 16_001, 3_199])]
    padded = np.zeros((3, 50_000), dtype=np.float32)
    for row, samples in zip(padded, recordings, strict=True):
        row[: len(samples)] = samples
    theirs, counts = NemoPreprocessorNumpy(f"nemo{mel_bins}")(padded, np.array([len(r) for r in recordings]))
    ours, lengths = FeatureExtractor(mel_bins)(recordings)
    assert lengths.tolist() == counts.tolist()
    assert_close(ours, theirs)


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
@pytest.mark.parametrize("mel_bins", [1, 40, 80, 128])
def test_filters_equal_librosa(mel_bins):
    import librosa

    np.testing.assert_allclose(
        mel_filters(mel_bins), librosa.filters.mel(sr=16_000, n_fft=512, n_mels=mel_bins), rtol=1e-5, atol=1e-9
    )


def test_rows_do_not_depend_on_their_neighbours():
    from hypothesis import given, settings
    from hypothesis import strategies as st

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, 3_000), min_size=1, max_size=5), st.integers(0, 4))
    def any_neighbours(sizes, which):
        recordings = [noise(size, seed) for seed, size in enumerate(sizes)]
        which %= len(sizes)
        extract = FeatureExtractor(80)
        together, lengths = extract(recordings)
        alone, length = extract([recordings[which]])
        assert lengths[which] == length[0]
        np.testing.assert_array_equal(together[which, :, : length[0]], alone[0, :, : length[0]])
        for row, frames in zip(together, lengths, strict=True):
            assert not row[:, frames:].any()
        assert np.isfinite(together).all()

    any_neighbours()


def test_blocks_leave_no_seam():
    """A recording of several blocks has the same raw features as its pieces, away from their ends."""
    samples = noise(160 * 1_000)
    extract = FeatureExtractor(80, normalize=None)
    whole = extract([samples])[0][0]
    piece = extract([samples[160 * 500 :]])[0][0]
    np.testing.assert_allclose(whole[:, 510:990], piece[:, 10:490], atol=2e-4)


@pytest.mark.parametrize("samples", [1, 159, 160, 319, 1_600, 16_000])
def test_silence_is_zero(samples):
    features, lengths = FeatureExtractor(80)([np.zeros(samples, dtype=np.float32)])
    assert lengths.tolist() == [samples // 160]
    assert features.shape == (1, 80, samples // 160 + 1)
    assert not features.any()


def test_the_input_is_left_alone():
    samples = noise(1_000)
    before = samples.copy()
    FeatureExtractor(80)([samples])
    np.testing.assert_array_equal(samples, before)


def test_empty_inputs():
    features, lengths = FeatureExtractor(80)([])
    assert features.shape == (0, 80, 0) and lengths.shape == (0,)
    features, lengths = FeatureExtractor(80)([np.zeros(0, dtype=np.float32)])
    assert features.shape == (1, 80, 1) and lengths.tolist() == [0]


@pytest.mark.parametrize("options", [{"mel_bins": 0}, {"mel_bins": 80, "normalize": "all_features"}])
def test_bad_options(options):
    with pytest.raises(InputError, match=next(reversed(options))):
        FeatureExtractor(**options)
