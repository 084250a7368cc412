"""Every format read back: no word lost, times in order."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tdtdecode.cli import main  # noqa: E402
from tdtdecode.hypothesis import Hypothesis, Transcript, Word  # noqa: E402
from tdtdecode.speech.formats import FORMATS  # noqa: E402
from tdtdecode.speech.formats.cues import cues  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "transcribe.md"
CLOCK = re.compile(r"(\d\d+):(\d\d):(\d\d)[,.](\d\d\d)")


def milliseconds(clock):
    hours, minutes, seconds, rest = map(int, CLOCK.fullmatch(clock).groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def hypothesis_of(count):
    steps = np.arange(count)
    return Hypothesis(
        tokens=steps.astype(np.int32), frames=(steps * 2).astype(np.int32), durations=np.ones(count, dtype=np.int32),
        token_logprobs=(-0.1 * steps).astype(np.float32), duration_logprobs=np.zeros(count, dtype=np.float32),
        score=-1.0,
    )


@st.composite
def transcripts(draw):
    texts = draw(st.lists(st.text("abcdefg'é漢&<>-;.", min_size=1, max_size=60), max_size=40))
    words, time = [], 0.0
    for text in texts:
        time += draw(st.sampled_from([0.0, 0.0, 0.08, 0.4, 1.2, 3600.0]))
        length = draw(st.sampled_from([0.0, 0.08, 0.32, 9.0]))
        words.append(Word(text, time, time + length, draw(st.floats(0, 1))))
        time += length
    return Transcript(" ".join(texts), words, time, hypothesis_of(len(words)))


def read_srt(text):
    cues = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n"), 1):
        if block:
            index, times, *lines = block.split("\n")
            assert int(index) == number
            cues.append((*map(milliseconds, times.split(" --> ")), lines))
    return cues


def read_vtt(text):
    header, *blocks = text.removesuffix("\n\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in filter(None, blocks):
        times, *lines = block.split("\n")
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", "".join(lines))
        cues.append((*map(milliseconds, times.split(" --> ")), [html.unescape(line) for line in lines]))
    return cues


def read_tsv(text):
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["start", "end", "text"]
    return [(int(start), int(end), [line]) for start, end, line in rows[1:]]


@pytest.mark.parametrize(("name", "read"), [("srt", read_srt), ("vtt", read_vtt), ("tsv", read_tsv)])
@given(transcript=transcripts())
def test_formats_of_cues(name, read, transcript):
    found = read(FORMATS[name].render(transcript, "speech"))
    expected = cues(transcript)
    assert [(start, end) for start, end, _ in found] == [(cue.start, cue.end) for cue in expected]
    assert [lines for *_, lines in found] == [[cue.text] if name == "tsv" else cue.lines for cue in expected]


@given(transcripts())
def test_json(transcript):
    text = FORMATS["json"].render(transcript, "a b")
    assert text.count("\n") == 1 and text.endswith("\n")
    document = json.loads(text)
    assert document["recording"] == "a b"
    assert document["text"] == transcript.text
    assert [word["text"] for word in document["words"]] == [word.text for word in transcript.words]
    assert [token["id"] for token in document["tokens"]] == transcript.hypothesis.tokens.tolist()
    assert all(word["start"] <= word["end"] for word in document["words"])


@given(transcripts())
def test_ctm(transcript):
    lines = FORMATS["ctm"].render(transcript, "my speech").splitlines()
    assert len(lines) == len(transcript.words)
    for line, word in zip(lines, transcript.words, strict=True):
        name, channel, start, duration, text, confidence = line.split()
        assert (name, channel, text) == ("my_speech", "1", word.text)
        assert abs(float(start) - word.start) < 1e-3 and abs(float(duration) - (word.end - word.start)) < 1e-3
        assert 0 <= float(confidence) <= 1


@given(transcripts())
def test_txt(transcript):
    assert FORMATS["txt"].render(transcript, "speech") == transcript.text + "\n"


def test_txt_is_one_line():
    assert FORMATS["txt"].render(Transcript("a\nb\u2028c\r\nd"), "speech") == "a b c d\n"


def test_examples():
    words = [Word("hello", 0.08, 0.4, 0.98765), Word("<b>", 3661.5, 3662.0, 0.5)]
    transcript = Transcript("hello <b>", words, 3663.0)
    assert FORMATS["srt"].render(transcript, "x") == (
        "1\n00:00:00,080 --> 00:00:00,914\nhello\n\n2\n01:01:01,500 --> 01:01:02,334\n<b>\n\n"
    )
    assert FORMATS["vtt"].render(transcript, "x") == (
        "WEBVTT\n\n00:00:00.080 --> 00:00:00.914\nhello\n\n01:01:01.500 --> 01:01:02.334\n&lt;b&gt;\n\n"
    )
    assert FORMATS["tsv"].render(transcript, "x") == "start\tend\ttext\n80\t914\thello\n3661500\t3662334\t<b>\n"
    assert FORMATS["ctm"].render(transcript, "x") == "x 1 0.080 0.320 hello 0.9877\nx 1 3661.500 0.500 <b> 0.5000\n"


@pytest.mark.parametrize(("name", "expected"), [
    ("txt", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n"), ("ctm", ""),
    ("json", '{"recording": "x", "text": "", "duration": 0.0, "words": [], "tokens": []}\n'),
])
def test_nothing_was_said(name, expected):
    assert FORMATS[name].render(Transcript(""), "x") == expected


def test_text_without_words_is_one_cue():
    assert FORMATS["tsv"].render(Transcript("all of it", duration=2.5), "x") == "start\tend\ttext\n0\t2500\tall of it\n"


def test_white_space_and_bad_numbers():
    hypothesis = hypothesis_of(1)
    hypothesis.token_logprobs[0] = -np.inf
    transcript = Transcript("a b", [Word("a\tb\n", 0.0, 1.0, float("nan")), Word(" ", 1.0, 1.0, 1.0)], 1.0, hypothesis)
    assert FORMATS["ctm"].render(transcript, "x").startswith("x 1 0.000 1.000 a_b ")
    assert FORMATS["tsv"].render(transcript, "x").endswith("0\t1000\ta b\n")
    document = json.loads(FORMATS["json"].render(transcript, "x"))
    assert document["tokens"][0]["logprob"] is None and document["words"][0]["confidence"] is None


def text_of_cues(read):
    return lambda rendered: " ".join(" ".join(lines) for _, _, lines in read(rendered))


TEXT = {
    "txt": str,
    "json": lambda rendered: json.loads(rendered)["text"],
    "srt": text_of_cues(read_srt),
    "vtt": text_of_cues(read_vtt),
    "tsv": text_of_cues(read_tsv),
    "ctm": lambda rendered: " ".join(line.split()[4].replace("_", " ") for line in rendered.splitlines()),
}
"""Format -> function from what it renders to the text in it."""

SPLIT = {
    "txt": lambda stream: stream.splitlines(keepends=True),
    "json": lambda stream: stream.splitlines(keepends=True),
    "ctm": lambda stream: ["".join(lines) for _, lines in itertools.groupby(
        stream.splitlines(keepends=True), key=lambda line: line.split()[0])],
}
"""Format of which several recordings share a stream -> function from the stream to the part of each recording."""


def spoken(*texts):
    words = [Word(text, 0.5 * i, 0.5 * i + 0.4, 0.5) for i, text in enumerate(texts)]
    return Transcript(" ".join(texts), words, 0.5 * len(texts))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("transcript", "expected"), [
    (Transcript(""), ""),
    (Transcript("", duration=1.0, hypothesis=hypothesis_of(0)), ""),
    (spoken("one"), "one"),
    (spoken("one", "two", "x" * 40, "three"), f"one two {'x' * 40} three"),  # two lines of a subtitle
    (spoken("a\nb", "c\td", "<i>&amp;</i>", "-->", "1\n\n2"), "a b c d <i>&amp;</i> --> 1 2"),
], ids=["nothing", "silence", "a-word", "words", "markup"])
def test_every_format_keeps_the_text(name, transcript, expected):
    rendered = FORMATS[name].render(transcript, "a recording")
    assert rendered == "" or rendered.endswith("\n")
    assert TEXT[name](rendered).split() == expected.split()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_a_text_without_words(name):
    rendered = FORMATS[name].render(Transcript("all of it", duration=2.5), "a recording")
    assert TEXT[name](rendered).split() == ([] if name == "ctm" else ["all", "of", "it"])  # a CTM has words only


def test_recordings_share_a_stream_only_where_they_can_be_told_apart():
    assert set(SPLIT) == {name for name, format in FORMATS.items() if format.concatenable}


@pytest.mark.parametrize("name", SPLIT)
def test_a_stream_splits_again(name):
    format = FORMATS[name]
    parts = [format.render(spoken("a\nb", "c"), "first"), format.failed, format.render(spoken("d"), "second")]
    assert SPLIT[name]("".join(parts)) == [part for part in parts if part]


@pytest.mark.parametrize("name", FORMATS)
def test_alternatives_are_written_where_the_format_says_so(name):
    best = dataclasses.replace(spoken("one"), hypothesis=hypothesis_of(1))
    both = dataclasses.replace(best, alternatives=[spoken("won")])
    with_other, alone = (FORMATS[name].render(transcript, "a recording") for transcript in (both, best))
    assert (with_other != alone) == ("won" in with_other) == FORMATS[name].alternatives


def test_every_format_is_a_choice_on_the_command_line_and_documented(capsys):
    with pytest.raises(SystemExit):
        main(["transcribe", "--help"])
    assert f"--format {{{','.join(FORMATS)}}}" in capsys.readouterr().out
    row = re.compile(r"^\| `(\w+)` \| .+ \| (yes|no) \| (yes|no) \|$", re.MULTILINE)
    yes_or_no = {True: "yes", False: "no"}
    assert row.findall(PAGE.read_text(encoding="utf-8")) == [
        (name, yes_or_no[format.concatenable], yes_or_no[format.alternatives]) for name, format in FORMATS.items()
    ]
