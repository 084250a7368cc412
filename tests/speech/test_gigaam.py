"""GigaAM's features: those of its own code, chosen by what a model states, never by shape alone."""

from __future__ import annotations

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.prepare import convert, inspect
from tdtdecode.speech.audio.features import FeatureExtractor
from tdtdecode.speech.loading import load_model
from tests.bundle.helpers import configure, set_metadata, small_bundle

VERSIONS = {"gigaam_v2": "gigaam-v2", "gigaam_v3": "gigaam"}
GITHUB = "https://github.com/salute-developers/GigaAM"
RNG = np.random.default_rng(0)
TONE = (0.1 * np.sin(np.arange(24_000) * 0.3) + 0.01 * RNG.standard_normal(24_000)).astype(np.float32)


def gigaam_bundle(directory, layout="split", mel_bins=64, **metadata):
    small_bundle(directory, layout, durations=(), mel_bins=mel_bins)
    entries = {"is_giga_am": "1", "normalize_type": "", "feat_dim": None, "url": None, "version": None, **metadata}
    set_metadata(directory / ("encoder.onnx" if layout == "split" else "encoder-model.onnx"), **entries)
    return directory


def its_own(name, recording):
    """What onnx-asr computes, whose numbers are those of GigaAM's own code."""
    preprocessor = pytest.importorskip("onnx_asr.preprocessors.numpy_preprocessor", reason="onnx-asr is not installed")
    features, (length,) = preprocessor.GigaamPreprocessorNumpy(name)(recording[None], np.array([len(recording)]))
    return features[0, :, :length]


@pytest.mark.parametrize("samples", [320, 321, 479, 480, 16_000, 24_000])
@pytest.mark.parametrize("name", VERSIONS)
def test_equal_to_its_own_code(name, samples):
    recording = TONE[:samples]
    expected = its_own(name, recording)
    (features,), (length,) = FeatureExtractor(64, None, VERSIONS[name])([recording])
    assert features.shape == expected.shape and length == expected.shape[1]
    np.testing.assert_allclose(features, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
def test_levels_are_clamped(name, value):
    recording = np.full(4_000, value, np.float32)
    (features,), _ = FeatureExtractor(64, None, VERSIONS[name])([recording])
    np.testing.assert_allclose(features, its_own(name, recording), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", VERSIONS.values())
def test_a_batch_is_its_recordings(family):
    extract = FeatureExtractor(64, None, family)
    recordings = [TONE[:1_000], TONE[:0], TONE[:24_000], TONE[:150]]
    features, lengths = extract(recordings)
    assert lengths.tolist() == [extract.frames(len(recording)) for recording in recordings]
    for row, length, recording in zip(features, lengths, recordings, strict=True):
        np.testing.assert_array_equal(row[:, :length], extract([recording])[0][0, :, :length])
        assert not row[:, length:].any()


@pytest.mark.parametrize(("metadata", "family"), [
    ({}, "gigaam"), ({"version": "2"}, "gigaam"), ({"version": "3", "model_author": GITHUB}, "gigaam"),
    ({"version": "1", "model_author": GITHUB}, "gigaam-v2"), ({"version": "2", "model_author": GITHUB}, "gigaam-v2"),
    ({"is_giga_am": None, "normalize_type": "per_feature"}, "nemo"), ({"is_giga_am": "0"}, "nemo"),
])  # fmt: skip
def test_what_a_model_states_decides(tmp_path, metadata, family):
    bundle = read_bundle(gigaam_bundle(tmp_path, **metadata))
    assert (bundle.features.family, bundle.features.mel_bins) == (family, 64)
    features = next(fact.value for fact in inspect(tmp_path).facts if fact.name == "features")
    assert features == family


def test_the_model_gets_these_features(tmp_path):
    model = load_model(gigaam_bundle(tmp_path))
    expected = its_own("gigaam_v3", TONE)
    frames, counts = model.encoder(expected[None], np.array([expected.shape[1]]))
    frames = frames.numpy() if hasattr(frames, "numpy") else np.asarray(frames)
    (wanted,) = model.decoder.decode(frames, counts)
    found = model.recognize((TONE, 16_000))
    assert found.text == model.decoder.vocabulary.detokenize(wanted.tokens) and found.text
    assert model.recognize((TONE[:200], 16_000)).text == ""


@pytest.mark.parametrize("layout", ["split", "combined"])
def test_converting_keeps_the_family(tmp_path, layout):
    other = "combined" if layout == "split" else "split"
    converted = convert(gigaam_bundle(tmp_path / "a", layout), tmp_path / "b", other)
    assert (converted.features.family, converted.features.normalize) == ("gigaam", None)


@pytest.mark.parametrize(("file", "model_type", "family"), [
    ("config.json", "gigaam-v3-rnnt", "gigaam"), ("config.json", "gigaam-v2-rnnt", "gigaam-v2"),
    ("config.json", "nemo-conformer-tdt", "nemo"), ("config.json", "parakeet", "nemo"),
])  # fmt: skip
def test_the_type_in_a_configuration(tmp_path, file, model_type, family):
    small_bundle(tmp_path, "combined", mel_bins=64)
    configure(tmp_path / file, lambda data: data.update(model_type=model_type))
    assert read_bundle(tmp_path).features.family == family


@pytest.mark.parametrize("model_type", ["zipformer2", "kaldi-rnnt", "whisper", "icefall"])
@pytest.mark.parametrize("layout", ["split", "combined"])
def test_other_families_are_refused_by_name(tmp_path, layout, model_type):
    """Their features have the shape of NeMo's, too."""
    small_bundle(tmp_path, layout, mel_bins=80)
    if layout == "split":
        set_metadata(tmp_path / "encoder.onnx", model_type=model_type)
    else:
        configure(tmp_path / "config.json", lambda data: data.update(model_type=model_type))
    with pytest.raises(tdt.BundleError, match=f"model_type: {model_type}: .* does not compute"):
        read_bundle(tmp_path)
    assert not any(use.usable for use in inspect(tmp_path).uses)


def test_wrong_arguments():
    with pytest.raises(tdt.InputError, match="family must be .*'gigaam'.*, got 'kaldi'"):
        FeatureExtractor(64, None, "kaldi")
