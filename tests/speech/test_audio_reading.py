"""Reading recordings: formats, channels, rates, PCM scaling, and every way a file can be wrong."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from tdtdecode.errors import InputError, MissingDependencyError
from tdtdecode.speech.audio import as_samples, read_audio
from tdtdecode.speech.audio.reading import audio_seconds

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")


def tone(seconds=1.0, rate=16_000, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    def write_file(name, samples, rate=16_000, **options):
        path = tmp_path / name
        soundfile.write(path, samples, rate, **options)
        return path

    return write_file


@pytest.mark.parametrize(("name", "tolerance"), [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.05)])
def test_formats(write, name, tolerance):
    samples = read_audio(write(name, tone()))
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - 16_000) <= 1_200  # MP3 pads
    assert np.abs(samples[2_000:14_000]).max() == pytest.approx(0.5, abs=tolerance)


def test_float_wav_is_read_exactly(write):
    np.testing.assert_array_equal(read_audio(write("a.wav", tone(), subtype="FLOAT")), tone())


def test_str_and_path(write):
    path = write("ünï cödé.wav", tone(0.1))
    np.testing.assert_array_equal(read_audio(str(path)), read_audio(path))
    np.testing.assert_array_equal(as_samples(path), read_audio(path))


def test_channels_are_averaged(write):
    stereo = np.stack([tone(), -0.5 * tone()], axis=1)
    path = write("stereo.wav", stereo, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), 0.25 * tone(), atol=1e-7)
    np.testing.assert_allclose(as_samples((stereo, 16_000)), 0.25 * tone(), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_the_tone(write, rate):
    samples = read_audio(write("a.wav", tone(rate=rate), rate, subtype="FLOAT"))
    assert abs(len(samples) - 16_000) <= 1
    np.testing.assert_allclose(samples[1_000:15_000], tone()[1_000:15_000], atol=2e-3)
    np.testing.assert_allclose(as_samples((tone(rate=rate), rate)), samples, atol=1e-6)


def test_other_model_rates(write):
    assert len(read_audio(write("a.wav", tone()), sample_rate=8_000)) == 8_000


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integer_pcm_is_scaled(dtype):
    full = np.iinfo(dtype)
    samples = as_samples((np.array([full.min, 0, full.max], dtype=dtype), 16_000))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, [-1, 0, 1], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype):
    assert as_samples((tone().astype(dtype), 16_000)).dtype == np.float32


@pytest.mark.parametrize("name", ["empty.wav", "empty.ogg"])
def test_no_samples(write, name):
    samples = read_audio(write(name, np.zeros(0, dtype=np.float32), 44_100))
    assert samples.shape == (0,) and samples.dtype == np.float32
    assert as_samples((np.zeros(0, dtype=np.float32), 44_100)).shape == (0,)
    assert as_samples((np.zeros((0, 2), dtype=np.int16), 44_100)).shape == (0,)


@pytest.mark.parametrize("make", [
    lambda path: None,
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"this is no recording " * 100),
    lambda path: path.write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt "),
], ids=["missing", "directory", "empty", "text", "header only"])
@pytest.mark.parametrize("name", ["a.wav", "a.raw", "a"])
def test_not_a_recording(tmp_path, make, name):
    path = tmp_path / name
    make(path)
    for read in (read_audio, audio_seconds):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)) and "WAV, FLAC, OGG or MP3" in str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("part", [0.3, 0.95])
def test_cut_short(write, name, part):
    path = write(name, np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"a\.\w+: "):
        read_audio(path)


@pytest.mark.parametrize(("name", "message"), [("a.mp3", "header promises"), ("a.ogg", "end of its OGG stream")])
def test_streams_cut_short_warn(write, caplog, name, message):
    path = write(name, np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32))
    read_audio(path)
    assert not caplog.text
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    assert 10_000 < len(read_audio(path)) < 40_000
    assert message in caplog.text


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_from_a_pipe_has_no_size(write, size):
    """ffmpeg and sox put a placeholder where they cannot seek back to write the size."""
    path = write("a.wav", tone(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(read_audio(path)) == 16_000


def test_wav_with_other_chunks(write):
    path = write("a.wav", tone(), subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + data[12:])
    assert len(read_audio(path)) == 16_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_bad_numbers(write, bad):
    samples = tone()
    samples[100] = bad
    with pytest.raises(InputError, match="finite"):
        as_samples((samples, 16_000))
    path = write("bad.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match=r"bad\.wav: .*finite"):
        read_audio(path)


@pytest.mark.parametrize(("audio", "message"), [
    (tone(), "path of a file or"),
    (None, "path of a file or"),
    ((tone(), 16_000, 1), "path of a file or"),
    ((tone(), 0), "rate"),
    ((tone(), -8_000), "rate"),
    ((tone(), 16_000.0), "rate"),
    ((tone(), True), "rate"),
    ((tone(), "16000"), "rate"),
    ((tone().astype(np.complex64), 16_000), "complex64"),
    ((np.zeros(10, dtype=np.uint8), 16_000), "uint8"),
    ((np.zeros(10, dtype=np.int64), 16_000), "int64"),
    ((np.array(["a"]), 16_000), "<U1"),
    ((np.float32(1), 16_000), "shape"),
    ((np.zeros((2, 3, 4), dtype=np.float32), 16_000), "shape"),
    ((np.zeros((100, 0), dtype=np.float32), 16_000), "shape"),
    ((np.zeros((2, 1_000), dtype=np.float32), 16_000), "transpose"),
])
def test_bad_arrays(audio, message):
    with pytest.raises(InputError, match=message):
        as_samples(audio)


def test_seconds_without_decoding(write):
    assert audio_seconds(write("a.flac", tone(1.5))) == pytest.approx(1.5)
    assert audio_seconds((tone(1.5, 8_000), 8_000)) == pytest.approx(1.5)


@pytest.mark.parametrize(("package", "rate"), [("soundfile", 16_000), ("soxr", 8_000)])
def test_missing_packages_are_named(write, monkeypatch, package, rate):
    path = write("a.wav", tone(rate=rate), rate)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*tdtdecode\[cpu\]"):
        read_audio(path)


def test_arrays_at_the_models_rate_need_no_package(monkeypatch):
    for package in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, package, None)
    assert len(as_samples((tone(), 16_000))) == 16_000
