"""Where recordings come from: pipes, bytes, file objects, names of every kind; and what is refused."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="soundfile is not installed")

from tdtdecode.errors import AudioWarning, InputError  # noqa: E402
from tdtdecode.speech.audio import (  # noqa: E402
    as_samples,
    audio_seconds,
    held,
    is_recording,
    name_of,
    read_audio,
    sources,  # noqa: E402
)
from tdtdecode.speech.audio.sources import View  # noqa: E402
from tests.speech.containers import CONTAINERS, RATE, speechlike  # noqa: E402

SAMPLES = speechlike(1.5)
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and names of POSIX")


@pytest.fixture(scope="module")
def data():
    return CONTAINERS["flac"].written(SAMPLES)


@pytest.fixture
def file(data, tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    return path


def check(audio, again=True):
    """Everything that takes a path takes this."""
    for _ in range(2 if again else 1):
        np.testing.assert_allclose(as_samples(audio), SAMPLES, atol=1e-4)
    if again:
        np.testing.assert_allclose(read_audio(audio), SAMPLES, atol=1e-4)
        assert audio_seconds(audio) == 1.5
        assert is_recording(audio)


class Reading:
    """What has a method to read, and nothing else; it gives a few bytes at a time."""

    def __init__(self, data, failure=None):
        self._file, self._failure, self._sound = io.BytesIO(data), failure, len(data) // 2

    def read(self, count=-1):
        chunk = self._file.read(min(count, 1_000) if count > 0 else count)
        if self._failure and self._file.tell() > self._sound:
            raise self._failure
        return chunk


class Seeking(Reading):
    """The same, and can be sought."""

    def seek(self, offset, whence=0):
        self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()


class NotSeekable(Seeking):
    """It has the methods, and they fail."""

    def seek(self, offset, whence=0):
        raise io.UnsupportedOperation("seek")


class WithoutTell(Reading):
    def seek(self, offset, whence=0):
        self._file.seek(offset, whence)


class Generous(Seeking):
    """It gives more than was asked for."""

    def read(self, count=-1):
        return self._file.read(2 * count)


def giving(change):
    """A file object whose read() gives something else than bytes."""

    class Giving(Reading):
        def read(self, count=-1):
            return change(super().read(count))

    return Giving


class Patient(io.RawIOBase):
    """A stream that does not block: now and then it has nothing to give yet."""

    def __init__(self, data):
        self._file, self._count = io.BytesIO(data), 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self._count += 1
        return None if self._count % 5 == 0 else self._file.readinto(memoryview(buffer)[:777])


class TestObjects:
    @pytest.mark.parametrize("make", [
        bytes, bytearray, memoryview, io.BytesIO, Seeking, Generous,
        lambda data: memoryview(b"".join(bytes([byte, 0]) for byte in data))[::2],
    ])
    def test_in_memory(self, data, make):
        check(make(data))

    @pytest.mark.parametrize("name", ["wav", "aiff", "vorbis", "opus", "mp3", "w64", "au"])
    def test_in_every_container(self, name):
        data = CONTAINERS[name].written(SAMPLES)
        assert len(read_audio(io.BytesIO(data))) == len(read_audio(data)) == len(SAMPLES)

    @pytest.mark.parametrize("buffering", [-1, 0])
    def test_open_files(self, file, buffering):
        with open(file, "rb", buffering=buffering) as stream:
            check(stream)
            assert not stream.closed

    def test_from_the_beginning_and_left_where_they_were(self, data):
        stream = io.BytesIO()
        stream.write(data)
        check(stream)
        assert stream.tell() == len(data)

    def test_other_file_objects(self, data, file, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.flac", data)
        with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.flac") as stream:
            check(stream)
        with gzip.open(io.BytesIO(gzip.compress(data))) as stream:
            check(stream)
        with tempfile.SpooledTemporaryFile(10) as stream:
            stream.write(data)
            check(stream)

    def test_that_cannot_be_sought(self, data):
        check(Reading(data), again=False)
        check(held(Reading(data)))
        for make in (NotSeekable, WithoutTell, giving(bytearray), giving(memoryview)):
            check(make(data), again=False)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sending = threading.Thread(target=lambda: (theirs.sendall(data), theirs.close()))
            sending.start()
            with ours.makefile("rb") as stream:
                check(held(stream))
            sending.join()

    @pytest.mark.parametrize("make", [Reading, Seeking])
    def test_a_failure_is_no_end(self, data, make):
        """What a file object raises is not taken for the end of the recording."""
        failing = make(data, OSError("the cable is out"))
        with pytest.raises(InputError, match=f"<{make.__name__}>: cannot be read to its end .the cable is out"):
            as_samples(failing)

    def test_opened_as_text(self, file):
        with open(file, encoding="latin-1") as stream:
            with pytest.raises(InputError, match=r"a\.flac: is opened as text; open it with mode 'rb'"):
                as_samples(stream)
        with pytest.raises(InputError, match="<StringIO>: is opened as text"):
            as_samples(io.StringIO("RIFF"))

    def test_text_that_does_not_look_like_it(self, file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            stream = codecs.open(file, "r", "latin-1")  # no TextIOBase
        with stream, pytest.raises(InputError, match=r"a\.flac: is opened as text; open it with mode 'rb'"):
            as_samples(stream)

    @pytest.mark.parametrize(("make", "message"), [
        (giving(lambda chunk: chunk.decode("latin-1")), "is opened as text"),
        (giving(list), r"cannot be read \(its read\(\) returned list, expected bytes\)"),
        (Patient, "has nothing to read yet, as it does not block"),
    ])
    def test_what_gives_no_bytes(self, data, make, message):
        with pytest.raises(InputError, match=f"<{make.__name__}>: {message}"):
            as_samples(make(data))

    def test_closed_and_for_writing_only(self, tmp_path):
        closed = io.BytesIO(b"RIFF")
        closed.close()
        with pytest.raises(InputError, match="<BytesIO>: cannot be read .*closed"):
            as_samples(closed)
        with open(tmp_path / "a.wav", "wb") as stream:
            with pytest.raises(InputError, match=r"a\.wav: cannot be read .it is open for writing only"):
                as_samples(stream)

    @pytest.mark.parametrize("data", [b"", b"RIFF", b"this is no recording " * 100, bytes(10_000)])
    def test_what_is_no_recording(self, data):
        assert not is_recording(data)
        for audio in (data, io.BytesIO(data), Reading(data)):
            with pytest.raises(InputError, match=f"<{type(audio).__name__}>: not a recording .*WAV, FLAC, OGG or MP3"):
                as_samples(audio)

    def test_names(self, data):
        stream = io.BytesIO(data)
        assert name_of(stream) == "<BytesIO>"
        stream.name = "talk.flac"
        assert name_of(stream) == "talk.flac" and name_of(held(Reading(data))) == "<Reading>"
        assert name_of(sys.__stdin__) == "<stdin>"

    @pytest.mark.parametrize("dtype", [">i2", "<i2", ">i4", "<i4", ">f4", "<f4", ">f8", ">f2", "=i2"])
    def test_arrays_of_either_byte_order(self, dtype):
        scale = np.iinfo(dtype).max if np.dtype(dtype).kind == "i" else 1
        samples = as_samples(((SAMPLES * scale).astype(dtype), RATE))
        assert samples.dtype == np.dtype(np.float32) and samples.dtype.isnative
        np.testing.assert_allclose(samples, SAMPLES, atol=1e-3)

    @pytest.mark.parametrize("dtype", [">i8", ">u2", ">c8"])
    def test_other_numbers_of_either_byte_order(self, dtype):
        with pytest.raises(InputError, match=f"got {dtype}"):
            as_samples((np.zeros(10, dtype), RATE))


@posix
class TestPipes:
    @pytest.mark.parametrize("name", ["flac", "wav", "opus", "mp3"])
    def test_named(self, tmp_path, name):
        data = CONTAINERS[name].written(SAMPLES)
        path = tmp_path / "pipe"
        os.mkfifo(path)
        for audio in (path, str(path)):
            writer = threading.Thread(target=path.write_bytes, args=(data,))
            writer.start()
            assert len(as_samples(audio)) == len(SAMPLES)
            writer.join()

    def test_inherited(self, data):
        """What a shell gives for <(command)."""
        ours, theirs = os.pipe()
        writer = threading.Thread(target=lambda: (os.write(theirs, data[:60_000]), os.close(theirs)))
        assert len(data) < 60_000
        writer.start()
        np.testing.assert_allclose(as_samples(f"/dev/fd/{ours}"), SAMPLES, atol=1e-4)
        writer.join()
        os.close(ours)

    def test_large_ones_go_to_the_disk(self, data, monkeypatch):
        monkeypatch.setattr(sources, "_SPOOLED_IN_MEMORY", 1_000)
        check(held(Reading(data)))

    def test_without_end(self, monkeypatch):
        monkeypatch.setattr(sources, "_MOST_SPOOLED", 1 << 30)
        endless = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
        with endless.stdout as stream, pytest.raises(InputError, match="more than 1 GiB came out of it and no end"):
            as_samples(stream)
        endless.kill()
        endless.wait()

    @pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full"])
    def test_devices(self, path):
        with pytest.raises(InputError, match=f"{path}: is a device, not a file"):
            as_samples(path)


class TestNames:
    @pytest.mark.parametrize("url", [
        "https://example.org/a.wav", "http://localhost:8000/", "s3://bucket/a.flac", "file:///tmp/a.wav",
        "rtsp://camera/1",
    ])
    def test_urls(self, url):
        for audio in (url, Path(url)):
            with pytest.raises(InputError, match=": is a URL, and nothing is downloaded here; download it first"):
                as_samples(audio)
        with pytest.raises(InputError, match=f"^{url}: "):
            audio_seconds(url)

    def test_files_that_look_like_urls(self, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "http:").mkdir()
        (tmp_path / "http:" / "a.flac").write_bytes(data)
        check("http://a.flac")

    @posix
    @pytest.mark.parametrize("name", [b"caf\xe9.flac", b"\xff\xfe", "ünï cödé.flac".encode(), b"line\nbreak.wav"])
    def test_that_are_no_text(self, data, tmp_path, name):
        path = os.path.join(os.fsencode(tmp_path), name)
        try:
            Path(os.fsdecode(path)).write_bytes(data)
        except OSError:
            pytest.skip("this file system wants names to be text")
        for audio in (os.fsdecode(path), Path(os.fsdecode(path))):
            check(audio)
        Path(os.fsdecode(path)).write_bytes(b"nothing")
        with pytest.raises(InputError, match="not a recording") as caught:
            as_samples(os.fsdecode(path))
        str(caught.value).encode("utf-8")  # it can be printed

    @posix
    @pytest.mark.parametrize(("name", "shown"), [
        ("a\nb.wav", r"a\\nb"), ("a\x1b[31mb.wav", r"a\\x1b\[31mb"), ("a\rb.wav", r"a\\rb"), ("a\x85b.wav", r"a\\x85b"),
        ("a\u202eb.wav", r"a\\u202eb"), ("a\u2028b.wav", r"a\\u2028b"), ("a\u3000\xa0é日本.wav", "a\u3000\xa0é日本"),
    ])
    def test_that_a_terminal_would_obey(self, data, tmp_path, name, shown):
        """A message is one line, and shows what the name is."""
        for content, expected in ((data[:-500], "it cannot be decoded"), (b"no", "not a recording")):
            (tmp_path / name).write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("error", AudioWarning)
                with pytest.raises((InputError, AudioWarning), match=rf"{shown}\.wav: (.*{expected}|its header)"):
                    as_samples(tmp_path / name)

    def test_that_are_empty(self):
        with pytest.raises(InputError, match="^'': no such file"):
            as_samples("")

    @posix
    def test_that_are_no_text_and_not_there(self, tmp_path):
        with pytest.raises(InputError, match=r"caf\\udce9\.wav: no such file"):
            as_samples(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")))

    @pytest.mark.parametrize("name", ["a\0b.wav", "x" * 5_000, "a.flac/b.wav"])
    def test_that_cannot_be(self, file, name):
        with pytest.raises(InputError, match="no such file|cannot be read"):
            as_samples(file.parent / name)

    def test_folders(self, tmp_path):
        with pytest.raises(InputError, match="is a folder, not a file"):
            as_samples(tmp_path)


def test_an_interrupt_while_a_library_reads_is_raised(monkeypatch):
    """libsndfile would print it and go on."""
    read = View._read
    counts = iter(range(1000))

    def interrupted(self, most):
        if next(counts) == 3:
            raise KeyboardInterrupt
        return read(self, most)

    monkeypatch.setattr(View, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_audio(Path(__file__).parents[1] / "recordings" / "known-0.flac")
