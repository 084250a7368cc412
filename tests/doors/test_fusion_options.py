"""Language models and phrases on the command line. What is doubtful is a line on stderr, or an error with --strict."""

from __future__ import annotations

import gzip

import pytest

pytest.importorskip("soundfile")
pytest.importorskip("onnxruntime")

from tdtdecode.cli import main  # noqa: E402
from tdtdecode.speech.hub import demo_directory  # noqa: E402

SPEECH = demo_directory() / "speech.flac"
TEXT = (demo_directory() / "speech.txt").read_text(encoding="utf-8").strip()


def pieces():
    lines = (demo_directory() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [line.rsplit(" ", 1)[0] for line in lines[1:-1]]


def arpa(words):
    lines = "\n".join(f"-2.5\t{word}" for word in words)
    return f"\\data\\\nngram 1={len(words) + 1}\n\n\\1-grams:\n-3\t<unk>\n{lines}\n\n\\end\\\n".encode()


@pytest.fixture
def transcribe(capsys):
    def run(*arguments):
        status = main(["transcribe", str(SPEECH), *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out.strip(), err

    return run


@pytest.fixture
def file(tmp_path):
    def made(content, name="given"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return made


def check_warned(transcribe, *arguments, named):
    """The work is done, with one warning; with --strict it is not done, with the same line as an error."""
    status, out, err = transcribe(*arguments)
    assert status == 0 and out != "" and err.startswith("tdtdecode: warning: ") and err.count("\n") == 1
    strict_status, strict_out, strict_err = transcribe(*arguments, "--strict")
    assert (strict_status, strict_out, strict_err) == (2, "", err.replace("warning: ", ""))
    for part in named:
        assert part in err


def test_phrases_that_cannot_be_spelt(transcribe, file):
    path = file("new york\nTerminal 7\nfriday\ncovid-19\n".encode())
    check_warned(transcribe, "--phrases", path, named=[
        str(path), "2 of 4 phrases", "line 2, 'Terminal 7'", "line 4, 'covid-19'", "left out",
    ])  # fmt: skip
    path.write_text("new york\n\nfriday\t2.5\n")
    for more in ([], ["--strict"]):
        assert transcribe("--phrases", path, *more) == (0, TEXT, "")


def test_phrases_in_any_case(transcribe, file):
    path = file(b"New York\nFRIDAY\n")
    status, out, err = transcribe("--phrases", path)
    assert (status, out) == (2, "") and "2 can in another case: ignore_case=True" in err
    assert transcribe("--phrases", path, "--phrases-ignore-case", "--strict") == (0, TEXT, "")


def test_language_models_that_hardly_fit(transcribe, file):
    check_warned(transcribe, "--lm", file(arpa(pieces()[:20])), "--lm-weight", 0.01, named=[
        "20 of its 20 words (100.0%)", "20 of the model's 255 tokens (7.8%)", "<unk>",
    ])  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_language_models_that_fit(transcribe, file, pack):
    """<unk> is a piece of this model too: pieces that the file lacks share its probability."""
    path = file(pack(arpa(pieces()[:200])))
    for weight in (0.01, -0.01):
        assert transcribe("--lm", path, f"--lm-weight={weight}", "--strict") == (0, TEXT, "")


@pytest.mark.parametrize(("words", "message"), [
    ("the weather is nice an on in for seven minutes".split(), "4 of its 10 words"),
    ([chr(100 + i) for i in range(256)], "units='nemo'"),
])  # fmt: skip
def test_language_models_of_other_units(transcribe, file, words, message):
    status, out, err = transcribe("--lm", file(arpa(words)))
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
