"""`recognize_each`: any iterable, in order; errors in their places; what the iterable raises passes through."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tests.speech.test_recognizer import check_same, noise  # noqa: E402

SIZES = dict(vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32, mel_bins=80)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tdt.load_model(make_bundle(tmp_path_factory.mktemp("bundle"), "split", **SIZES))


LENGTHS = (30_000, 1_000, 64_321, 16_000, 0, 48_000, 159, 30_000)


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda recordings: (one for one in recordings)])
def test_any_iterable_in_order(model, kind):
    recordings = [noise(n, seed) for seed, n in enumerate(LENGTHS)]
    found = list(model.recognize_each(kind(recordings), batch_size=2))
    assert len(found) == len(recordings)
    for ours, recording in zip(found, recordings):
        check_same(ours, model.recognize(recording))
    assert list(model.recognize_each([])) == []


def test_a_generator_that_never_ends(model):
    asked = []

    def endless():
        for i in itertools.count():
            asked.append(i)
            yield noise(16_000 + i)

    found = list(itertools.islice(model.recognize_each(endless()), 3))
    assert [out.duration for out in found] == [1, 16_001 / 16_000, 16_002 / 16_000]
    assert len(asked) < 2_000


def test_errors_in_their_places(model):
    good = noise(20_000)
    first, second, third = model.recognize_each(iter([good, "missing.wav", good]), on_error="return")
    assert isinstance(second, tdt.InputError)
    check_same(first, third)
    each = model.recognize_each(iter([good, "missing.wav", good]))
    check_same(next(each), first)
    with pytest.raises(tdt.InputError, match="missing.wav"):
        next(each)
    assert list(each) == []


def test_what_the_iterable_raises_passes_through(model):
    def broken():
        yield noise(20_000)
        raise LookupError("the list ends here")

    with pytest.raises(LookupError, match="the list ends here"):
        list(model.recognize_each(broken(), on_error="return"))


@pytest.mark.parametrize("one", ["a.wav", b"RIFF", noise(1_000), np.zeros(1_000, np.float32), {"a.wav": 1}, 5, None])
def test_one_recording_is_refused_at_once(model, one):
    with pytest.raises(tdt.InputError, match=r"recordings must be several recordings.*\[recording\]"):
        model.recognize_each(one)


def test_options_are_checked_at_once(model):
    for options in ({"batch_size": 0}, {"on_error": "stop"}, {"progress": 1}, {"search": "greedy"}):
        with pytest.raises(tdt.InputError, match=next(iter(options))):
            model.recognize_each([], **options)


def test_phrases_by_recording(model):
    recordings = [noise(size, seed) for seed, size in enumerate((40_000, 100, 90_000, 20_000, 60_000))]
    pieces = model.bundle.vocabulary.pieces
    lists = [[[3]], [], [[5], [8]], [[3]], []]
    search = tdt.Beam(fusion=[tdt.PhraseBoost.per_row(lists, 6.0)])
    expected = model.recognize(recordings, search)
    assert any(out.hypothesis.tokens.size for out in expected) and len(pieces) == 65
    for given in (recordings, iter(recordings)):
        for ours, theirs in zip(model.recognize_each(given, search, batch_size=1), expected, strict=True):
            check_same(ours, theirs)
    with pytest.raises(tdt.InputError, match="phrases or tokens are given for 5 utterances, but there are 4"):
        model.recognize_each(recordings[:4], search)
    for count in (4, 6):
        with pytest.raises(tdt.InputError, match=f"are given for 5 utterances, but there are {count}"):
            list(model.recognize_each(iter((recordings * 2)[:count]), search, batch_size=1))
