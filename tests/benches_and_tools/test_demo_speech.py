"""The demo models' corpora: every synthesiser speaks, tests keep their sentences and voices, corpora are joined."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soxr", reason="soxr is not installed")

FOLDER = Path(__file__).parents[2] / "tools" / "demo_model"
PROGRAMS = {"espeak-ng": "espeak-ng", "flite": "flite", "festival": "festival"}


@pytest.fixture(scope="module")
def speech():
    sys.path.insert(0, str(FOLDER))
    try:
        import speech
    finally:
        sys.path.remove(str(FOLDER))
    return speech


def needs(synthesiser: str) -> None:
    if shutil.which(PROGRAMS[synthesiser]) is None:
        pytest.skip(f"{synthesiser} is not installed")


@pytest.mark.parametrize("synthesiser", PROGRAMS)
def test_speech_is_made_anew_and_cut_tight(speech, synthesiser):
    needs(synthesiser)
    for seed in range(3):
        entry, samples = speech.utterance("known", synthesiser, 0.0, None, seed)
        again, same = speech.utterance("known", synthesiser, 0.0, None, seed)
        assert entry == again and entry["length"] == len(samples)
        np.testing.assert_array_equal(samples, same)
        loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 30)
        assert loud[0] < 0.3 * speech.RATE and len(samples) - loud[-1] < 0.4 * speech.RATE
        words = len(entry["text"].split())
        assert 0.1 < len(samples) / speech.RATE / words < 1.2
        assert 20 * np.log10(np.sqrt(np.square(samples / 32768).mean())) == pytest.approx(-23, abs=3)


def test_synthesisers_say_different_sentences(speech):
    needs("espeak-ng")
    needs("flite")
    texts = [[speech.utterance("known", name, 0.0, None, seed)[0]["text"] for seed in range(4)]
             for name in ("espeak-ng", "flite")]  # fmt: skip
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("setting", "longer"), [({"speed": 110}, True), ({"speed": 210}, False), ({"warp": 0.9}, True)]
)
@pytest.mark.parametrize("synthesiser", PROGRAMS)
def test_manners_of_speaking(speech, synthesiser, setting, longer):
    needs(synthesiser)
    say = getattr(speech.synthesisers, synthesiser.partition("-")[0])
    voice = {"espeak-ng": "en-us+m1"}.get(synthesiser, speech.KNOWN_VOICES[synthesiser][0])
    usual = say("set a timer for seven o'clock", voice)
    assert (len(say("set a timer for seven o'clock", voice, **setting)) > len(usual)) is longer


def test_voices_of_tests_are_in_no_training(speech):
    for synthesiser, voices in speech.UNSEEN_VOICES.items():
        assert voices and not set(voices) & set(speech.KNOWN_VOICES[synthesiser])
    assert {name for name, voices in speech.KNOWN_VOICES.items() if voices} == set(PROGRAMS)


def test_festival_goes_on_after_an_error(speech):
    needs("festival")
    with pytest.raises(RuntimeError, match="festival, voice nobody, cannot say: hello"):
        speech.synthesisers.festival("hello", "nobody")
    assert len(speech.synthesisers.festival("hello", "kal_diphone")) > speech.RATE / 10


def test_corpora_are_read_as_one(speech, tmp_path):
    needs("flite")
    for name, seed in (("a", 0), ("b", 100)):
        speech.make_corpus(tmp_path / name, "known", 2, 1, seed, 0.0, "flite")
    both = speech.Corpus(tmp_path / "a", tmp_path / "b")
    alone = [speech.Corpus(tmp_path / name) for name in "ab"]
    assert len(both) == 4
    for i in range(4):
        np.testing.assert_array_equal(both.samples(i), alone[i // 2].samples(i % 2))
        assert both.entries[i]["text"] == alone[i // 2].entries[i % 2]["text"]
