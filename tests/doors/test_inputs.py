"""What `tdtdecode transcribe` is given: folders, standard input, pipes, doubtful recordings; and a full output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from tdtdecode.cli import main  # noqa: E402
from tdtdecode.speech.hub import demo_directory  # noqa: E402
from tests.speech.containers import CONTAINERS, encoded  # noqa: E402

SPEECH = demo_directory() / "speech.flac"
TEXT = (demo_directory() / "speech.txt").read_text(encoding="utf-8").strip() + "\n"
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


@pytest.fixture(scope="module")
def samples():
    return soundfile.read(SPEECH, dtype="float32")[0]


@pytest.fixture
def transcribe(capsys):
    """Run `tdtdecode transcribe` here: (status, stdout, stderr)."""

    def run(*arguments):
        try:
            status = main(["transcribe", *map(str, arguments)])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


def process(*arguments, stdin=subprocess.DEVNULL, **options):
    return subprocess.run(
        [sys.executable, "-m", "tdtdecode", *map(str, arguments)], stdin=stdin, encoding="utf-8",
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, samples):
    """one.wav, a recording without a suffix, and what stands beside recordings."""
    soundfile.write(tmp_path / "one.wav", samples, 16_000)
    shutil.copy(SPEECH, tmp_path / "without")
    for name in ("notes.txt", "one.json", "cover.JPG", "._one.wav", ".DS_Store"):
        (tmp_path / name).write_text("no recording")
    return tmp_path


class TestFolders:
    def test_what_stands_beside_recordings_is_no_matter(self, transcribe, folder):
        assert transcribe(folder) == (0, 2 * TEXT, "")

    def test_what_could_be_a_recording_is_named(self, transcribe, folder):
        (folder / "unknown.bin").write_bytes(b"123" * 1_000)
        (folder / ".hidden.flac").write_bytes(SPEECH.read_bytes())
        (folder / "raw.pcm").write_bytes(bytes(range(256)) * 100)
        status, out, err = transcribe(folder)
        assert (status, out) == (0, 2 * TEXT)
        assert err == (
            f"tdtdecode: warning: {folder}: passed over what is not known to be a recording: "
            ".hidden.flac, raw.pcm, unknown.bin\n"
        )

    def test_many_are_counted(self, transcribe, folder):
        for number in range(12):
            (folder / f"{number:02}.bin").write_bytes(b"123" * 1_000)
        assert "00.bin, 01.bin, 02.bin, 03.bin, 04.bin and 7 more\n" in transcribe(folder)[2]

    def test_subfolders(self, transcribe, folder):
        (folder / "sub" / "deeper").mkdir(parents=True)
        (folder / ".cache").mkdir()
        shutil.copy(SPEECH, folder / "sub" / "three.flac")
        shutil.copy(SPEECH, folder / "sub" / "deeper" / "four.flac")
        status, out, err = transcribe(folder)
        assert (status, out) == (0, 2 * TEXT)
        assert err == f"tdtdecode: warning: {folder}: subfolders are passed over without --recursive: sub\n"
        assert transcribe("--recursive", folder) == (0, 4 * TEXT, "")

    @posix
    def test_links_in_circles(self, transcribe, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "up").symlink_to(folder)
        shutil.copy(SPEECH, folder / "sub" / "three.flac")
        assert transcribe("--recursive", folder) == (0, 3 * TEXT, "")

    @posix
    def test_pipes_in_folders_are_not_waited_for(self, transcribe, folder):
        os.mkfifo(folder / "pipe.wav")
        status, out, err = transcribe(folder)
        assert (status, out) == (0, 2 * TEXT) and "not known to be a recording: pipe.wav\n" in err

    def test_media(self, transcribe, folder, samples):
        pytest.importorskip("av", reason="PyAV is not installed")
        (folder / "two.m4a").write_bytes(encoded("ipod", "aac", samples))
        (folder / "three.MP4").write_bytes(encoded("mp4", "aac", samples, video=True))
        assert transcribe(folder) == (0, 4 * TEXT, "")

    def test_media_without_pyav(self, transcribe, folder, samples, monkeypatch):
        pytest.importorskip("av", reason="PyAV is not installed")
        (folder / "two.m4a").write_bytes(encoded("ipod", "aac", samples))
        monkeypatch.setitem(sys.modules, "av", None)
        status, out, err = transcribe(folder)
        assert (status, out) == (1, TEXT + "\n" + TEXT)
        assert err.startswith(f"tdtdecode: {folder / 'two.m4a'}: not a recording") and "tdtdecode[media]" in err

    def test_a_folder_without_recordings(self, transcribe, tmp_path):
        (tmp_path / "a.txt").write_text("")
        assert transcribe(tmp_path) == (1, "", f"tdtdecode: {tmp_path}: no recordings in this folder\n")

    def test_strict(self, transcribe, folder):
        (folder / "unknown.bin").write_bytes(b"123" * 1_000)
        status, out, err = transcribe("--strict", folder)
        assert (status, out) == (2, "") and err.endswith("not known to be a recording: unknown.bin\n")


class TestDoubts:
    def test_a_recording_without_a_size(self, transcribe, tmp_path, samples):
        path = tmp_path / "a.wav"
        path.write_bytes(CONTAINERS["wav"].states(CONTAINERS["wav"].written(samples), 0))
        status, out, err = transcribe(path, SPEECH)
        assert (status, out) == (0, 2 * TEXT)
        assert err.startswith(f"tdtdecode: warning: {path}: its header states 0 bytes of audio")
        assert err.count("\n") == 1
        status, out, err = transcribe("--strict", path, SPEECH)
        assert (status, out) == (1, "\n" + TEXT)
        assert err.startswith(f"tdtdecode: {path}: its header states 0 bytes") and err.count(str(path)) == 1

    def test_channels_that_cancel(self, transcribe, tmp_path, samples):
        path = tmp_path / "a.wav"
        soundfile.write(path, np.stack([samples, -samples], axis=1), 16_000)
        status, out, err = transcribe(path)
        assert (status, out) == (0, TEXT) and f"warning: {path}: its channels cancel each other" in err


class TestPipes:
    def test_standard_input(self):
        with open(SPEECH, "rb") as file:
            assert process("transcribe", "-", stdin=file).stdout == TEXT
        run = subprocess.run(
            [sys.executable, "-m", "tdtdecode", "transcribe", "-", str(SPEECH)], input=SPEECH.read_bytes(),
            capture_output=True,
        )
        assert (run.returncode, run.stdout.decode(), run.stderr) == (0, 2 * TEXT, b"")

    def test_its_result_has_a_name(self, tmp_path):
        with open(SPEECH, "rb") as file:
            assert process("transcribe", "-", "-o", tmp_path, stdin=file).returncode == 0
        assert (tmp_path / "stdin.txt").read_text(encoding="utf-8") == TEXT
        with open(SPEECH, "rb") as file:
            assert '"recording": "stdin"' in process("transcribe", "-", "--format", "json", stdin=file).stdout

    def test_nothing_comes(self):
        run = process("transcribe", "-")
        assert (run.returncode, run.stdout) == (1, "\n") and "<stdin>: not a recording" in run.stderr

    @posix
    def test_closed_standard_input(self):
        run = subprocess.run(
            ["sh", "-c", f"'{sys.executable}' -m tdtdecode transcribe - <&-"], capture_output=True, text=True
        )
        assert (run.returncode, run.stdout) == (2, "") and "standard input is closed" in run.stderr

    @posix
    def test_a_terminal(self):
        import pty

        ours, theirs = pty.openpty()
        run = process("transcribe", "-", stdin=theirs)
        os.close(ours)
        os.close(theirs)
        assert run.returncode == 2 and "standard input is a terminal" in run.stderr

    @pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
    def test_process_substitution(self):
        command = f"'{sys.executable}' -m tdtdecode transcribe <(cat '{SPEECH}') '{SPEECH}'"
        run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (run.returncode, run.stdout, run.stderr) == (0, 2 * TEXT, "")

    def test_urls(self, transcribe):
        status, out, err = transcribe("https://example.org/a.wav", SPEECH)
        assert (status, out) == (1, "\n" + TEXT)
        assert err.startswith("tdtdecode: https://example.org/a.wav: is a URL, and nothing is downloaded here")
        assert err.count("example.org") == 1

    @posix
    def test_names_that_are_no_text(self, tmp_path):
        path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.flac")
        shutil.copy(SPEECH, path)
        missing = os.path.join(os.fsencode(tmp_path), b"th\xe9.flac")
        command = [sys.executable, "-m", "tdtdecode", "transcribe"]
        run = subprocess.run([*command, path, missing, "--format", "json"], capture_output=True)
        assert run.returncode == 1 and b'caf\\udce9.flac", "text": "set an alarm' in run.stdout
        assert run.stderr.decode() == (
            f"tdtdecode: {tmp_path}/th\\udce9.flac: no such file; expected a recording as WAV, FLAC, OGG or MP3\n"
        )
        run = subprocess.run([*command, tmp_path], capture_output=True)
        assert (run.returncode, run.stdout.decode(), run.stderr) == (0, TEXT, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
class TestFullOutput:
    @pytest.mark.parametrize("arguments", [
        ["transcribe", SPEECH], ["transcribe", "--format", "json", SPEECH, SPEECH], ["info"], ["--version"],
        ["inspect", demo_directory()],
    ], ids=lambda arguments: arguments[0])
    @pytest.mark.parametrize("buffered", ["", "1"])
    def test_one_line(self, arguments, buffered):
        environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
        if arguments == ["--version"] and buffered:
            return  # Python's own argument parser passes over the error
        with open("/dev/full", "w") as full:
            run = process(*arguments, stdout=full, env=environment)
        assert run.returncode == 1
        assert run.stderr == "tdtdecode: standard output cannot be written (No space left on device)\n"

    def test_closed(self, tmp_path):
        command = f"'{sys.executable}' -m tdtdecode transcribe '{SPEECH}'"
        run = subprocess.run(["sh", "-c", f"{command} >&-"], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (1, "tdtdecode: standard output cannot be written (it is closed)\n")
        run = subprocess.run(["sh", "-c", f"{command} -o '{tmp_path}' >&-"], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert (tmp_path / "speech.txt").read_text(encoding="utf-8") == TEXT

    @pytest.mark.parametrize(("closed", "status", "out"), [
        ("2>&-", 0, TEXT), ("<&- 2>&-", 0, TEXT), (">&- 2>&-", 1, ""), ("<&- >&- 2>&-", 1, ""),
    ])
    def test_closed_standard_error(self, closed, status, out):
        """Nobody hears the messages, and nothing else changes."""
        command = f"'{sys.executable}' -m tdtdecode transcribe '{SPEECH}' {closed}"
        run = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
        assert (run.returncode, run.stdout) == (status, out)

    def test_full_standard_error(self, tmp_path):
        """A warning that nobody can read does not cost the result; the status says that something was lost."""
        cut = tmp_path / "cut.flac"
        cut.write_bytes(SPEECH.read_bytes()[:-5_000])
        with open("/dev/full", "w") as full:
            run = process("transcribe", cut, SPEECH, stderr=full)
            assert run.returncode == 1 and run.stdout.startswith("set an alarm") and run.stdout.endswith("\n" + TEXT)
            assert process("transcribe", SPEECH, stderr=full).returncode == 0
            assert process("transcribe", tmp_path / "none.wav", stderr=full).returncode == 1
            assert process("transcribe", "--model", tmp_path / "none", SPEECH, stderr=full).returncode == 2

    def test_no_file_takes_the_place_of_standard_error(self, tmp_path):
        """Libraries write there by its number: what they say would stand in the next file that is opened."""
        program = (
            "import os, sys, tdtdecode.cli as cli\n"
            "cli._open_closed_streams()\n"
            f"file = open({str(tmp_path / 'a')!r}, 'wb')\n"
            "os.write(2, b'noise')\n"
            "sys.exit(file.fileno() <= 2)\n"
        )
        run = subprocess.run(["sh", "-c", f"'{sys.executable}' -c \"$0\" 2>&-", program])
        assert run.returncode == 0 and (tmp_path / "a").read_bytes() == b""


class TestInfo:
    def test_what_can_be_read(self, capsys):
        assert main(["info"]) == 0
        out = capsys.readouterr().out
        assert "recordings that can be read:" in out and "by soundfile (libsndfile " in out
        for name in ("WAV", "FLAC", "OGG", "MP3"):
            assert f" {name}" in out

    def test_pyav(self, capsys):
        pytest.importorskip("av", reason="PyAV is not installed")
        main(["info"])
        assert "by PyAV (libavformat " in capsys.readouterr().out

    def test_what_is_to_be_installed(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        monkeypatch.setitem(sys.modules, "soundfile", None)
        assert main(["info"]) == 0
        out = capsys.readouterr().out
        assert "none by PyAV: reading m4a, mp4" in out and "pip install 'tdtdecode[media]'" in out
        assert "none by soundfile: " in out and "pip install 'tdtdecode[cpu]'" in out
