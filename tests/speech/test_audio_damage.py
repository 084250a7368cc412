"""Recordings with something strange in them, before or after them: what is sound is read, and a doubt is said.

Numbers that headers state wrongly have their own file.
"""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed")

from tdtdecode.errors import AudioWarning, InputError  # noqa: E402
from tdtdecode.speech.audio import audio_seconds, read_audio  # noqa: E402
from tests.conftest import without_leftovers  # noqa: E402
from tests.speech.containers import CONTAINERS, RATE, encoded, pages, speechlike, with_checksum  # noqa: E402

SAMPLES = speechlike(3.0)
COUNT = len(SAMPLES)
NOISE = np.random.default_rng(0).bytes(6_000)
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\x04\0\0\0\0\x07\x76" + bytes(1_014)
ID3V2_TOO_LARGE = b"ID3\x04\0\0\x7f\x7f\x7f\x7f"


def written(name, samples=SAMPLES, rate=RATE, **options):
    return CONTAINERS[name].written(samples, rate, **options)


def silently(data, read=read_audio):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(data)


def warned(data):
    with pytest.warns(AudioWarning) as caught:
        samples = read_audio(data)
    (warning,) = without_leftovers(caught)
    return samples, str(warning.message)


def frames(mp3):
    """The frames of an MP3 file after its tag."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[mp3.index(b"\xff" + mp3[1:2], at) :]


@pytest.fixture(scope="module")
def varying():
    """An MP3 whose bit rate varies, and what is read from it."""
    samples = np.concatenate([SAMPLES, np.zeros(10 * RATE, np.float32), SAMPLES])
    data = written("mp3", samples, bitrate_mode="VARIABLE", compression_level=0.3)
    return data, silently(data)


class TestMp3:
    @pytest.mark.parametrize("junk", [NOISE[:3_000], bytes(3_000), bytes(100_000)], ids=["noise", "zeros", "many"])
    @pytest.mark.parametrize("tagged", [True, False])
    def test_junk_between_frames(self, varying, junk, tagged, capfd):
        """A decoder gives up there. What comes after it is sound."""
        data, samples = varying
        data = data if tagged else frames(data)
        middle = data.index(b"\xff" + data[1:2], 4_000)
        found, text = warned(data[:middle] + junk + data[middle:])
        assert abs(len(found) - len(samples)) < 3 * 1_152 and "of its bytes are no MP3 frames" in text
        np.testing.assert_allclose(found[-RATE - 2_000 : -2_000].std(), samples[-RATE:].std(), rtol=0.2)
        assert abs(audio_seconds(data[:middle] + junk + data[middle:]) - len(found) / RATE) < 0.3

    @pytest.mark.parametrize("lead", [ID3V2_TOO_LARGE, ID3V2 + ID3V2, NOISE[:3_000], b"HTTP/1.0 200 OK\r\n\r\n"])
    def test_before_the_first_frame(self, lead):
        np.testing.assert_array_equal(silently(lead + written("mp3")), silently(written("mp3")))

    @pytest.mark.parametrize("tail", [
        ID3V1, ID3V2, b"LYRICSBEGIN" + b"words " * 900 + b"LYRICS200", NOISE[:1_000], bytes(60_000),
    ], ids=["ID3v1", "ID3v2", "lyrics", "little", "padding"])
    def test_after_the_last_frame(self, tail, capfd):
        np.testing.assert_array_equal(silently(written("mp3") + tail), silently(written("mp3")))
        assert capfd.readouterr() == ("", "")

    def test_something_else_after_the_last_frame(self):
        found, text = warned(written("mp3") + written("wav"))
        np.testing.assert_array_equal(found, silently(written("mp3")))
        assert "96,044 of its bytes are no MP3 frames" in text

    @pytest.mark.parametrize("stated", ["right", 0, 3, 1_000_000])
    def test_vbri_tags(self, varying, stated):
        """Fraunhofer's encoders write them. The decoder does not know them, and guessed a third of the length."""
        data, samples = varying
        rest = frames(data)
        count = len(samples) // 576 + 1 if stated == "right" else stated
        tag = rest[:4] + bytes(32) + b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(rest), count, 0, 1, 2, 0)
        data = tag.ljust(len(data) - len(rest) - data.index(rest[:2]), b"\0") + rest
        if stated == "right":
            found = silently(data)
            assert silently(data, audio_seconds) == pytest.approx(len(samples) / RATE, abs=0.1)
        else:
            found, text = warned(data)
            assert f"its header states {count * 576:,} samples" in text
        assert abs(len(found) - len(samples)) < 3 * 1_152

    @pytest.mark.parametrize(("other", "channels"), [(44_100, 1), (24_000, 1), (RATE, 2)])
    def test_another_kind_joined(self, other, channels):
        """A decoder stays with the rate and the channels of the first frame."""
        samples = np.stack([speechlike(3.0, rate=other)] * channels, axis=1)
        first, second = written("mp3"), written("mp3", samples, other)
        expected = np.concatenate([silently(first), silently(second)])
        found = silently(first + second)
        assert len(found) == len(expected) == 2 * COUNT
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert silently(first + second, audio_seconds) == 6.0


class TestFlac:
    @pytest.mark.parametrize("stated", [COUNT, 0, 500])
    def test_joined_end_to_end(self, stated):
        one = CONTAINERS["flac"].states(written("flac"), stated)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = read_audio(one + ID3V2 * (stated == COUNT) + one)
        np.testing.assert_array_equal(found, np.tile(silently(written("flac")), 2))
        assert len(caught) == (stated == 500)

    def test_of_two_rates_joined(self):
        data = written("flac") + written("flac", speechlike(2.0, rate=8_000), 8_000)
        assert len(silently(data)) == 5 * RATE and silently(data, audio_seconds) == 5.0

    @pytest.mark.parametrize("lead", [ID3V2_TOO_LARGE, ID3V2_TOO_LARGE + bytes(500), ID3V2 + bytes(100)])
    def test_tags_whose_size_is_wrong(self, lead):
        np.testing.assert_array_equal(silently(lead + written("flac")), silently(written("flac")))

    def test_seconds_as_far_as_it_can_be_decoded(self):
        data = CONTAINERS["flac"].states(written("flac"), 0)[:-1_000]
        found, text = warned(data)
        assert "it cannot be decoded to its end" in text
        assert audio_seconds(data) == pytest.approx(len(found) / RATE) and len(found) > 2 * RATE


class TestOgg:
    @pytest.fixture(params=["vorbis", "opus", "flac"])
    def ogg(self, request):
        if request.param != "flac":
            return written(request.param, speechlike(6.0))
        pytest.importorskip("av", reason="PyAV is not installed")
        return encoded("ogg", "flac", speechlike(6.0))

    def test_a_page_that_is_missing(self, ogg):
        found = pages(ogg)
        samples, text = warned(b"".join(found[:3] + found[4:]))
        assert len(samples) < 6 * RATE - 1_000 and "1 of its Ogg pages is missing" in text

    def test_a_page_that_is_there_twice(self, ogg):
        found = pages(ogg)
        _, text = warned(b"".join(found[:4] + found[3:]))
        assert "its Ogg pages are not in order" in text

    def test_pages_without_numbers(self, ogg):
        data = b"".join(with_checksum(page[:18] + bytes(4) + page[22:]) for page in pages(ogg))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders may not accept it
            try:
                read_audio(data)
            except InputError:
                return
        assert "Ogg pages" not in str(warned_or_not(data))

    def test_streams_that_begin_late(self, ogg):
        """Broadcasts send the header to everyone, and go on with the page that is due."""
        out = []
        for number, page in enumerate(pages(ogg)):
            late = page[:18] + struct.pack("<I", number + 5_000) + page[22:]
            out.append(page if number < 2 else with_checksum(late))
        assert "Ogg pages" not in str(warned_or_not(b"".join(out)))

    @pytest.mark.parametrize("around", [(b"", ID3V1), (b"", bytes(5_000)), (ID3V2, b""), (ID3V2, ID3V1)])
    def test_tags_and_padding(self, ogg, around):
        np.testing.assert_array_equal(silently(around[0] + ogg + around[1]), silently(ogg))


def warned_or_not(data):
    """The texts of all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_audio(data)
    return [str(one.message) for one in without_leftovers(caught)]


class TestTagsInFront:
    """Some programs put them before a recording of any kind."""

    @pytest.mark.parametrize("name", CONTAINERS)
    @pytest.mark.parametrize("tags", [ID3V2, ID3V2 + ID3V2])
    def test_sound_ones(self, name, tags):
        np.testing.assert_array_equal(silently(tags + written(name)), silently(written(name)))
        assert silently(tags + written(name), audio_seconds) == 3.0

    @pytest.mark.parametrize("name", [name for name in CONTAINERS if name not in ("opus", "vorbis")])
    def test_lengths_are_looked_at_all_the_same(self, name):
        for stated in (500, COUNT + 10_000):
            data = CONTAINERS[name].states(written(name), stated)
            expected, text = warned(data)
            found, same = warned(ID3V2 + data)
            np.testing.assert_array_equal(found, expected)
            assert same == text and "its header states" in text

    @pytest.mark.parametrize("tags", [ID3V2, ID3V2_TOO_LARGE, b"ID3", b"ID3\x04\0\0\0\0\0"])
    def test_nothing_else(self, tags):
        for read in (read_audio, audio_seconds):
            with pytest.raises(InputError, match="<bytes>: not a recording that can be read"):
                read(tags)


class TestChunks:
    @pytest.mark.parametrize("name", ["aiff", "caf", "wav", "w64"])
    def test_junk_after_known_chunks(self, name):
        """The size is right, as a known chunk stands where it says, whatever comes after that."""
        tail = {
            "wav": b"LIST" + struct.pack("<I", 4) + b"INFO",
            "aiff": b"ANNO" + struct.pack(">I", 4) + b"me\0\0",
            "caf": b"info" + struct.pack(">q", 4) + bytes(4),
            "w64": b"list" + bytes.fromhex("f3acd3118cd100c04f8edb8a") + struct.pack("<q", 32) + bytes(8),
        }[name]
        np.testing.assert_array_equal(silently(written(name) + tail + NOISE), silently(written(name)))

    def test_an_index_after_the_samples_is_kept(self):
        """Without it, ALAC in CAF cannot be decoded."""
        pytest.importorskip("av", reason="PyAV is not installed")
        data = encoded("caf", "alac", SAMPLES)
        np.testing.assert_array_equal(silently(data + NOISE), silently(data))

    def test_samples_of_eight_bytes(self):
        """PyAV has no arrays of them."""
        pytest.importorskip("av", reason="PyAV is not installed")
        wide = (SAMPLES.astype(np.float64) * 2**63).astype("<i8").tobytes()
        header = struct.pack("<HHIIHH", 1, 1, RATE, 8 * RATE, 8, 64)
        body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(wide)) + wide
        found = silently(b"RIFF" + struct.pack("<I", len(body)) + body)
        np.testing.assert_allclose(found, SAMPLES, atol=1e-6)


class Pipe:
    """What FFmpeg can write to, and cannot go back in."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data
        return len(data)


def streamed(container, codec, rate=RATE, seconds=3.0, **options):
    """A recording as FFmpeg writes it to a pipe: it cannot go back to state the length."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    pipe = Pipe()
    with av.open(pipe, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(speechlike(seconds, rate=rate)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        context = stream.codec_context
        resampler = av.AudioResampler(context.format.name, "mono", rate, context.frame_size or 1_024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return bytes(pipe.data)


class TestMedia:
    @pytest.mark.parametrize(("container", "codec"), [
        ("matroska", "pcm_s16le"), ("avi", "pcm_s16le"), ("matroska", "aac"), ("webm", "libopus"), ("flv", "aac"),
        ("wav", "pcm_s16le"), ("flac", "flac"), ("caf", "pcm_s16le"), ("au", "pcm_s16be"), ("w64", "pcm_s16le"),
        ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ogg", "flac"), ("mpegts", "aac"), ("adts", "aac"),
    ])
    def test_written_to_a_pipe(self, container, codec):
        """No length is stated. FFmpeg's guess, which counts what is no audio as audio, is none either."""
        rate = 44_100 if container == "flv" else 48_000 if codec == "libopus" else RATE
        data = streamed(container, codec, rate, 30.0)
        found = silently(data)
        assert len(found) / RATE == pytest.approx(30.0, abs=0.15)
        assert silently(data, audio_seconds) == pytest.approx(len(found) / RATE, abs=1e-3)

    def test_a_stream_that_is_found_late(self, monkeypatch):
        """PyAV fails on a packet of a stream that FFmpeg found after the file was opened: damaged TS does that."""
        av = pytest.importorskip("av", reason="PyAV is not installed")
        data, opened = encoded("mpegts", "aac", SAMPLES), av.open

        class Container:
            def __init__(self, *arguments, **options):
                self.inside = opened(*arguments, **options)

            def __getattr__(self, name):
                return getattr(self.inside, name)

            def demux(self, stream):
                for number, packet in enumerate(self.inside.demux(stream)):
                    if number == 30:
                        raise IndexError("list index out of range")
                    yield packet

        monkeypatch.setattr(av, "open", Container)
        found, text = warned(data)
        assert 1.0 < len(found) / RATE < 2.5
        assert "it cannot be decoded to its end (a stream begins in its middle)" in text

    def test_the_last_second_before_an_error(self):
        """What was decoded before it is not lost."""
        pytest.importorskip("av", reason="PyAV is not installed")
        data = encoded("caf", "adpcm_ima_qt", SAMPLES)
        found, text = warned(data[: len(data) * 2 // 3])
        assert len(found) / RATE == pytest.approx(2.0, abs=0.02) and "it cannot be decoded to its end" in text

    @pytest.mark.parametrize("tail", [bytes(3_000), bytes(190)])
    def test_padding_of_a_transport_stream(self, tail):
        pytest.importorskip("av", reason="PyAV is not installed")
        data = encoded("mpegts", "aac", speechlike(3.0, rate=48_000), 48_000)
        np.testing.assert_array_equal(silently(data + tail), silently(data))

    @pytest.mark.parametrize("lead", [NOISE[:3_000], bytes(3_000), b"HTTP/1.1 200 OK\r\n\r\n", ID3V2])
    def test_before_adts(self, lead):
        pytest.importorskip("av", reason="PyAV is not installed")
        data = encoded("adts", "aac", SAMPLES)
        np.testing.assert_array_equal(silently(lead + data), silently(data))

    def test_two_mp4_files_joined(self):
        pytest.importorskip("av", reason="PyAV is not installed")
        data = encoded("ipod", "aac", SAMPLES)
        found, text = warned(data + data)
        np.testing.assert_array_equal(found, silently(data))
        assert "more audio follows in another MP4 file that is joined to it, which is not read" in text

    def test_fragments(self):
        """A recorder that was killed leaves the fragments that it had written."""
        data = streamed("mp4", "aac", movflags="frag_keyframe+empty_moov", frag_duration="500000", seconds=6.0)
        assert len(silently(data)) / RATE == pytest.approx(6.0, abs=0.15)
        found, text = warned(data[: len(data) * 8 // 10])
        assert 3.0 < len(found) / RATE < 5.5 and "its last fragment is cut short" in text
        both, text = warned(data + data)  # all fragments are read, whatever the first header states
        assert len(both) / RATE == pytest.approx(12.0, abs=0.5) and "joined" not in text
