"""Reading recordings: formats, channels, rates, PCM scaling, and every way a file can be wrong.

Lengths that headers state wrongly have their own file, and so have the places that recordings come from.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tdtdecode.errors import AudioWarning, InputError, MissingDependencyError
from tdtdecode.speech.audio import as_samples, audio_seconds, read_audio
from tdtdecode.speech.hub import demo_directory

try:
    import resource
except ImportError:  # Windows
    resource = None

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


def stereo(path, left, right):
    soundfile.write(path, np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    return path


class TestChannelsThatCancel:
    def test_one_channel_is_taken(self, tmp_path):
        path = stereo(tmp_path / "a.wav", tone(), -tone())
        with pytest.warns(AudioWarning, match=r"a\.wav: its channels cancel each other in 1\.00 s: there channel 1 is"):
            samples = read_audio(path)
        np.testing.assert_array_equal(samples, tone())

    def test_in_arrays(self):
        both = np.stack([tone(2.5), -tone(2.5)], axis=1)
        with pytest.warns(AudioWarning, match="audio: its channels cancel each other in 2.50 s"):
            np.testing.assert_array_equal(as_samples((both, 16_000)), tone(2.5))
        with pytest.warns(AudioWarning):
            assert np.abs(as_samples(((both * 32_767).astype(np.int16), 16_000))).max() > 0.4

    def test_nearly(self, tmp_path):
        rng = np.random.default_rng(0)
        quiet = 0.005 * rng.standard_normal(16_000)
        with pytest.warns(AudioWarning):
            samples = read_audio(stereo(tmp_path / "a.wav", tone() + quiet, -tone()))
        assert np.abs(samples).max() > 0.4

    @pytest.mark.parametrize("sounds", ["offset", "hum", "noise", "same noise", "later", "clipped", "louder"])
    def test_what_is_left_of_the_mean_does_not_hide_it(self, sounds, recwarn):
        """What the channels share is no speech: it stays in the mean while all that was said is gone."""
        rng = np.random.default_rng(0)
        speech, rate = soundfile.read(demo_directory() / "speech.flac", dtype="float32")
        n = len(speech)
        hum, noise = 0.05 * np.sin(2 * np.pi * 50 / rate * np.arange(n)), 0.01 * rng.standard_normal(n)
        left, right = {
            "offset": lambda: (speech + 0.1, 0.1 - speech),
            "hum": lambda: (speech + hum, hum - speech),
            "noise": lambda: tuple(sign * speech + 0.01 * rng.standard_normal(n) for sign in (1, -1)),
            "same noise": lambda: (speech + noise, noise - speech),
            "later": lambda: (speech, -np.roll(speech, 1)),
            "clipped": lambda: (np.clip(4 * speech, -0.5, 0.5), -np.clip(4 * speech, -0.5, 0.5)),
            "louder": lambda: (speech, -1.3 * speech),
        }[sounds]()
        with pytest.warns(AudioWarning, match="its channels cancel each other"):
            samples = as_samples((np.stack([left, right], axis=1).astype(np.float32), rate))
        assert abs(np.corrcoef(samples, speech)[0, 1]) > 0.8

    @pytest.mark.parametrize("samples", [1, 5, 8, 12, 16, 30, 60, 100, 150])
    def test_speech_that_reaches_a_microphone_later(self, samples, recwarn):
        """Voiced speech is nearly periodic, so half a period later it is nearly the other way round."""
        speech, rate = soundfile.read(demo_directory() / "speech.flac", dtype="float32")
        both = np.stack([speech, np.roll(speech, samples)], axis=1)
        np.testing.assert_array_equal(as_samples((both, rate)), both.mean(axis=1, dtype=np.float32))
        assert not recwarn

    @pytest.mark.parametrize("channels", [
        lambda s, rng: [s, -s, *(0.003 * rng.standard_normal((6, len(s))))],
        lambda s, rng: [s, -s] * 4,
        lambda s, rng: [s, s, -2 * s],
        lambda s, rng: [0 * s, 0 * s, s, 0 * s, -0.9 * s, 0 * s],
        lambda s, rng: [s, -s] * 50,
    ], ids=["noise beside", "eight", "three", "5.1", "hundred"])
    def test_in_many_channels(self, channels):
        speech = tone(2.0) * np.linspace(0.2, 1, 32_000).astype(np.float32)
        all_of_them = np.stack(channels(speech, np.random.default_rng(0)), axis=1).astype(np.float32)
        with pytest.warns(AudioWarning, match="its channels cancel each other in 2.00 s"):
            samples = as_samples((all_of_them, 16_000))
        assert abs(np.corrcoef(samples, speech)[0, 1]) > 0.99

    def test_in_half_seconds(self):
        speech = tone(4.0)
        sign = np.where(np.arange(64_000) // 8_000 % 2, -1, 1)
        with pytest.warns(AudioWarning, match="in 2.00 s"):
            samples = as_samples((np.stack([speech, sign * speech], axis=1), 16_000))
        np.testing.assert_allclose(samples, speech, atol=1e-7)

    def test_in_a_part(self, tmp_path):
        left = tone(6.0)
        sign = np.where(np.arange(6 * 16_000) < 3 * 16_000, 1.0, -1.0)
        with pytest.warns(AudioWarning, match=r"in 3\.00 s"):
            samples = read_audio(stereo(tmp_path / "a.wav", left, sign * left))
        np.testing.assert_allclose(samples, left, atol=1e-7)

    def test_two_of_eight(self):
        channels = np.zeros((32_000, 8), np.float32)
        channels[:, 3], channels[:, 6] = tone(2.0), -tone(2.0)
        with pytest.warns(AudioWarning, match="there channel 4 is taken"):
            np.testing.assert_array_equal(as_samples((channels, 16_000)), tone(2.0))

    @pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
    def test_lossy_codecs(self, form, subtype):
        """What they leave of the mean is noise."""
        file = io.BytesIO()
        speech, rate = soundfile.read(demo_directory() / "speech.flac")
        soundfile.write(file, np.stack([speech, -speech], axis=1), rate, format=form, subtype=subtype)
        with pytest.warns(AudioWarning, match="its channels cancel each other in [89]"):
            samples = read_audio(file)
        assert np.corrcoef(samples[: len(speech)], speech[: len(samples)])[0, 1] > 0.9

    @pytest.mark.parametrize("right", [
        lambda left: left, lambda left: 0 * left, lambda left: -0.5 * left, lambda left: np.roll(left, 5),
        lambda left: np.random.default_rng(1).uniform(-0.5, 0.5, len(left)),
    ], ids=["same", "silent", "half", "late", "other"])
    def test_others_are_averaged(self, tmp_path, recwarn, right):
        left = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
        other = right(left).astype(np.float32)
        samples = read_audio(stereo(tmp_path / "a.wav", left, other))
        np.testing.assert_array_equal(samples, np.stack([left, other], axis=1).mean(axis=1, dtype=np.float32))
        assert not recwarn

    def test_silence_and_its_noise(self, tmp_path, recwarn):
        """The last bit of a decoder's rounding is no sound that could be lost."""
        left = np.concatenate([tone(2.0), np.full(32_000, 1e-5, np.float32)])
        right = np.concatenate([tone(2.0), np.full(32_000, -1e-5, np.float32)])
        read_audio(stereo(tmp_path / "a.wav", left, right))
        as_samples((np.zeros((16_000, 2), np.float32), 16_000))
        assert not recwarn

    def test_one_live_channel_of_eight(self, recwarn):
        channels = np.zeros((32_000, 8), np.float32)
        channels[:, 5] = tone(2.0)
        np.testing.assert_allclose(as_samples((channels, 16_000)), tone(2.0) / 8, atol=1e-7)
        assert not recwarn


@pytest.mark.skipif(resource is None, reason="memory cannot be limited here")
class TestNumbersThatSizeMemory:
    @pytest.fixture(autouse=True)
    def little_memory(self):
        """A gigabyte more than there is: what the header asks for would not fit."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, before)

    @staticmethod
    def recording(channels, rate, size):
        """A WAV file with that many bytes of samples."""
        numbers = 1, channels, rate, 2 * channels * rate % (1 << 32), 2 * channels % (1 << 16), 16
        return wav(chunk(b"fmt ", struct.pack("<HHIIHH", *numbers)), chunk(b"data", bytes(size)))

    @pytest.mark.parametrize("rate", [1, 7, 999, 1_000_001, 2**31 - 1])
    def test_rates(self, rate):
        data = self.recording(1, rate, 96_000)
        with pytest.raises(InputError, match=rf"<bytes>: a sample rate of {rate:,} Hz; expected 1,000 to 1,000,000"):
            read_audio(data)
        with pytest.raises(InputError, match=rf"audio: a sample rate of {rate:,} Hz"):
            as_samples((tone(), rate))
        assert audio_seconds(data) > 0

    @pytest.mark.parametrize("channels", [1_024, 1_000, 255])
    def test_channels(self, channels):
        assert len(read_audio(self.recording(channels, 384_000, 2 * channels * 500))) == pytest.approx(21, abs=1)

    @pytest.mark.parametrize("channels", [0, 1_025, 65_535])
    def test_more_channels_than_there_are(self, channels):
        with pytest.raises(InputError, match="not a recording that can be read"):
            read_audio(self.recording(channels, 16_000, 96_000))


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


FORMATS = [
    ("WAV", subtype) for subtype in
    (
        "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610",
        "G721_32",
    )
] + [
    ("WAVEX", "PCM_16"), ("WAVEX", "FLOAT"), ("RF64", "PCM_16"), ("RF64", "FLOAT"), ("W64", "PCM_24"),
    ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "ULAW"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("AU", "PCM_16"),
    ("AU", "ULAW"), ("VOC", "PCM_16"), ("NIST", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "subtype"), FORMATS, ids="-".join)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "raw", "txt", ""])
def test_every_format_whatever_its_name(tmp_path, recwarn, form, subtype, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(), 16_000, format=form, subtype=subtype)
    samples = read_audio(path)
    assert 16_000 <= len(samples) < 17_200 and np.abs(samples[2_000:14_000]).max() == pytest.approx(0.5, abs=0.1)
    assert not recwarn


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF", "FLAC", "OGG", "RF64", "W64", "WAV", "WAVEX", "NIST"])
@pytest.mark.parametrize("length", [1, 2, 159, 160, 255, 1_023, 2_000])
def test_short_ones(recwarn, form, length):
    file = io.BytesIO()
    soundfile.write(file, tone()[:length], 16_000, format=form)
    assert len(read_audio(file)) == length and not recwarn


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(*chunks):
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def test_headers_of_every_kind(recwarn):
    """A float format without its extension, chunks before the samples, the extensible format, big-endian numbers."""
    samples, pcm = tone(), (tone() * 32_767).astype("<i2")
    short_float = chunk(b"fmt ", struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32))
    plain = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
    long_plain = chunk(b"fmt ", struct.pack("<HHIIHHH", 1, 1, 16_000, 32_000, 2, 16, 0))
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    extensible = chunk(b"fmt ", struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4) + guid)
    info = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 4) + b"me\0\0")
    before = chunk(b"bext", bytes(602)) + info + chunk(b"JUNK", bytes(27))
    np.testing.assert_array_equal(read_audio(wav(short_float, chunk(b"data", samples.tobytes()))), samples)
    for header in (plain, long_plain, extensible, before + plain, plain + before):
        np.testing.assert_array_equal(read_audio(wav(header, chunk(b"data", pcm.tobytes()))), pcm / np.float32(32_768))
    file = io.BytesIO()
    soundfile.write(file, pcm, 16_000, format="WAV", subtype="PCM_16", endian="BIG")
    assert file.getvalue().startswith(b"RIFX")
    np.testing.assert_array_equal(read_audio(file), pcm / np.float32(32_768))
    assert not recwarn


@pytest.mark.parametrize("rate", [4_000, 6_000, 96_000, 192_000, 384_000])
def test_rates_of_all_kinds(write, recwarn, rate):
    assert len(read_audio(write("a.wav", tone(rate=rate), rate))) == 16_000 and not recwarn


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_bad_numbers(write, bad):
    samples = tone()
    samples[100] = bad
    with pytest.raises(InputError, match="finite"):
        as_samples((samples, 16_000))
    path = write("bad.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match=r"bad\.wav: .*finite"):
        read_audio(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="finite"):
            as_samples((np.stack([samples, -samples, samples], axis=1), 16_000))


@pytest.mark.parametrize(("audio", "message"), [
    (tone(), "audio must be a recording: a path, bytes"),
    (None, "audio must be a recording: a path, bytes"),
    ((tone(), 16_000, 1), "audio must be a recording: a path, bytes"),
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


class Tensor:
    """An array of another library, which NumPy asks for its numbers."""

    def __init__(self, result):
        self._result = result

    def __array__(self, dtype=None, copy=None):
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.mark.parametrize("samples", [
    Tensor(tone()), memoryview(tone()), tone().tolist(), np.repeat(tone(), 2)[::2], np.asfortranarray(tone()[:, None]),
    np.ma.masked_array(tone()),
])
def test_what_numpy_makes_an_array_of(samples):
    np.testing.assert_allclose(as_samples((samples, 16_000)), tone(), atol=1e-7)


def test_arrays_that_cannot_be_written_to():
    samples = tone()
    samples.flags.writeable = False
    np.testing.assert_array_equal(as_samples((samples, 16_000)), tone())


@pytest.mark.parametrize(("samples", "message"), [
    (Tensor(TypeError("can't convert cuda:0 device type tensor")), r"Tensor is not \(can't convert cuda:0"),
    (Tensor(RuntimeError("Can't call numpy() on Tensor that requires grad")), r"Tensor is not \(Can't call numpy"),
    ([[1.0], [1.0, 2.0]], r"list is not \("),
])
def test_what_numpy_makes_no_array_of(samples, message):
    with pytest.raises(InputError, match=f"^audio: samples must be an array; {message}"):
        as_samples((samples, 16_000))


@pytest.mark.parametrize("shape", [(2, 16_000), (1, 16_000), (2, 200), (1, 33), (100, 257), (8, 100)])
def test_channels_first(shape):
    with pytest.raises(InputError, match="transpose the array"):
        as_samples((np.zeros(shape, np.float32), 16_000))


@pytest.mark.parametrize("shape", [(1, 2), (3, 8), (1, 32), (300, 256), (33, 33)])
def test_few_samples_of_many_channels(shape):
    assert as_samples((np.zeros(shape, np.float32), 16_000)).shape == shape[:1]


def test_a_rate_in_the_place_of_the_samples():
    with pytest.raises(InputError, match="^audio: the sample rate must be a positive integer .*: the order is"):
        as_samples((16_000, tone()))


def test_numbers_beyond_float32():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="finite"):
            as_samples((np.full(100, 1e300), 16_000))


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
