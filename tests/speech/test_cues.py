"""Subtitles: cues that people can read, of any transcript, whatever the options."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle import Vocabulary
from tdtdecode.cli import main
from tdtdecode.hypothesis import Hypothesis, Transcript, Word
from tdtdecode.segmentation import columns, has_wide_letters
from tdtdecode.speech.formats import FORMATS, CueOptions
from tdtdecode.speech.formats.cues import cues
from tests import demo

pytest.importorskip("icu4py", reason="icu4py is not installed")


def spoken(*words, pause=0.05):
    """Words of a tenth of a second for each character; a number among them is a pause."""
    found, time = [], 0.0
    for word in words:
        if isinstance(word, str):
            found.append(Word(word, time, time + 0.1 * len(word), 1.0))
            time = found[-1].end + pause
        else:
            time += word - pause
    return Transcript(" ".join(word.text for word in found), found, time)


def lines(transcript, **options):
    return [cue.lines for cue in cues(transcript, CueOptions(**options))]


def written(text, more=(), frames=2):
    """The transcript of text whose characters are tokens, 0.16 s each."""
    pieces = ["▁", *dict.fromkeys(text), *more]
    tokens = np.array([pieces.index(char) for char in text], np.int32)
    count = len(tokens)
    hypothesis = Hypothesis(tokens, np.arange(count, dtype=np.int32) * frames, np.full(count, frames, np.int32),
                            np.zeros(count, np.float32), np.full(count, -1.0, np.float32), 0.0)  # fmt: skip
    vocabulary = Vocabulary((*pieces, "<blk>"), len(pieces))
    words = vocabulary.words(hypothesis, 0.08)
    return Transcript(vocabulary.detokenize(tokens), words, count * frames * 0.08, hypothesis)


# What always holds


def check(transcript, options):
    """All that is promised of the cues of a transcript."""
    found = cues(transcript, options)
    together = "".join("".join(word.text.split()) for word in transcript.words)
    assert "".join("".join("".join(cue.lines).split()) for cue in found) == together
    assert "".join("".join(cue.text.split()) for cue in found) == together
    longest, least, gap = (1000 * seconds for seconds in (
        options.max_cue_seconds, options.min_cue_seconds, options.min_gap_seconds))  # fmt: skip
    for cue in found:
        assert 0 <= cue.start < cue.end <= cue.start + longest
        assert 1 <= len(cue.lines) <= options.max_lines
        for line in cue.lines:
            assert line and line == line.strip()
            wide = has_wide_letters(line)
            assert columns(line) <= options.line_columns(wide) <= options.max_line_length or len(line) == 1
            assert not wide or columns(line) <= 2 * options.max_wide_line_length
    for cue, following in pairwise(found):
        room = following.start - cue.start
        assert cue.end <= following.start
        assert following.start - cue.end >= min(gap, room // 2)
        needed = min(max(least, 1000 * columns(cue.text) / options.reading_speed), longest)
        assert cue.end - cue.start >= min(needed, int(room - gap), room // 2 if room < 2 * gap else room)
    if found:
        last = found[-1]
        assert last.end - last.start >= min(least, longest)


def test_cues_of_any_words():
    from hypothesis import given
    from hypothesis import strategies as st

    text = st.one_of(
        st.text("abcdefg'é&<>-;.,?!", min_size=1, max_size=60),
        st.text("漢字あー。「ｱﾞผมเ안😀", min_size=1, max_size=60),
        st.text(min_size=1, max_size=12),
    )  # fmt: skip
    word = st.tuples(
        text, st.sampled_from([0.0, 0.0, 0.08, 0.4, 0.9, 1.2, 3600.0]), st.sampled_from([0.0, 0.08, 0.32, 9.0]),
        st.booleans(),
    )  # fmt: skip
    seconds = st.sampled_from([0.0, 0.1, 0.833, 2.0])
    options = st.builds(
        CueOptions, max_line_length=st.sampled_from([2, 5, 20, 42, 100]),
        max_wide_line_length=st.sampled_from([1, 3, 16]),
        max_lines=st.integers(1, 3), min_cue_seconds=seconds, max_cue_seconds=st.sampled_from([2.0, 7.0]),
        min_gap_seconds=seconds, pause_seconds=st.sampled_from([0.3, 1.0, 5.0]), reading_speed=st.sampled_from([5, 20]),
    )  # fmt: skip

    @given(st.lists(word, max_size=25), st.one_of(st.just(CueOptions()), options))
    def any_words(drawn, options):
        words, time = [], 0.0
        for text, pause, length, space in drawn:
            time += pause
            words.append(Word(text, time, time + length, 1.0, space))
            time += length
        check(Transcript(" ".join(text for text, *_ in drawn), words, time), options)

    any_words()


@pytest.mark.parametrize("word", [
    Word("one", 5.0, 4.0, 1.0), Word("one", math.nan, math.inf, 1.0), Word("one", -3.0, -1.0, 1.0),
    Word("two", 0.0, 0.0, 1.0),
])  # fmt: skip
def test_times_that_are_out_of_order(word):
    transcript = Transcript("", [Word("zero", 2.0, 3.0, 1.0), word, Word("last", 1.0, 9.0, 1.0)], 9.0)
    check(transcript, CueOptions())


# Where cues are broken


def test_a_cue_that_fits_stays_whole():
    assert lines(spoken("one", "two", 0.4, "three")) == [["one two three"]]


def test_a_new_cue_begins_after_a_pause():
    assert lines(spoken("one", "two", 1.1, "three")) == [["one two"], ["three"]]
    assert lines(spoken("one", "two", 1.1, "three"), pause_seconds=2.0) == [["one two three"]]


def test_sentences_come_before_pauses():
    words = ["we", "went", "home", "in", "the", "dark.", "Then", "it", "was", 0.7, "late", "and", "cold",
             "when", "the", "old", "man", "came", "to", "see", "us", "in", "town"]  # fmt: skip
    for spelling in str, str.lower:
        found = cues(spoken(*(word if isinstance(word, float) else spelling(word) for word in words)))
        assert [cue.text.lower() for cue in found] == [
            "we went home in the dark.",
            "then it was late and cold when the old man came to see us in town",
        ]


def test_a_sentence_that_does_not_fit_begins_a_cue_of_its_own():
    long = "then we went on to the first part of it all which is about the length of lines and the time on screens"
    found = [cue.text for cue in cues(spoken("Nobody", "asked.", *long.capitalize().split()))]
    assert found[0] == "Nobody asked." and len(found) == 3
    # Not where it could not be read.
    assert not cues(spoken("So.", *long.capitalize().split()))[0].text.endswith(".")


def test_pauses_come_before_length():
    words = ["what", "is", "the", "weather", "like", "in", "new", "york", "tomorrow", 0.7,
             "add", "chocolate", "to", "the", "shopping", "list", "and", "bread"]  # fmt: skip
    assert [cue.text for cue in cues(spoken(*words))] == [
        "what is the weather like in new york tomorrow", "add chocolate to the shopping list and bread"]  # fmt: skip


def test_what_has_no_pauses_is_broken_evenly():
    widths = [columns(cue.text) for cue in cues(spoken(*["word"] * 30))]
    assert len(widths) == 2 and max(widths) - min(widths) <= 10


@pytest.mark.parametrize("text", ["Ask Dr. Smith about it", "Mr. J. Smith has 3.5 of them", "e.g. this one"])
def test_a_full_stop_within_a_sentence_ends_none(text):
    filling = ["so"] * 20
    found = [cue.text for cue in cues(spoken(*filling, *text.split(), *filling))]
    assert len(found) > 1 and not any(cue.endswith(("Dr.", "Mr.", "J.", "e.g.")) for cue in found)


def test_sentences_end_in_every_script():
    for mark in "?", "!", "。", "？", "।", "؟":
        words = ["aaaaa"] * 5 + ["aaaaa" + mark] + ["Aaaaa"] * 11
        assert cues(spoken(*words))[0].text.endswith(mark)


def test_lines_are_balanced():
    assert lines(spoken("what", "is", "the", "weather", "like", "in", "new", "york", "tomorrow")) == [
        ["what is the weather like", "in new york tomorrow"]]  # fmt: skip
    assert lines(spoken("a" * 30, "b" * 30, "c")) == [["a" * 30, "b" * 30 + " c"]]
    assert lines(spoken("if", "you", "can", "hear", "me,", "then", "come", "to", "the", "other", "side")) == [
        ["if you can hear me,", "then come to the other side"]]  # fmt: skip


# How long they stay


def test_a_short_cue_stays_where_there_is_room():
    (cue,) = cues(Transcript("Yes.", [Word("Yes.", 1.0, 1.08, 1.0)], 5.0))
    assert (cue.start, cue.end) == (1000, 1834)
    one, _ = cues(Transcript("Yes. So", [Word("Yes.", 1.0, 1.08, 1.0), Word("So", 2.5, 2.8, 1.0)], 5.0))
    assert (one.start, one.end) == (1000, 1834)


def test_a_short_cue_without_room_joins_its_neighbour():
    words = [Word("Yes.", 1.0, 1.08, 1.0), *(Word(f"word{i}", 1.1 + 0.3 * i, 1.4 + 0.3 * i, 1.0) for i in range(8))]
    assert cues(Transcript("", words, 5.0))[0].text.startswith("Yes. word0")


def test_fast_speech_stays_for_reading():
    words = [Word("abcde", 0.05 * i, 0.05 * i + 0.05, 1.0) for i in range(14)]
    (cue,) = cues(Transcript("", words, 9.0))
    assert cue.end == math.ceil(1000 * columns(cue.text) / 20)
    assert cues(Transcript("", words, 9.0), CueOptions(reading_speed=10.0))[0].end == 7000  # never longer


def test_gaps_are_two_frames_or_half_a_second():
    def gap(pause):
        first, second = cues(spoken("a" * 30, pause, "b" * 30), CueOptions(pause_seconds=0.01))
        return second.start - first.end

    assert [gap(pause) for pause in (0.02, 0.3, 0.6)] == [84, 84, 600]


# Scripts, and words that are too long


JAPANESE = (
    "本日はお集まりいただき、ありがとうございます。"
    "これから新しい製品のiPhoneについて説明します。"
)  # fmt: skip


def test_a_recording_in_japanese():
    transcript = written(JAPANESE * 20)
    assert transcript.duration > 100 and len(transcript.words) > 500
    check(transcript, CueOptions())
    found = cues(transcript)
    assert found[0].lines == [
        "本日はお集まりいただき、", "ありがとうございます。"]  # fmt: skip
    assert all(cue.text.endswith("。") and " " not in cue.text for cue in found)
    tsv = FORMATS["tsv"].render(transcript, "x").splitlines()
    assert tsv[1].split("\t")[2] == found[0].text


@pytest.mark.parametrize("word", [
    "https://www.example.org/a/very/long/path/that-goes-on-and-on/until?it=ends&then=some",
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
    "ha" * 500, "ー" * 300, "ﾊﾞ" * 200, "e\u0301" * 150, "👩\u200d👩\u200d👧" * 30,
    "ก์" * 200, "ខ្ញ" * 100, "안" * 100, "x" + "\u0301" * 200,
])  # fmt: skip
def test_words_longer_than_a_line(word):
    for seconds in 0.5, 100.0:
        transcript = Transcript(word, [Word("so", 0.0, 0.5, 1.0), Word(word, 0.5, 0.5 + seconds, 1.0)], 100.5)
        check(transcript, CueOptions())
    check(written(word), CueOptions())


def test_long_words_are_cut_where_a_line_may_be_broken():
    url = "https://www.example.org/a/very/long/path/that-goes-on/"
    assert lines(Transcript(url, [Word(url, 0.0, 3.0, 1.0)], 3.0)) == [
        ["https://www.example.org/a/very/long/path/", "that-goes-on/"]]  # fmt: skip


def test_a_text_without_words_shares_its_time():
    text = " ".join(["word"] * 60)
    found = cues(Transcript(text, duration=30.0))
    assert len(found) >= 5 and found[-1].start > 20_000 and " ".join(cue.text for cue in found) == text


# Options


@pytest.mark.parametrize(("options", "message"), [
    ({"max_line_length": 1}, "max_line_length must be at least 2, got 1"),
    ({"max_lines": 0}, "max_lines must be at least 1, got 0"),
    ({"max_lines": 1.5}, "max_lines must be"),
    ({"max_cue_seconds": math.inf}, "max_cue_seconds must be a number of at least 0.001, got inf"),
    ({"min_gap_seconds": -0.1}, "min_gap_seconds must be a number of at least 0.0, got -0.1"),
    ({"reading_speed": "fast"}, "reading_speed must be a number of at least 0.001, got 'fast'"),
    ({"min_cue_seconds": 8}, "min_cue_seconds is 8, which is more than max_cue_seconds, 7"),
])  # fmt: skip
def test_options_are_checked(options, message):
    with pytest.raises(tdt.InputError, match=message):
        CueOptions(**options)


def test_the_command_line_has_the_same_options(capsys):
    recording = str(demo.DIRECTORY / "speech.flac")
    main(["transcribe", recording, "--format", "srt"])
    plain = capsys.readouterr().out
    assert plain == FORMATS["srt"].render(tdt.load_model("demo").recognize(recording), recording)
    main(["transcribe", recording, "--format", "srt", "--max-line-length", "20", "--max-lines", "1",
          "--min-cue-seconds", "1", "--max-cue-seconds", "3", "--min-gap-seconds", "0.2", "--pause-seconds", "0.5",
          "--reading-speed", "10", "--max-wide-line-length", "8"])  # fmt: skip
    options = CueOptions(20, 8, 1, 1.0, 3.0, 0.2, 0.5, 10.0)
    expected = FORMATS["srt"].render(tdt.load_model("demo").recognize(recording), recording, options)
    assert capsys.readouterr().out == expected != plain
    with pytest.raises(SystemExit):
        main(["transcribe", "--help"])
    assert "(default: 0.833)" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "message"), [
    (["--format", "json", "--max-lines", "1"], "--max-lines: only subtitles have that, --format srt or vtt or tsv"),
    (["--format", "vtt", "--max-line-length", "1"], "max_line_length must be at least 2, got 1"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(given, message, capsys):
    assert main(["transcribe", str(demo.DIRECTORY / "speech.flac"), *given]) == 2
    assert message in capsys.readouterr().err


def test_the_demo_recording():
    transcript = tdt.load_model("demo").recognize(demo.DIRECTORY / "speech.flac")
    assert lines(transcript) == [
        ["set an alarm for seven o'clock on friday"],
        ["what is the weather like", "in new york tomorrow"],
        ["add chocolate to the shopping list"],
    ]
    words = json.loads(FORMATS["json"].render(transcript, "x"))["words"]
    assert all(word["end"] <= following["start"] for word, following in pairwise(words))
