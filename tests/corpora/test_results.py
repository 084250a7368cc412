"""Files of results: whole lines, nothing done twice, nothing mixed up, whatever happens."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys

import pytest

from tdtdecode.corpora import Fields, Results, read_manifest, transcribed
from tdtdecode.errors import InputError, OutputError
from tests.corpora.helpers import StandIn, parts, read_lines, write_lines

SETTINGS = {"model": "abc", "precision": "float32", "words": False}
posix = pytest.mark.skipif(os.name != "posix", reason="locks and devices of POSIX")


@pytest.fixture
def lines(tmp_path):
    """Ten recordings, of which two are not there."""
    lines = parts(10)
    lines[3]["audio_filepath"] = lines[8]["audio_filepath"] = str(tmp_path / "missing.flac")
    del lines[3]["duration"], lines[8]["duration"]
    write_lines(tmp_path / "in.jsonl", lines)
    return lines


def job(tmp_path, out="out.jsonl", stop=None, order=None, settings=SETTINGS, **options):
    """Run a job, or some recordings of it, and return what was asked of the model."""
    manifest = read_manifest(tmp_path / "in.jsonl")
    model = StandIn()
    with Results(tmp_path / out, manifest, settings, Fields().names, in_order=order is None, **options) as results:
        pending = list(results.pending())[:stop]
        for outcome in transcribed(model, [pending[i] for i in order] if order else pending):
            results.add(outcome.entry, outcome.results)
        model.done, model.failed = results.done, results.failed
    return model


def files(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "in.jsonl")


def test_results_keep_what_was_given_in_order(tmp_path, lines):
    assert len(job(tmp_path).asked) == 10
    found = read_lines(tmp_path / "out.jsonl")
    for i, (given, line) in enumerate(zip(lines, found, strict=True)):
        assert {name: line[name] for name in given} == given
        assert set(line) - set(given) == ({"error"} if i in (3, 8) else {"pred_text"})
    assert found[1]["pred_text"].startswith("heard ") and "no such file" in found[3]["error"]
    assert files(tmp_path) == ["out.jsonl", "out.jsonl.run.json"]


def test_what_is_done_is_not_done_again(tmp_path, lines):
    assert len(job(tmp_path, stop=4).asked) == 4
    before = (tmp_path / "out.jsonl").read_bytes()
    assert len(job(tmp_path).asked) == 6
    assert (tmp_path / "out.jsonl").read_bytes().startswith(before)
    whole = (tmp_path / "out.jsonl").read_bytes()
    model = job(tmp_path)
    assert (model.asked, model.done, model.failed) == ([], 10, 2)
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.journal"])
def test_a_line_that_is_torn_at_any_place_is_cut_off(tmp_path, lines, name):
    order = [7, 2, 5, 0, 1, 3] if name.endswith("journal") else None
    job(tmp_path, stop=None if order is None else 10, order=order)
    whole = (tmp_path / name).read_bytes()
    begins = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    for begin, end in ((begins[0], begins[1]), (begins[4], begins[5])):
        for cut in (begin, begin + 1, (begin + end) // 2, end - 1):
            (tmp_path / name).write_bytes(whole[:cut])
            if name.endswith("journal"):
                (tmp_path / "out.jsonl").unlink(missing_ok=True)
            model = job(tmp_path)
            assert len(model.asked) == 10 - begins.index(begin)
            assert len(read_lines(tmp_path / "out.jsonl")) == 10
            if order is None:
                assert (tmp_path / name).read_bytes() == whole


def test_zeros_after_a_loss_of_power_are_cut_off(tmp_path, lines):
    job(tmp_path, stop=4)
    with open(tmp_path / "out.jsonl", "ab") as file:
        file.write(bytes(5000))
    assert len(job(tmp_path).asked) == 6
    assert len(read_lines(tmp_path / "out.jsonl")) == 10


def test_any_order_gives_the_same_file(tmp_path, lines):
    job(tmp_path, "straight.jsonl")
    job(tmp_path, order=[9, 3, 0])
    assert files(tmp_path) == ["out.jsonl.journal", "out.jsonl.run.json", "straight.jsonl", "straight.jsonl.run.json"]
    job(tmp_path, order=[2, 1])
    assert len(job(tmp_path).asked) == 5, "a run that goes in order goes on with one that did not"
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_errors_are_tried_again_if_asked(tmp_path, lines):
    job(tmp_path)
    assert job(tmp_path).asked == []
    model = job(tmp_path, retry_errors=True)
    assert len(model.asked) == 2 and model.failed == 2
    (tmp_path / "missing.flac").write_bytes(open(lines[0]["audio_filepath"], "rb").read())
    assert len(job(tmp_path, retry_errors=True, stop=1).asked) == 1
    found = read_lines(tmp_path / "out.jsonl")
    assert "pred_text" in found[3] and "error" not in found[3] and "error" in found[8]
    model = job(tmp_path, retry_errors=True)
    assert len(model.asked) == 1 and (model.done, model.failed) == (10, 0)
    assert all("pred_text" in line for line in read_lines(tmp_path / "out.jsonl"))
    assert job(tmp_path, retry_errors=True).asked == []


def test_a_retry_that_is_killed_keeps_its_results(tmp_path, lines):
    """The journal that a killed process leaves, beside the results of the run before."""
    job(tmp_path)
    line = read_lines(tmp_path / "out.jsonl")[3]
    del line["error"]
    journal = [{"index": 3, "result": line | {"pred_text": "now"}}, '{"index": 8, "re']
    write_lines(tmp_path / "out.jsonl.journal", journal)
    assert len(job(tmp_path, retry_errors=True).asked) == 1
    assert read_lines(tmp_path / "out.jsonl")[3]["pred_text"] == "now"
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_compressed_results(tmp_path, lines):
    job(tmp_path)
    assert len(job(tmp_path, "out.jsonl.gz", stop=4).asked) == 4
    assert not (tmp_path / "out.jsonl.gz").exists()
    assert len(job(tmp_path, "out.jsonl.gz").asked) == 6
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()
    assert job(tmp_path, "out.jsonl.gz").asked == []
    write_lines(tmp_path / "in.jsonl", [*lines, *parts(2)])
    assert len(job(tmp_path, "out.jsonl.gz").asked) == 2
    assert len(list(read_manifest(tmp_path / "out.jsonl.gz"))) == 12


def test_a_manifest_that_has_grown(tmp_path, lines):
    job(tmp_path)
    write_lines(tmp_path / "in.jsonl", [*lines, *parts(3)])
    assert len(job(tmp_path).asked) == 3
    assert len(read_lines(tmp_path / "out.jsonl")) == 13


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.journal"])
def test_a_changed_manifest_is_refused(tmp_path, lines, name):
    job(tmp_path, stop=6, order=[0, 1, 2, 3, 4] if name.endswith("journal") else None)
    before = (tmp_path / name).read_bytes()
    changes = [
        (lines[:2] + lines[3:], f"{name}: line 3 is no result of line 3 of"),
        (lines[:2] + [lines[3], lines[2]] + lines[4:], f"{name}: line 3 is no result of line 3 of"),
        (lines[:4] + [lines[4] | {"text": "other"}], f"{name}: line 5 is no result of line 5 of"),
        (lines[:3], "of" if name.endswith("journal") else "more recordings than the 3 of"),
    ]
    for changed, message in changes:
        write_lines(tmp_path / "in.jsonl", changed)
        with pytest.raises(InputError, match=message):
            job(tmp_path)
        assert (tmp_path / name).read_bytes() == before


def test_changed_settings_are_refused_by_name(tmp_path, lines):
    job(tmp_path, stop=3)
    for changed, message in (
        ({"precision": "int8"}, "precision was 'float32', and is now 'int8'"),
        ({"model": "def"}, "the model has another content"), ({"words": True}, "words was False, and is now True"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            job(tmp_path, settings=SETTINGS | changed)
    assert len(job(tmp_path).asked) == 7


def test_settings_count_once_there_are_results(tmp_path, lines):
    job(tmp_path, stop=0)
    job(tmp_path, settings=SETTINGS | {"precision": "int8"})
    for path in tmp_path.glob("out*l"):
        path.unlink()
    assert len(job(tmp_path).asked) == 10


def test_other_files_are_not_touched(tmp_path, lines):
    (tmp_path / "out.jsonl").write_text("notes\n")
    with pytest.raises(InputError, match="exists already"):
        job(tmp_path)
    assert (tmp_path / "out.jsonl").read_text() == "notes\n" and files(tmp_path) == ["out.jsonl"]
    with pytest.raises(InputError, match="would be written over"):
        job(tmp_path, "in.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        job(tmp_path, ".")
    assert len(job(tmp_path, "new/folder/out.jsonl").asked) == 10


@posix
def test_devices_are_refused(tmp_path, lines):
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="leave out -o"):
        job(tmp_path)


def test_damaged_results_are_named(tmp_path, lines):
    job(tmp_path)
    content = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    content[4] = content[4][:10]
    (tmp_path / "out.jsonl").write_bytes(b"\n".join(content))
    with pytest.raises(InputError, match=r"out.jsonl: line 5 is not JSON"):
        job(tmp_path)


@posix
def test_two_processes_do_not_write_the_same_results(tmp_path, lines):
    manifest = read_manifest(tmp_path / "in.jsonl")
    with Results(tmp_path / "out.jsonl", manifest, SETTINGS, Fields().names):
        code = (
            "import sys; from tdtdecode.corpora import *\n"
            "Results(sys.argv[2], read_manifest(sys.argv[1]), {}, set()).__enter__()"
        )
        command = [sys.executable, "-c", code, tmp_path / "in.jsonl", tmp_path / "out.jsonl"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert "another process writes its results there" in result.stderr
    assert len(job(tmp_path).asked) == 10


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_disk_that_is_full(tmp_path, lines, monkeypatch, failing):
    """A part of a line that was written is taken back."""
    real = getattr(os, failing)
    calls = []

    def full(file, *arguments):
        calls.append(file)
        if len(calls) < 9:
            return real(file, *arguments)
        if failing == "write" and len(calls) == 9:
            return real(file, arguments[0][:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tdtdecode.corpora.results._SECONDS_BETWEEN_SYNCS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left on device.* goes on with it"):
        patch.setattr(os, failing, full)
        job(tmp_path)
    done = len(read_lines(tmp_path / "out.jsonl"))
    assert 0 < done < 10
    assert len(job(tmp_path).asked) == 10 - done
    assert len(read_lines(tmp_path / "out.jsonl")) == 10


def test_results_as_a_manifest(tmp_path, lines):
    """What was recognised once may be recognised again: results take the place of the older ones, errors go."""
    job(tmp_path)
    (tmp_path / "missing.flac").write_bytes(open(lines[0]["audio_filepath"], "rb").read())
    (tmp_path / "out.jsonl").replace(tmp_path / "in.jsonl")
    given = read_lines(tmp_path / "in.jsonl")
    (tmp_path / "out.jsonl.run.json").unlink()
    job(tmp_path, stop=5)
    assert len(job(tmp_path).asked) == 5
    assert not any("error" in line for line in read_lines(tmp_path / "out.jsonl"))
    assert any("error" in line for line in given)


def test_numbers_and_text_stay_as_they_are(tmp_path):
    line = '{"audio_filepath": "a\\udcff.wav", "duration": 1, "n": NaN, "big": 12345678901234567890, "text": "\u00e9"}'
    write_lines(tmp_path / "in.jsonl", [line])
    for _ in range(2):
        job(tmp_path)
    found = json.loads((tmp_path / "out.jsonl").read_text())
    assert found["n"] != found["n"] and found["big"] == 12345678901234567890
    assert found["audio_filepath"] == "a\udcff.wav" and found["text"] == "\u00e9"
