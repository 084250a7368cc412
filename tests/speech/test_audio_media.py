"""Recordings that soundfile cannot read, and the sound of videos, through PyAV; and what is said without it."""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed")

from tdtdecode.errors import AudioWarning, InputError  # noqa: E402
from tdtdecode.speech.audio import as_samples, audio_seconds, is_recording, read_audio  # noqa: E402
from tests.conftest import without_leftovers  # noqa: E402
from tests.speech.containers import CONTAINERS, RATE, encoded, speechlike  # noqa: E402

SECONDS = 3.0
KINDS = {
    "m4a": ("ipod", "aac", 16_000),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "pcm_s16le", 16_000),
    "alac": ("ipod", "alac", 48_000),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 48_000),
    "mka": ("matroska", "flac", 16_000),
    "aac": ("adts", "aac", 16_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "3gp": ("3gp", "libopencore_amrnb", 8_000),
    "ac3": ("ac3", "ac3", 48_000),
    "eac3": ("eac3", "eac3", 48_000),
    "ts": ("mpegts", "aac", 48_000),
    "mpg": ("mpeg", "mp2", 44_100),
    "wma": ("asf", "wmav2", 44_100),
    "avi": ("avi", "pcm_s16le", 16_000),
    "flv": ("flv", "aac", 44_100),
    "wv": ("wv", "wavpack", 16_000),
    "tta": ("tta", "tta", 16_000),
    "oga": ("ogg", "flac", 16_000),
}
VIDEOS = ("mp4", "mov", "mkv", "ts", "avi")


@pytest.fixture(scope="module")
def made():
    """The same recording in each kind of file."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    found = {}

    def make(name, **options):
        container, codec, rate = KINDS[name]
        key = name, *options
        if key not in found:
            if codec not in av.codecs_available:
                pytest.skip(f"this FFmpeg cannot write {codec}")
            found[key] = encoded(container, codec, speechlike(SECONDS, rate=rate), rate, **options)
        return found[key]

    return make


def silently(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(made, name, capfd):
    data = made(name)
    samples = silently(read_audio, data)
    assert samples.dtype == np.float32
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.15)
    assert silently(audio_seconds, data) == pytest.approx(len(samples) / RATE, abs=0.15)
    assert 0.05 < np.abs(samples).mean() < 0.5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mov", "alac", "mka", "wv", "tta", "oga"])
def test_without_loss(made, name):
    rate = KINDS[name][2]
    expected = as_samples((speechlike(SECONDS, rate=rate), rate))
    np.testing.assert_allclose(silently(read_audio, made(name)), expected, atol=1e-2 if name in ("wv", "tta") else 2e-4)


@pytest.mark.parametrize("name", VIDEOS)
def test_the_sound_of_a_video(made, name):
    samples = silently(read_audio, made(name))
    np.testing.assert_allclose(silently(read_audio, made(name, video=True)), samples, atol=1e-6)


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("5.1", 6), ("7.1", 8), ("hexadecagonal", 16)])
@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le"])
def test_many_channels(layout, channels, codec):
    """PyAV reads beyond the end of frames that have a plane for each of eight channels or more."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream(codec, rate=RATE, layout=layout)
        values = np.zeros((2 * RATE, channels), np.float32)
        values[:, 0] = speechlike(2.0)
        frame = av.AudioFrame.from_ndarray(values.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        try:
            stream.codec_context.open()
        except av.FFmpegError:
            pytest.skip(f"{codec} has not as many channels")
        context = stream.codec_context
        resampler = av.AudioResampler(context.format.name, layout, RATE, context.frame_size or 1_024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    samples = silently(read_audio, file)
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.1)
    assert np.abs(samples).mean() == pytest.approx(np.abs(speechlike(2.0)).mean() / channels, rel=0.3)


@pytest.mark.parametrize("name", ["m4a", "webm", "aac"])
def test_files_and_their_names(made, tmp_path, name):
    for suffix in (name, "wav", "bin"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(made(name))
        np.testing.assert_array_equal(read_audio(path), read_audio(made(name)))
        assert is_recording(path)
        with open(path, "rb") as stream:
            np.testing.assert_array_equal(read_audio(stream), read_audio(made(name)))


def test_the_decoder_of_choice(made):
    """What soundfile reads, it reads, whether PyAV is there or not."""
    pytest.importorskip("av", reason="PyAV is not installed")
    for name in ("wav", "flac", "opus", "mp3"):
        data = CONTAINERS[name].written(speechlike(1.0))
        with_av = silently(read_audio, data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "av", None)
            np.testing.assert_array_equal(silently(read_audio, data), with_av)


@pytest.mark.parametrize("name", ["mp4", "mov", "alac", "3gp"])
def test_cut_short_with_the_index_in_front(made, name):
    data = made(name, movflags="faststart")
    with pytest.warns(AudioWarning, match=r"its header states [\d,]+ samples \(3\.\d+ s\), the file has") as caught:
        samples = read_audio(data[: len(data) * 6 // 10])
    assert len(without_leftovers(caught)) == 1
    assert SECONDS / 4 < len(samples) / RATE < SECONDS * 3 / 4


@pytest.mark.parametrize("name", ["mkv", "mka", "webm", "tta", "avi", "oga"])
def test_cut_short(made, name):
    data = made(name)
    with pytest.warns(AudioWarning, match="its header states|the end of its Ogg stream is missing") as caught:
        samples = read_audio(data[: len(data) * 6 // 10])
    assert len(without_leftovers(caught)) == 1
    assert SECONDS / 4 < len(samples) / RATE < SECONDS * 3 / 4


@pytest.mark.parametrize("name", ["aac", "amr", "ac3", "ts"])
def test_streams_that_end_anywhere(made, name):
    """They state no length, and are read as far as they go."""
    data = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read_audio(data[: len(data) * 6 // 10])) / RATE == pytest.approx(0.6 * SECONDS, abs=0.3)


@pytest.mark.parametrize("name", ["m4a", "mp4"])
def test_cut_short_with_the_index_at_the_end(made, name):
    data = made(name)
    with pytest.raises(InputError, match="<bytes>: not a recording .*FFmpeg: .*its index, the box 'moov', is missing"):
        read_audio(data[: len(data) * 6 // 10])


def test_a_video_without_sound():
    av = pytest.importorskip("av", reason="PyAV is not installed")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(10):
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            image.pts = number
            output.mux(stream.encode(image))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match="<BytesIO>: not a recording .*there is no audio in it"):
        read_audio(file)
    assert not is_recording(file)


def test_two_tracks():
    """One is read, and the other is named."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        streams = [output.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, volume in zip(streams, (1.0, 0.5)):
            values = (speechlike(1.0) * volume * 32_767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    with pytest.warns(AudioWarning, match="it has 2 audio tracks, of which one is read"):
        assert len(read_audio(file)) == RATE


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{path}'\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000\n",
], ids=["m3u8", "concat", "sdp"])
def test_playlists_open_nothing(made, tmp_path, text):
    """A recording from strangers does not make FFmpeg read other files or the network."""
    other = tmp_path / "secret.ts"
    other.write_bytes(made("ts"))
    path = tmp_path / "list.m4a"
    path.write_text(text.format(path=other))
    with pytest.raises(InputError, match="not a recording that can be read"):
        read_audio(path)


@pytest.mark.parametrize("name", ["m4a", "webm", "amr"])
def test_without_pyav_the_extra_is_named(made, monkeypatch, tmp_path, name):
    path = tmp_path / f"a.{name}"
    path.write_bytes(made(name))
    monkeypatch.setitem(sys.modules, "av", None)
    for read in (read_audio, as_samples, audio_seconds):
        with pytest.raises(InputError, match=r"the package 'av': pip install 'tdtdecode\[media\]'") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "WAV, FLAC, OGG or MP3" in str(caught.value)
    assert not is_recording(path)


def test_a_pyav_that_is_broken_says_so(made, monkeypatch, tmp_path):
    """It is installed, and a library that it loads is not there."""
    data = made("m4a")
    (tmp_path / "av.py").write_text("raise OSError('libavutil.so.60: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "av")
    with pytest.raises(InputError, match=r"'av', which is installed but cannot be imported \(libavutil\.so\.60: "):
        read_audio(data)


@pytest.mark.parametrize("version", ["12.3.0", "14.0", "17.0.1"])
def test_a_pyav_that_crashes_is_not_used(made, monkeypatch, version):
    import av

    data = made("m4a")
    monkeypatch.setattr(av, "__version__", version)
    with pytest.raises(InputError, match=rf"\(version {version} crashes on some files; expected 17\.1 or newer\): pip"):
        read_audio(data)
