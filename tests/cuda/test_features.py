"""Features computed on a card against the host's, for every kind of features, and their promise: no neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from tdtdecode.errors import InputError
from tdtdecode.speech.audio import FeatureExtractor
from tdtdecode.speech.audio.device_features import DeviceFeatureExtractor, together
from tdtdecode.speech.audio.features import FAMILIES
from tests.cuda.helpers import cupy  # noqa: F401 - a fixture
from tests.host_cuda import emulated_cupy

KINDS = [
    ("nemo", 80, "per_feature"), ("nemo", 128, "per_feature"), ("nemo", 80, None), ("nemo", 33, "per_feature"),
    ("gigaam", 64, None), ("gigaam", 80, "per_feature"), ("gigaam-v2", 64, None), ("gigaam-v2", 200, None),
]  # fmt: skip
"""Families, mel bins and normalisation: those of the known models, and others. Some filters of the last are empty."""


def speech(length, seed=0):
    """Noise whose loudness and colour vary, as in speech."""
    rng = np.random.default_rng([seed, length])
    white = rng.standard_normal(length + 8)
    envelope = np.repeat(rng.uniform(0.01, 1, length // 1600 + 1), 1600)[:length]
    return (0.2 * np.convolve(white, rng.uniform(-1, 1, 9))[8 : 8 + length] * envelope).astype(np.float32)


def on_card(kind):
    from tdtdecode.cuda.device import current_device

    extract = FeatureExtractor(kind[1], kind[2], kind[0])
    return extract, DeviceFeatureExtractor(extract, current_device())


def check(cupy, kind, recordings):  # noqa: F811
    extract, device = on_card(kind)
    expected, lengths = extract(recordings)
    found, counts = device(recordings)
    assert counts.dtype == lengths.dtype and counts.tolist() == lengths.tolist()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(cupy.asnumpy(found), expected, rtol=0, atol=1e-4)
    return expected


def test_every_family_is_among_them():
    assert {kind[0] for kind in KINDS} == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_speech(cupy, kind):  # noqa: F811
    expected = check(cupy, kind, [speech(16_000), speech(4_077, 1), speech(9_999, 2)])
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_around_the_edges_of_frames(cupy, kind):  # noqa: F811
    lengths = [0, 1, 159, 160, 161, 199, 200, 201, 202, 319, 320, 321, 399, 400, 401, 479, 480, 481, 640, 1600]
    check(cupy, kind, [speech(length) for length in lengths])


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_full_scale(cupy, kind):  # noqa: F811
    rng = np.random.default_rng(0)
    square = np.where(np.arange(8_000) // 40 % 2, 1.0, -1.0).astype(np.float32)
    click = np.zeros(4_000, np.float32)
    click[1_777] = 1.0
    check(cupy, kind, [np.zeros(4_000, np.float32), rng.choice([-1.0, 1.0], 8_000).astype(np.float32), square, click])


def exact(recording):
    """NeMo's features before normalisation, in float64."""
    emphasised = recording.astype(np.float64)
    emphasised[1:] -= 0.97 * recording[:-1].astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(emphasised, 200), 400)[::160][: len(recording) // 160]
    power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
    return np.log(FeatureExtractor(80).definition.filters(80).astype(np.float64) @ power.T + 2.0**-24)


@pytest.mark.parametrize("loudness", [1e-7, 1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("sound", ["tone", "noise"])
def test_tiny_energies(cupy, sound, loudness):  # noqa: F811
    """A pure tone leaves most bins to rounding, and so does noise that is all but silent: the card is as close to the
    truth as the host."""
    rng = np.random.default_rng(0)
    samples = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000)) if sound == "tone" else rng.uniform(-1, 1, 16_000)
    samples = (loudness * samples).astype(np.float32)
    extract, device = on_card(("nemo", 80, None))
    truth = exact(samples)
    host, card = extract([samples])[0][0, :, :100], cupy.asnumpy(device([samples])[0])[0, :, :100]
    assert np.abs(card - truth).max() <= max(1e-5, 1.5 * np.abs(host - truth).max())


def test_results_do_not_depend_on_the_batch(cupy):  # noqa: F811
    recordings = [speech(length, seed) for seed, length in enumerate([8_000, 200, 3_333, 0, 12_000])]
    _, device = on_card(KINDS[0])
    batch, lengths = device(recordings)
    batch = cupy.asnumpy(batch)
    for i in (4, 2, 0, 1, 3):
        alone, (count,) = device([recordings[i]])
        assert count == lengths[i]
        np.testing.assert_array_equal(batch[i, :, :count], cupy.asnumpy(alone)[0, :, :count])
        assert not batch[i, :, count:].any()


def test_long_recordings_are_copied_in_parts(cupy, monkeypatch):  # noqa: F811
    from tdtdecode.speech.audio import device_features

    monkeypatch.setattr(device_features, "_UPLOADED", 1 << 15)
    samples = speech(30_000)
    before = emulated_cupy.TRANSFERS["to_device"]
    check(cupy, KINDS[0], [samples])
    if cupy.ndarray is emulated_cupy.ndarray:
        tables, parts, parameters = 5, 4, 1
        assert emulated_cupy.TRANSFERS["to_device"] == before + tables + parts + parameters


def test_no_recordings(cupy):  # noqa: F811
    _, device = on_card(KINDS[0])
    features, lengths = device([])
    assert features.shape == (0, 80, 0) and lengths.shape == (0,)
    with pytest.raises(InputError, match=r"recordings\[0\] must be float32"):
        device([[0.0]])


@pytest.mark.parametrize("where", ["host", "card"])
def test_batches_are_put_together(cupy, where):  # noqa: F811
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((7, n)).astype(np.float32) for n in (5, 1, 9, 70, 30)]
    expected = np.zeros((5, 7, 30), np.float32)
    for row, part in zip(expected, parts):
        row[:, : part.shape[1]] = part[:, :30]
    if where == "card":
        parts = [cupy.asarray(part) for part in parts]
    # A part may be a slice of a longer recording.
    parts[4] = (cupy.asarray if where == "card" else np.asarray)(np.pad(expected[4], ((0, 0), (3, 2))))[:, 3:33]
    found = together(parts, 30)
    np.testing.assert_array_equal(found if where == "host" else cupy.asnumpy(found), expected)
