"""Files that are written: whole or not at all, and never over one that was given."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")

from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.errors import InputError  # noqa: E402
from tdtdecode.outputs import new_directory, new_file, refuse_overwriting, same_name  # noqa: E402

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and limits of POSIX")


@pytest.fixture
def model(tmp_path):
    return make_bundle(
        tmp_path / "model", "combined", vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32, mel_bins=80,
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with a recording and a list of phrases of the same name."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_noise(folder / "names.flac")
    (folder / "names.txt").write_text("\n")
    return folder


def write_noise(path, format="FLAC"):
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(20_000), 16_000, format=format)
    return path


def run(model, capsys, *arguments):
    status = main(["transcribe", "--model", str(model), *map(str, arguments)])
    return status, capsys.readouterr().err


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refused(model, capsys, folder, *arguments, named):
    """Nothing is written, and the message names the file."""
    before = contents(folder), contents(model)
    status, err = run(model, capsys, *arguments)
    assert status == 2 and "would be written over" in err and str(named) in err and err.count("\n") == 1
    assert (contents(folder), contents(model)) == before


def test_phrases_beside_the_recording(model, capsys, folder):
    check_refused(
        model, capsys, folder, folder / "names.flac", "--phrases", folder / "names.txt", "-o", folder,
        named=folder / "names.txt",
    )


def test_a_language_model_beside_the_recording(model, capsys, folder):
    lm = folder / "names.json"  # the suffix of a language model is anybody's choice
    lm.write_text("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\t<unk>\n\n\\end\\\n")
    check_refused(model, capsys, folder, folder / "names.flac", "--lm", lm, "--format", "json", "-o", folder, named=lm)


def test_a_recording_that_has_the_results_suffix(model, capsys, folder):
    recording = write_noise(folder / "rec.txt", "WAV")
    check_refused(model, capsys, folder, recording, "-o", folder, named=recording)
    other = write_noise(folder / "rec.wav", "WAV")
    status, err = run(model, capsys, recording, other, "-o", folder)
    assert status == 2 and "would both be written" in err


def test_files_of_the_model(model, capsys, folder):
    recording = write_noise(folder / "vocab.flac")
    check_refused(model, capsys, folder, recording, "-o", model, named=model / "vocab.txt")
    (model / "inner").mkdir()
    (model / "inner" / "vocab.txt").write_text("weights may lie in folders")
    check_refused(model, capsys, folder, recording, "-o", model / "inner", named=model / "inner" / "vocab.txt")


def test_other_spellings_of_a_path(model, capsys, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "sub").mkdir()
    spellings = ((".", "names.txt"), (folder, "names.txt"), ("sub/..", "./names.txt"), (".", folder / "names.txt"))
    for out, phrases in spellings:
        check_refused(model, capsys, folder, "names.flac", "--phrases", phrases, "-o", out, named="names.txt")


@posix
def test_links(model, capsys, folder):
    elsewhere = folder.parent / "elsewhere.txt"
    (folder / "names.txt").rename(elsewhere)
    for link in (os.symlink, os.link):
        (folder / "names.txt").unlink(missing_ok=True)
        link(elsewhere, folder / "names.txt")
        check_refused(
            model, capsys, folder, folder / "names.flac", "--phrases", elsewhere, "-o", folder, named=elsewhere,
        )
    (folder.parent / "linked").symlink_to(folder)
    check_refused(
        model, capsys, folder, folder / "names.flac", "--phrases", folder / "names.txt", "-o", folder.parent / "linked",
        named=folder / "names.txt",
    )


def test_names_that_differ_in_case_only(model, capsys, folder):
    """Where the file system takes them for the same, both lead to one file; elsewhere a link stands for that."""
    (folder / "names.flac").rename(folder / "NAMES.flac")
    if not (folder / "NAMES.txt").exists():
        os.link(folder / "names.txt", folder / "NAMES.txt")
    check_refused(model, capsys, folder, folder / "NAMES.flac", "--phrases", folder / "names.txt", "-o", folder,
                  named=folder / "names.txt")  # fmt: skip


def test_standard_output_that_was_given(model, folder):
    command = [sys.executable, "-m", "tdtdecode", "transcribe", "--model", model, "--phrases", folder / "names.txt",
               folder / "names.flac"]  # fmt: skip
    with open(folder / "names.txt", "a") as out:
        result = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and "was given as" in result.stderr
    assert (folder / "names.txt").read_text() == "\n"


def test_what_was_not_given_is_replaced(model, capsys, folder):
    """A result of an earlier run, beside files that were given."""
    (folder / "names.txt").rename(folder / "list.txt")
    (folder / "names.txt").write_text("an older result")
    arguments = (folder / "names.flac", "--phrases", folder / "list.txt", "-o", folder)
    assert run(model, capsys, *arguments) == (0, "")
    assert (folder / "names.txt").read_text() != "an older result" and (folder / "list.txt").read_text() == "\n"
    assert run(model, capsys, *arguments) == (0, "")
    (folder / "out").mkdir()
    assert run(model, capsys, *arguments[:-1], folder / "out") == (0, "")
    assert contents(folder / "out") == {"names.txt": (folder / "names.txt").read_bytes()}


@posix
def test_two_results_in_one_file_by_a_link(model, capsys, folder):
    write_noise(folder / "other.flac")
    (folder / "other.txt").symlink_to("names.txt")
    status, err = run(model, capsys, folder / "names.flac", folder / "other.flac", "-o", folder)
    assert status == 2 and "would both be written" in err
    assert (folder / "names.txt").read_text() == "\n"


def test_names_that_some_systems_take_for_the_same():
    assert same_name("Stra\u00dfe.txt") == same_name("STRASSE.TXT")
    assert same_name("e\u0301.txt") == same_name("\u00c9.txt")
    assert same_name("a.txt") != same_name("b.txt")


@posix
def test_a_full_disk(model, capsys, folder):
    """What was there stays, and no part of the new file is left; the next recording is written."""
    write_noise(folder / "small.flac")
    result, arguments = folder / "names.json", (folder / "names.flac", "--format", "json", "-o", folder)
    result.write_text("an older result")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        status, err = run(model, capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 1 and str(folder / "names.flac") in err and "cannot be written" in err
    assert result.read_text() == "an older result"
    assert sorted(path.name for path in folder.iterdir()) == ["names.flac", "names.json", "names.txt", "small.flac"]
    assert run(model, capsys, *arguments) == (0, "")
    assert result.read_bytes().startswith(b"{")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_late(tmp_path, monkeypatch, failing):
    """A disk may say only at the end that it is full; and a program may be interrupted at any time."""
    path = tmp_path / "result"
    for error, raised in ((OSError(errno.ENOSPC, "No space left on device"), InputError),
                          (KeyboardInterrupt(), KeyboardInterrupt)):  # fmt: skip
        for before in (None, b"an older result"):
            path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before)
            with monkeypatch.context() as patch, pytest.raises(raised):
                patch.setattr(os, failing, raising(error))
                with new_file(path) as file:
                    file.write(b"a new result")
            assert contents(tmp_path) == ({} if before is None else {"result": before})


def raising(error):
    def function(*_, **__):
        raise error
    return function


def test_work_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "result").write_bytes(b"an older result")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "result") as file:
        file.write(b"half of a")
        raise ZeroDivisionError
    assert contents(tmp_path) == {"result": b"an older result"}
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "model") as folder:
        (folder / "graph.onnx").write_bytes(b"half of a")
        raise ZeroDivisionError
    assert contents(tmp_path) == {"result": b"an older result"}


def test_a_new_file_has_the_usual_permissions(tmp_path):
    with new_file(tmp_path / "a") as file:
        file.write(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "b").chmod(0o640)
    with new_file(tmp_path / "b") as file:
        file.write(b"2")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o640
    name = "x" * 255
    with new_file(tmp_path / name) as file:
        file.write(b"3")
    assert (tmp_path / name).read_bytes() == b"3"
    with new_directory(tmp_path / "c") as folder:
        (folder / "file").write_bytes(b"4")
    (tmp_path / "d").mkdir()
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "d").stat().st_mode


@posix
def test_links_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "result").write_bytes(b"old")
    (tmp_path / "link").symlink_to("far/result")
    (tmp_path / "broken").symlink_to("far/other")
    for link, target in (("link", "result"), ("broken", "other")):
        with new_file(tmp_path / link) as file:
            file.write(b"new")
        assert (tmp_path / link).is_symlink() and (tmp_path / "far" / target).read_bytes() == b"new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="loop: cannot be written"), new_file(tmp_path / "loop"):
        pass


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_replaced(model, capsys, folder, kind):
    target = folder / "names.txt"
    target.unlink()
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "device":
        target.symlink_to("/dev/full")
    else:
        target.mkdir()
    before = target.lstat()
    status, err = run(model, capsys, folder / "names.flac", "-o", folder)
    assert status == 1 and "cannot be written" in err
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)


@posix
def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "result").write_bytes(b"to be kept")
    (tmp_path / "result").chmod(0o444)
    access = os.access
    # The superuser may write everything.
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and bool(os.stat(path).st_mode & 0o200))
    with pytest.raises(InputError, match="write-protected"), new_file(tmp_path / "result"):
        pass
    assert contents(tmp_path) == {"result": b"to be kept"}


def test_a_folder_that_was_given_counts_with_all_its_files(tmp_path):
    (tmp_path / "model" / "inner").mkdir(parents=True)
    weights = tmp_path / "model" / "inner" / "weights"
    weights.write_bytes(b"1")
    with pytest.raises(InputError, match="weights"):
        refuse_overwriting([weights], [tmp_path / "model"])
    refuse_overwriting([tmp_path / "model" / "new"], [tmp_path / "model", tmp_path / "absent"])
    shutil.copy(weights, tmp_path / "copy")
    refuse_overwriting([tmp_path / "copy"], [weights])
