"""Long recordings in windows: every frame decoded once, no word lost or doubled at a seam."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest

import tdtdecode as tdt
from benches.windows import long_recordings
from tdtdecode.bundle import FeatureSettings, read_bundle
from tdtdecode.evaluation import edit_distance
from tdtdecode.hypothesis import Hypothesis, joined
from tdtdecode.speech.audio import FeatureExtractor
from tdtdecode.speech.windows import Window, Windows, decode_in_windows
from tests import demo
from tests.bundle.helpers import edit, small_bundle
from tests.cuda.helpers import PROVIDER_CARDS, on
from tests.speech.test_recognizer import check_same, noise

RATE = 16_000


# The plan


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 80, 81, 400, 1001])
@pytest.mark.parametrize(
    "windows", [Windows(0, 1, 0), Windows(0, 10, 0), Windows(2, 6, 2), Windows(5, 3, 5), Windows(9, 200, 9)]
)
def test_every_frame_is_decoded_once(windows, frames):
    factor, decoded = 8, []
    for window in windows.over(frames, factor):
        assert 0 <= window.start < window.stop <= frames and window.start % factor == 0
        assert window.stop - window.start <= (windows.left + windows.chunk + windows.right) * factor
        count = -(-(window.stop - window.start) // factor)
        last = count if window.last is None else window.last
        assert last <= count
        decoded += range(window.start // factor + window.first, window.start // factor + last)
    assert decoded == list(range(-(-frames // factor)))
    assert window.last is None


def test_context_on_both_sides():
    assert list(Windows(2, 6, 2).over(160, 8)) == [
        Window(0, 64, 0, 6), Window(32, 112, 2, 8), Window(80, 160, 2, 8), Window(128, 160, 2, None),
    ]  # fmt: skip


def test_as_long_as_the_encoder_takes():
    def size(**settings):
        windows = Windows.of(FeatureSettings(**settings))
        return windows.left + windows.chunk + windows.right

    assert size() == size(max_frames=5000) == 1500  # two minutes
    assert size(max_frames=400) == 400
    assert size(fixed_input_frames=803) == 100
    assert Windows.of(FeatureSettings(max_frames=5000)) == Windows(125, 1250, 125)
    assert Windows.of(FeatureSettings(max_frames=400)) == Windows(50, 300, 50)
    assert Windows.of(FeatureSettings(fixed_input_frames=400)) == Windows(12, 26, 12)
    assert Windows.of(FeatureSettings(fixed_input_frames=8)) == Windows(0, 1, 0)


# The same as the whole, where the encoder looks at no neighbours


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A model whose encoder's frames depend on nothing else, for any length; and one for 4 s at a time."""
    root = tmp_path_factory.mktemp("local")
    directory = small_bundle(root / "any", "split", mel_bins=80, vocab_size=64, tokens_per_second=3.3)
    shutil.copytree(directory, root / "fixed")

    def fix(model):
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[0].dim_value, dims[2].dim_value = 1, 400

    edit(root / "fixed" / "encoder.onnx", fix)
    return root


SEARCHES = {
    "greedy": tdt.Greedy(),
    "confidence": tdt.Greedy(confidence=tdt.Confidence()),
    "beam": tdt.Beam(size=4, nbest=4),
    "boosted": tdt.Beam(size=4, nbest=4, fusion=[tdt.PhraseBoost(["a c"], weight=1.0)]),
}


@pytest.mark.parametrize("network", ["fused", "ort"])
@pytest.mark.parametrize("search", SEARCHES)
def test_windows_find_what_the_whole_has(local, search, network):
    whole = tdt.load_model(local / "any", network=network, search=SEARCHES[search])
    windowed = tdt.load_model(local / "fixed", network=network, search=SEARCHES[search])
    assert whole.max_seconds is None and windowed.max_seconds == 4.0
    recordings = [noise(n) for n in (300_000, 64_001, 64_160, 63_000, 0, 130_000)]
    found, expected = windowed.recognize(recordings), whole.recognize(recordings)
    assert sum(len(out.hypothesis) for out in expected) > 20
    for ours, theirs in zip(found, expected, strict=True):
        check_same(ours, theirs)
        np.testing.assert_allclose(ours.hypothesis.score, theirs.hypothesis.score, rtol=1e-5, atol=1e-4)
        assert len(ours.alternatives) == len(theirs.alternatives)
        for one, other in zip(ours.alternatives, theirs.alternatives):
            check_same(one, other)
        if theirs.hypothesis.token_confidence is not None:
            np.testing.assert_allclose(ours.hypothesis.token_confidence, theirs.hypothesis.token_confidence, atol=1e-5)


@pytest.mark.parametrize("card", PROVIDER_CARDS)
def test_windows_on_a_gpu(local, card):
    """Their centres are sliced where they lie."""
    with on(card):
        windowed = tdt.load_model(local / "fixed", device="cuda", network="fused")
        found = windowed.recognize([noise(130_000), noise(20_000)])
    expected = tdt.load_model(local / "any").recognize([noise(130_000), noise(20_000)])
    for ours, theirs in zip(found, expected, strict=True):
        check_same(ours, theirs)


def test_the_time_axis_is_not_the_mel_axis(local):
    assert read_bundle(local / "fixed").features.fixed_input_frames == 400
    assert read_bundle(local / "any").features.fixed_input_frames is None


def test_a_batch_of_more_than_one_that_is_fixed(local, tmp_path):
    shutil.copytree(local / "any", tmp_path / "four")

    def fix(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    edit(tmp_path / "four" / "encoder.onnx", fix)
    with pytest.raises(tdt.BundleError, match="the batch size is fixed at 4"):
        tdt.load_model(tmp_path / "four")


def test_phrases_by_recording(local):
    """What is given by row goes with its recording into the windows."""
    phrases = [[], ["a c", "e g"], ["c"]]
    search = tdt.Beam(size=4, fusion=[tdt.PhraseBoost.per_row(phrases, weight=3.0)])
    recordings = [noise(100_000), noise(110_000), noise(20_000)]
    found = tdt.load_model(local / "fixed", search=search).recognize(recordings)
    for ours, theirs in zip(found, tdt.load_model(local / "any", search=search).recognize(recordings), strict=True):
        check_same(ours, theirs)


def test_parts_are_joined_with_their_alternatives():
    def part(tokens, score, alternatives=()):
        values = np.asarray(tokens, np.int32)
        return Hypothesis(values, values, values, values * 0.5, values * 0.25, score, None, tuple(alternatives))

    whole = joined([part([1, 2], -1.0), part([], -1.0), part([3], -5.0, [part([4, 5], -6.0)])])
    assert whole.tokens.tolist() == [1, 2, 3] and whole.score == -5.0
    (other,) = whole.alternatives
    assert other.tokens.tolist() == [1, 2, 4, 5] and other.score == -6.0
    assert other.token_logprobs.tolist() == [0.5, 1.0, 2.0, 2.5]


# Speech across seams


def spoken(count: int, lead: float) -> tuple[np.ndarray, str]:
    """Some of the tests' recordings, one after the other, after a silence that moves the seams."""
    rng = np.random.default_rng(1)
    chosen = list(demo.recordings().values())[:count]
    silence = [(1e-3 * rng.standard_normal(int(lead * RATE))).astype(np.float32)]
    return np.concatenate([*silence, *(samples for samples, _ in chosen)]), " ".join(text for _, text in chosen)


@pytest.mark.parametrize("lead", [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7])
def test_no_word_is_lost_or_doubled_at_a_seam(lead):
    """Recordings that the encoder still takes whole, in short windows: the seams fall into words as they come."""
    model = tdt.load_model("demo")
    samples, _ = spoken(11, lead)
    assert 25 < len(samples) / RATE < model.max_seconds
    expected = model.recognize((samples, RATE))
    features, (length,) = FeatureExtractor(80)([samples])
    windows = Windows(25, 75, 25)  # 6 s, and 2 s on either side
    found = decode_in_windows(features[0, :, :length], model.encoder, model.decoder, tdt.Greedy(), windows, 8, 3)
    said = model.bundle.vocabulary.detokenize(found.tokens)
    assert said.split() == expected.text.split()
    seams = [i * windows.chunk for i in range(1, length // 8 // windows.chunk + 1)]
    inside = [w for w in expected.words for s in seams if w.start < s * 0.08 < w.end]
    assert seams and (inside or lead not in (0.0, 0.3))  # speech does lie across some
    shift = np.abs(found.frames - expected.hypothesis.frames) if len(found) == len(expected.hypothesis) else None
    assert shift is None or shift.max() <= 2


def test_three_minutes_are_recognised(tmp_path):
    """Far beyond the position table: as many word errors as one by one, and words where they are said."""
    model = tdt.load_model("demo")
    sentences = list(demo.recordings().values()) * 5
    alone = sum(edit_distance(t.split(), model.recognize((s, RATE)).text.split()) for s, t in sentences)
    ((samples, text),) = long_recordings(sentences, 1000.0)
    assert len(samples) / RATE > 5 * model.max_seconds
    out = model.recognize((samples, RATE))
    assert edit_distance(text.split(), out.text.split()) <= alone + 3
    starts = [word.start for word in out.words]
    assert starts == sorted(starts) and out.duration - 2 < out.words[-1].end <= out.duration


def test_a_batch_of_short_and_long(tmp_path):
    model = tdt.load_model("demo")
    short = [(samples, RATE) for samples, _ in list(demo.recordings().values())[:3]]
    long = (np.concatenate([samples for samples, _ in demo.recordings().values()]), RATE)
    together = model.recognize([short[0], long, short[1], short[2]])
    for out, recording in zip(together, [short[0], long, short[1], short[2]], strict=True):
        check_same(out, model.recognize(recording))


@pytest.fixture
def fixed_demo(tmp_path):
    """The demo model with an encoder for 16 s at a time, as exports for phones have it."""
    shutil.copytree(demo.DIRECTORY, tmp_path / "fixed")
    model = onnx.load(tmp_path / "fixed" / "encoder-model.onnx")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value, dims[2].dim_value = 1, 1600
    onnx.save(model, tmp_path / "fixed" / "encoder-model.onnx")
    return tmp_path / "fixed"


def test_a_fixed_encoder_of_the_demo(fixed_demo):
    """Padding to the fixed length changes nothing; what is longer goes in windows."""
    fixed, model = tdt.load_model(fixed_demo), tdt.load_model("demo")
    recordings = [(samples, RATE) for samples, _ in demo.recordings().values()]
    for ours, theirs in zip(fixed.recognize(recordings), model.recognize(recordings), strict=True):
        assert ours.text == theirs.text
    recording, _ = spoken(11, 0.0)
    assert fixed.recognize((recording, RATE)).text == model.recognize((recording, RATE)).text
