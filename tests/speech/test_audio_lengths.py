"""How much audio there is, whatever a header says of it: all of it is read, and a doubt is said once."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed")

from tdtdecode.errors import AudioWarning, InputError  # noqa: E402
from tdtdecode.speech.audio import audio_seconds, read_audio  # noqa: E402
from tests.conftest import without_leftovers  # noqa: E402
from tests.speech.containers import CONTAINERS, RATE, pages, speechlike, with_checksum, with_granules  # noqa: E402

SAMPLES = speechlike(3.0)
COUNT = len(SAMPLES)


@pytest.fixture(scope="module")
def sound():
    """A sound recording in each container, and what is read from it."""
    found = {}
    for name, container in CONTAINERS.items():
        data = container.written(SAMPLES)
        found[name] = data, silently(read_audio, data)
    return found


def silently(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


def warned(data, tmp_path=None):
    """What is read, and the text of the one warning."""
    with pytest.warns(AudioWarning) as caught:
        samples = read_audio(data)
    (warning,) = without_leftovers(caught)
    return samples, str(warning.message)


class TestEveryContainer:
    @pytest.mark.parametrize("name", CONTAINERS)
    def test_sound_ones_are_read_without_a_word(self, sound, name):
        data, samples = sound[name]
        assert len(samples) == COUNT
        assert np.corrcoef(samples, SAMPLES)[0, 1] > 0.5
        assert silently(audio_seconds, data) == 3.0

    @pytest.mark.parametrize(("name", "stated"), [
        *((name, stated) for name in CONTAINERS for stated in (0, 1, 500, COUNT // 2)),
        # The others state frames of 576 samples, or cut off with their last page what the encoder added.
        *((name, COUNT - 1) for name in CONTAINERS if name not in ("vorbis", "opus", "mp3")),
    ])
    def test_headers_that_claim_less(self, sound, name, stated):
        data, samples = sound[name]
        container = CONTAINERS[name]
        damaged = container.states(data, stated)
        if stated == container.unknown:
            np.testing.assert_array_equal(silently(read_audio, damaged), samples)
            return
        found, text = warned(damaged)
        assert 0 <= len(found) - len(samples) < 1_000  # with a wrong last page, what the encoder added is not cut off
        np.testing.assert_array_equal(found[:COUNT], samples)
        assert "<bytes>: its header states " in text and "s are read" in text

    @pytest.mark.parametrize(("name", "more"), [
        *((name, more) for name in CONTAINERS for more in (640, COUNT, 100 * COUNT)),
        *((name, more) for name in CONTAINERS if name not in ("vorbis", "opus", "mp3") for more in (1, 22)),
    ])
    def test_headers_that_claim_more(self, sound, name, more):
        data, samples = sound[name]
        found, text = warned(CONTAINERS[name].states(data, COUNT + more))
        assert 0 <= len(found) - len(samples) < 1_000
        np.testing.assert_array_equal(found[: COUNT - 1_000], samples[: COUNT - 1_000])
        assert "<bytes>: its header states " in text and "s are read" in text

    @pytest.mark.parametrize("name", [name for name, container in CONTAINERS.items() if container.unknown is not None])
    def test_lengths_that_are_unknown(self, sound, name):
        data, samples = sound[name]
        found = silently(read_audio, CONTAINERS[name].states(data, CONTAINERS[name].unknown))
        assert 0 <= len(found) - len(samples) < 1_000
        np.testing.assert_array_equal(found[: COUNT - 1_000], samples[: COUNT - 1_000])

    @pytest.mark.parametrize("name", CONTAINERS)
    @pytest.mark.parametrize("part", [0.4, 0.9])
    def test_files_that_are_cut_short(self, sound, name, part):
        data, samples = sound[name]
        found, text = warned(data[: int(part * len(data))])
        assert (part - 0.25) * COUNT < len(found) < COUNT
        np.testing.assert_allclose(found[:8_000], samples[:8_000], atol=1e-6)
        assert f"{len(found) / RATE:.2f} s are read" in text

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_how_much_is_missing_is_said(self, sound, name):
        data, _ = sound[name]
        _, text = warned(data[: len(data) // 2])
        if name not in ("vorbis", "opus"):
            assert "3.0" in text
        else:
            assert "the end of its Ogg stream is missing" in text

    @pytest.mark.parametrize("name", ["wav", "wavex", "w64", "svx"])
    def test_only_a_header(self, sound, name):
        data, _ = sound[name]
        with pytest.raises(InputError, match="<bytes>: no audio can be read from it: its header states 96,000 bytes"):
            read_audio(data[: -2 * COUNT])

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_seconds_agree(self, sound, name):
        data, _ = sound[name]
        container = CONTAINERS[name]
        for damaged in (container.states(data, 500), container.states(data, COUNT + 22_000), data[: len(data) // 2]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = len(read_audio(damaged)) / RATE
            stated = silently(audio_seconds, damaged)
            if name not in ("flac", "mp3", "vorbis", "opus"):  # only decoding tells there
                assert stated == pytest.approx(read, abs=1e-3)
            assert stated > 0

    def test_a_doubt_names_the_file(self, sound, tmp_path):
        path = tmp_path / "a b.wav"
        path.write_bytes(CONTAINERS["wav"].states(sound["wav"][0], 0))
        with pytest.warns(AudioWarning) as caught:
            read_audio(path)
        assert str(caught[0].message) == (
            f"{path}: its header states 0 bytes of audio (0.00 s), the file has 96,000; 3.00 s are read"
        )
        assert caught[0].filename == __file__

    def test_doubts_can_be_errors(self, sound):
        with warnings.catch_warnings():
            warnings.simplefilter("error", AudioWarning)
            with pytest.raises(AudioWarning, match="<bytes>: its header states 0 bytes"):
                read_audio(CONTAINERS["wav"].states(sound["wav"][0], 0))


def chunk(name, content, pad=True):
    return name + struct.pack("<I", len(content)) + content + (b"\0" if pad and len(content) % 2 else b"")


AFTER_THE_SAMPLES = {
    "LIST": chunk(b"LIST", b"INFOIART" + struct.pack("<I", 4) + b"me\0\0"),
    "two chunks": chunk(b"bext", bytes(602)) + chunk(b"id3 ", b"ID3" + bytes(20)),
    "an odd chunk": chunk(b"LIST", b"abc"),
    "an odd chunk without padding": chunk(b"LIST", b"abc", pad=False),
    "an unknown chunk": chunk(b"zzzz", b"something"),
    "a chunk that is cut": chunk(b"LIST", b"INFO" + bytes(100))[:-60],
    "an ID3v1 tag": b"TAG" + b"title".ljust(125, b"\0"),
    "an APE tag": b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8),
    "padding": bytes(1_024),
    "chunk and padding": chunk(b"LIST", b"INFO") + bytes(300),
}


class TestAfterTheSamples:
    @pytest.mark.parametrize("tail", AFTER_THE_SAMPLES.values(), ids=AFTER_THE_SAMPLES)
    @pytest.mark.parametrize("samples", [COUNT, COUNT - 1, 0])
    def test_other_chunks_are_no_audio(self, tail, samples):
        data = CONTAINERS["wav"].written(SAMPLES[:samples])
        if not samples and not tail.strip(b"\0"):
            return  # zeros after an empty header are digital silence
        np.testing.assert_array_equal(silently(read_audio, data + tail), silently(read_audio, data))

    @pytest.mark.parametrize("name", ["LIST", "two chunks", "an odd chunk"])
    @pytest.mark.parametrize("stated", [0, 1_000])
    def test_nor_are_they_after_a_wrong_size(self, sound, name, stated):
        data, samples = sound["wav"]
        found, _ = warned(CONTAINERS["wav"].states(data, stated) + AFTER_THE_SAMPLES[name])
        np.testing.assert_array_equal(found, samples)

    @pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", "caf", "svx", "au", "sph"])
    def test_a_stale_size(self, name):
        """A recorder updates its header now and then: 1000 bytes are stated before 294 KB."""
        data = CONTAINERS[name].written(speechlike(9.2))
        samples, text = warned(CONTAINERS[name].states(data, 500))
        assert len(samples) == int(9.2 * RATE) and "states 1,000 bytes of audio (0.03 s), the file has 294,400" in text

    def test_another_recording(self, sound):
        data, samples = sound["wav"]
        found, text = warned(data + data)
        np.testing.assert_array_equal(found, samples)
        assert "more audio follows in a chunk 'RIFF', which is not read" in text

    def test_samples_that_look_like_a_chunk(self):
        """What is no chain of chunks to the end of the file is audio."""
        noise = (SAMPLES * 32_767).astype("<i2")
        noise[500:502] = np.frombuffer(b"LIS1", "<i2")
        file = io.BytesIO(CONTAINERS["wav"].written(noise))
        found, _ = warned(CONTAINERS["wav"].states(file.getvalue(), 500))
        assert len(found) == COUNT

    @pytest.mark.parametrize("lead", [
        b"", chunk(b"LIST", b"INFO"), chunk(b"bext", bytes(602)), chunk(b"JUNK", bytes(27)),
    ])
    @pytest.mark.parametrize("stated", [0, 1_000, COUNT + 22])
    def test_chunks_before_the_samples(self, sound, lead, stated):
        data, samples = sound["wav"]
        at = data.index(b"data")
        found, _ = warned(CONTAINERS["wav"].states(data[:at] + lead + data[at:], stated))
        np.testing.assert_array_equal(found, samples)


class TestWav:
    def test_the_recorder_was_killed(self):
        """A header of 44 bytes whose sizes were never written, and a second of samples."""
        fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
        header = b"RIFF\0\0\0\0WAVE" + fmt + b"data\0\0\0\0"
        found, text = warned(header + (SAMPLES[:RATE] * 32_767).astype("<i2").tobytes())
        assert len(header) == 44 and len(found) == RATE and "states 0 bytes" in text and "1.00 s are read" in text

    @pytest.mark.parametrize("extra", [1, 44])
    def test_the_header_is_counted(self, extra):
        data = bytearray(CONTAINERS["wav"].written(SAMPLES))
        struct.pack_into("<I", data, 40, 2 * COUNT + extra)
        found, text = warned(bytes(data))
        assert len(found) == COUNT and f"states {2 * COUNT + extra:,} bytes" in text

    @pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFDB, 0x80000000, 0x7FFFFFFF, 0x7FFF0024])
    def test_sizes_of_those_who_do_not_know(self, size):
        data = bytearray(CONTAINERS["wav"].written(SAMPLES))
        struct.pack_into("<I", data, 40, size)
        assert len(silently(read_audio, bytes(data))) == COUNT

    def test_bw64(self, sound):
        data, samples = sound["rf64"]
        np.testing.assert_array_equal(silently(read_audio, b"BW64" + data[4:]), samples)

    @pytest.mark.parametrize("subtype", [
        "PCM_24", "PCM_U8", "FLOAT", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610",
    ])
    @pytest.mark.parametrize("stated", [0, 1_000])
    def test_other_samples(self, subtype, stated):
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, SAMPLES, RATE, format="WAV", subtype=subtype)
        samples = silently(read_audio, file.getvalue())
        found, _ = warned(CONTAINERS["wav"].states(file.getvalue(), stated))
        np.testing.assert_array_equal(found, samples)


class TestFlac:
    def test_damage_in_the_middle(self, sound):
        data, samples = sound["flac"]
        damaged = data[: len(data) // 2] + bytes(100) + data[len(data) // 2 + 100 :]
        found, text = warned(damaged)
        np.testing.assert_array_equal(found, samples[: len(found)])
        assert len(found) > COUNT // 4 and "it cannot be decoded to its end" in text

    @pytest.mark.parametrize("tag", [AFTER_THE_SAMPLES["an ID3v1 tag"], AFTER_THE_SAMPLES["an APE tag"]])
    @pytest.mark.parametrize("stated", [COUNT, 0])
    def test_tags_around_it(self, sound, tag, stated):
        data, samples = sound["flac"]
        id3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
        found = silently(read_audio, id3 + CONTAINERS["flac"].states(data, stated) + tag)
        np.testing.assert_array_equal(found, samples)

    def test_a_long_one_of_unknown_length(self):
        data = CONTAINERS["flac"].written(speechlike(130.0))
        assert len(silently(read_audio, CONTAINERS["flac"].states(data, 0))) == 130 * RATE
        assert silently(audio_seconds, CONTAINERS["flac"].states(data, 0)) == 130.0


class TestOgg:
    def test_voice_messages_of_phones(self, sound):
        """The last granule lies 1920 beyond the audio: 40 ms."""
        data, samples = sound["opus"]
        found, text = warned(with_granules(data, lambda old, last: old + 1920 if last else old))
        np.testing.assert_array_equal(found[:COUNT], samples)
        assert "states 48,640 samples (3.04 s)" in text

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    @pytest.mark.parametrize("granule", [-1, (1 << 63) - 1, 1 << 63])
    def test_no_number(self, sound, name, granule):
        data, samples = sound[name]
        found = silently(read_audio, with_granules(data, lambda old, last: granule if last else old))
        np.testing.assert_array_equal(found[: COUNT - 1_000], samples[: COUNT - 1_000])

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_no_numbers_at_all(self, sound, name):
        data, samples = sound[name]
        found, _ = warned(with_granules(data, lambda old, last: 0))
        assert len(found) > COUNT - 2_000

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_streams_that_begin_late(self, sound, name):
        """Recorded from the middle of a broadcast: the numbers do not begin at 0."""
        data, samples = sound[name]
        found = silently(read_audio, with_granules(data, lambda old, last: old and old + 1_000_000))
        assert abs(len(found) - COUNT) < 1_000

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_joined_end_to_end(self, sound, name):
        data, samples = sound[name]
        np.testing.assert_array_equal(silently(read_audio, data + data), np.concatenate([samples, samples]))
        assert silently(audio_seconds, data + data) == 6.0

    def test_two_codecs_joined(self, sound):
        found = silently(read_audio, sound["opus"][0] + sound["vorbis"][0])
        np.testing.assert_array_equal(found, np.concatenate([sound["opus"][1], sound["vorbis"][1]]))

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_a_damaged_page(self, sound, name):
        data, _ = sound[name]
        found = pages(data)
        found[3] = found[3][:-1] + bytes([found[3][-1] ^ 255])
        samples, text = warned(b"".join(found))
        assert COUNT // 4 < len(samples) < COUNT and f"1 of its {len(found)} Ogg pages is damaged" in text

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_the_end_is_not_marked(self, sound, name):
        data, samples = sound[name]
        *before, last = pages(data)
        found, text = warned(b"".join([*before, with_checksum(last[:5] + b"\0" + last[6:])]))
        assert len(found) > COUNT - 1_000 and "the end of its Ogg stream is missing" in text

    @pytest.mark.parametrize("name", ["vorbis", "opus"])
    def test_whole_packets_of_a_page_that_is_cut_are_read(self, sound, name):
        data, samples = sound[name]
        found = pages(data)
        whole, cut = b"".join(found[:3]), b"".join(found[:3]) + found[3][: len(found[3]) * 3 // 4]
        shorter, _ = warned(whole)
        longer, _ = warned(cut)
        assert len(longer) > len(shorter) + 4_000
        np.testing.assert_array_equal(longer[: len(shorter) - 1_000], samples[: len(shorter) - 1_000])


class TestMp3:
    def test_a_varying_bit_rate_without_a_tag(self):
        """Loud, then silent: a decoder would guess the length from the first frame, and lose most."""
        quiet = np.concatenate([SAMPLES, np.zeros(20 * RATE, np.float32)])
        data = CONTAINERS["mp3"].written(quiet, bitrate_mode="VARIABLE", compression_level=0.3)
        samples = silently(read_audio, data)
        second = data.index(b"\xff", data.index(b"Xing"))
        assert abs(len(silently(read_audio, data[second:])) - len(samples)) < 2 * 1_152

    def test_joined_end_to_end(self, sound):
        data, samples = sound["mp3"]
        found, text = warned(data + data)
        assert abs(len(found) - 2 * COUNT) < 4 * 1_152
        np.testing.assert_array_equal(found[: COUNT - 1_152], samples[: COUNT - 1_152])

    @pytest.mark.parametrize("lead", [bytes(1_000), b"\xff" * 50, b"ID3\x04\0\0\0\0\x07\x76" + bytes(1_014)])
    @pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125), bytes(500)])
    def test_what_stands_around_it(self, sound, lead, tail):
        data, samples = sound["mp3"]
        np.testing.assert_array_equal(silently(read_audio, lead + data + tail), samples)


def test_a_decoder_is_not_believed_beyond_the_file():
    """libsndfile fills up a MIDI sample dump that is cut short."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format="SDS", subtype="PCM_16")
    data = file.getvalue()
    samples, _ = warned(data[: len(data) // 2])
    assert len(samples) <= len(data) // 4
