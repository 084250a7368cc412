"""Parts of recordings: the samples of the whole, without reading it."""

from __future__ import annotations

import io

import numpy as np
import pytest

from tdtdecode.errors import AudioWarning, InputError
from tdtdecode.speech.audio import Segment, as_samples, audio_seconds, read_audio

soundfile = pytest.importorskip("soundfile")

RATE = 16_000
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * RATE).astype(np.float32)
FORMATS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("AIFF", "PCM_24"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip
PARTS = [(0, 1), (0, 12), (0.5, 0.25), (3.25, 7.5), (11, 1), (11, None), (0.99, 0.02), (1, 2), (7, None), (0.29, 1)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for container, subtype in FORMATS:
        soundfile.write(folder / f"{container}-{subtype}", SOUND, RATE, subtype, format=container)
    return folder


@pytest.mark.parametrize("kind", ["-".join(one) for one in FORMATS])
def test_every_format(files, kind):
    whole = read_audio(files / kind)
    for start, duration in PARTS:
        first = int(start * RATE)
        expected = whole[first:] if duration is None else whole[first : first + int(duration * RATE)]
        assert np.array_equal(as_samples(Segment(files / kind, start, duration)), expected), (start, duration)


def test_media_without_seeking(files, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.m4a"), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(SOUND[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    whole = read_audio(tmp_path / "a.m4a")
    assert np.array_equal(read_audio(Segment(tmp_path / "a.m4a", 5, 2)), whole[5 * RATE : 7 * RATE])


@pytest.mark.parametrize("kind", ["WAV-PCM_16", "FLAC-PCM_16"])
def test_only_that_part_is_read(files, kind):
    """Of ten seconds before the part nothing but the beginning is read."""

    class Counted(io.BytesIO):
        count = 0

        def read(self, size=-1):
            found = super().read(size)
            self.count += len(found)
            return found

    content = (files / kind).read_bytes()
    stream = Counted(content)
    assert len(read_audio(Segment(stream, 10, 1))) == RATE
    assert stream.count < len(content) / 2


def test_the_rate_is_the_recordings_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", SOUND, 44_100, "FLOAT")
    part = SOUND[int(1.5 * 44_100) :][: int(0.7 * 44_100)]
    assert np.array_equal(read_audio(Segment(tmp_path / "a.wav", 1.5, 0.7)), as_samples((part, 44_100)))


def test_parts_that_end_after_the_recording(files):
    path = files / "FLAC-PCM_16"
    assert len(read_audio(Segment(path, 10, 2.05))) == 2 * RATE, "times are rounded: no warning"
    with pytest.warns(AudioWarning, match=r"FLAC-PCM_16: it ends at 12.00 s, before the part from 10 s to 13 s does"):
        assert len(read_audio(Segment(path, 10, 3))) == 2 * RATE
    for start in (12, 13, 1e12):
        with pytest.raises(InputError, match=r"it ends at 12.00 s, before the part from .* begins"):
            read_audio(Segment(path, start, 1))


def test_a_damaged_way_to_a_sound_part(files):
    """FLAC that cannot be sought is decoded from its beginning; what is damaged is named."""
    content = bytearray((files / "FLAC-PCM_16").read_bytes())
    expected = read_audio(Segment(bytes(content), 11, 0.5))
    content[21] &= 0xF0  # the length: unknown
    content[22:26] = bytes(4)
    assert np.array_equal(read_audio(Segment(bytes(content), 11, 0.5)), expected)
    with pytest.warns(AudioWarning):
        assert len(read_audio(Segment(bytes(content[: len(content) * 3 // 4]), 7, 4))) < 4 * RATE


def test_lengths(files):
    path = files / "WAV-PCM_16"
    assert audio_seconds(Segment(path, 2, 3)) == 3
    assert audio_seconds(Segment(path, 2)) == 10
    assert audio_seconds(Segment(path, 20)) == 0


@pytest.mark.parametrize(
    "arguments", [((SOUND, RATE),), ("a", -1), ("a", np.nan), ("a", 0, 0), ("a", 0, np.inf), ("a", "1")]
)
def test_what_is_no_part(arguments):
    with pytest.raises(InputError):
        Segment(*arguments)
