"""Progress in seconds of audio: of batches, within one long recording, and on a terminal with rate and time left."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.commands.progress import Display, clock, progress_line  # noqa: E402
from tests import demo  # noqa: E402

SPEECH = demo.DIRECTORY / "speech.flac"


@pytest.fixture(scope="module")
def model():
    return tdt.load_model("demo")


def silence(seconds):
    return np.zeros(round(16_000 * seconds), np.float32), 16_000


def check(seen, recordings, seconds):
    """Nothing goes back, and the last report says that all is done."""
    for before, after in zip(seen, seen[1:]):
        assert before.seconds_done <= after.seconds_done and before.recordings_done <= after.recordings_done
    assert all(0 <= now.seconds_done <= now.seconds_total + 1e-9 for now in seen)
    assert seen[-1] == tdt.Progress(
        seconds_done=seen[-1].seconds_total, seconds_total=seen[-1].seconds_total, recordings_done=recordings,
        recordings_known=recordings, recordings_total=recordings,
    )  # fmt: skip
    assert seen[-1].seconds_total == pytest.approx(seconds)


def test_one_long_recording(model):
    """A recording of many windows gives a report for each."""
    seen = []
    model.recognize(silence(200), progress=seen.append)
    check(seen, 1, 200)
    steps = sorted({now.seconds_done for now in seen})
    assert len(steps) >= 8 and max(np.diff([0.0, *steps])) < 40
    assert [now.recordings_done for now in seen[:-1]] == [0] * (len(seen) - 1)


def test_many_recordings(model):
    seen = []
    lengths = [3, 50, 1, 0, 7, 100]
    model.recognize([silence(seconds) for seconds in lengths], batch_size=2, progress=seen.append)
    check(seen, 6, sum(lengths))
    assert len({now.recordings_done for now in seen}) >= 4


def test_failures_count_as_done(model, tmp_path):
    seen = []
    results = model.recognize(
        [silence(2), tmp_path / "missing.wav", silence(1)], on_error="return", progress=seen.append
    )
    assert isinstance(results[1], tdt.InputError)
    check(seen, 3, 3)
    seen.clear()
    model.recognize([tmp_path / "missing.wav"], on_error="return", progress=seen.append)
    check(seen, 1, 0)


@pytest.mark.filterwarnings("ignore::tdtdecode.AudioWarning")
def test_wrong_headers_are_corrected(model, tmp_path):
    """The header of a recorder that was switched off states nothing."""
    file = io.BytesIO()
    soundfile.write(file, *silence(4), format="WAV")
    seen = []
    model.recognize(file.getvalue()[:40] + bytes(4) + file.getvalue()[44:], progress=seen.append)
    check(seen, 1, 4)


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("recording", [silence(100), silence(1)], ids=["windows", "whole"])
def test_what_the_callback_raises_ends_the_call(model, on_error, recording):
    def stop(now):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        model.recognize([recording, recording], on_error=on_error, progress=stop)


@pytest.mark.parametrize(("arguments", "line"), [
    ((30.0, 60.0, 0, 1, 1, 2.0), "0 of 1 recordings, 0:30 of 1:00 of audio, 15 times real time, 0:02 left"),
    ((1800.0, 7200.0, 1, 4, 4, 600.0), "1 of 4 recordings, 30:00 of 2:00:00 of audio, 3 times real time, 30:00 left"),
    ((60.0, 120.0, 2, 4, 40, 1.0), "2 of 40 recordings, 1:00 of about 20:00 of audio, 60 times real time, 0:19 left"),
    ((0.0, 10.0, 0, 1, 1, 0.0), "0 of 1 recordings, 0:00 of 0:10 of audio"),
    ((0.0, 0.0, 3, 3, 9, 1.0), "3 of 9 recordings"),
])  # fmt: skip
def test_the_line(arguments, line):
    assert progress_line(*arguments) == line


def test_clock():
    times = {0: "0:00", 59.6: "1:00", 61: "1:01", 3600: "1:00:00", 36_061: "10:01:01"}
    assert {seconds: clock(seconds) for seconds in times} == times


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command_line(tmp_path, monkeypatch, terminal):
    """On a terminal one line is updated, else there is a new line now and then; also within one long recording."""
    soundfile.write(tmp_path / "long.wav", *silence(120))
    err = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(Display, "_SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(Display, "_SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr", err)
    assert main(["transcribe", str(tmp_path / "long.wav"), str(SPEECH)]) == 0
    text = err.getvalue()
    line = r"(\d) of 2 recordings, (\d+:\d+) of (\d+:\d+) of audio, \S+ times real time, \d+:\d+ left"
    shown = re.findall(line, text)
    assert len(shown) >= 4 and shown[-1] == ("2", "2:09", "2:09")
    assert len({done for _, done, _ in shown}) >= 4
    assert ("\r" in text and "\n" not in text) if terminal else text.count("tdtdecode: ") == len(shown)
