"""Live streams: NeMo's own results step by step, in any cutting and company; words that never change; errors."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import tdtdecode as tdt  # noqa: E402
from tdtdecode import Beam, Greedy, InputError, load_model  # noqa: E402
from tdtdecode.speech.audio import FeatureExtractor  # noqa: E402
from tdtdecode.speech.audio.features import FeatureStream  # noqa: E402
from tdtdecode.speech.streaming import Latency  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden_streaming"
MODELS = ["rnnt-70-6", "rnnt-8-1", "tdt-4-0", "prompt-70-13"]
RECORDINGS = Path(__file__).parents[1] / "recordings"


@dataclass(frozen=True)
class Case:
    """One utterance of one model, in one language, and what NeMo found."""

    model: str
    language: str | None
    features: np.ndarray
    tokens: list[int]
    frames: list[int]

    def __str__(self) -> str:
        return "-".join(filter(None, (self.model, self.language, str(self.features.shape[1]))))


@cache
def cases(name: str) -> list[Case]:
    nemo = json.loads((GOLDEN / name / "nemo.json").read_text())
    with np.load(GOLDEN / name / "features.npz") as file:
        features = [file[f"features_{i}"] for i in range(len(nemo["lengths"]))]
    found = []
    for language, results in (nemo["results"] if nemo["prompts"] else {None: nemo["results"]}).items():
        shift = int(nemo["encoder_metadata"]["chunk_shift"])
        for i, one in enumerate(features):
            # NeMo leaves out a last chunk of fewer than 8 features, but runs it beside a longer row of a batch.
            left_out = 0 < one.shape[1] % shift < 8
            if not left_out or one.shape[1] < max(nemo["lengths"]):
                row = results["padded_batch" if left_out else "padded"][i]
                found.append(Case(name, language, one, row["tokens"], row["frames"]))
    return found


@cache
def model(name: str, layout: str = "split") -> tdt.speech.recognizer.Recognizer:
    return load_model(GOLDEN / name, layout=layout)


def whole(case: Case, **options):
    stream = model(case.model).stream(language=case.language, **options)
    stream.feed_features(case.features)
    return stream.finish()


def assert_same(found, expected) -> None:
    for name in ("tokens", "frames", "durations", "token_logprobs", "duration_logprobs"):
        np.testing.assert_array_equal(getattr(found.hypothesis, name), getattr(expected.hypothesis, name))
    assert (found.text, found.words, found.duration) == (expected.text, expected.words, expected.duration)


@pytest.mark.parametrize("case", [case for name in MODELS for case in cases(name)], ids=str)
def test_nemos_tokens_in_any_cutting(case):
    expected = whole(case)
    assert expected.hypothesis.tokens.tolist() == case.tokens
    assert expected.hypothesis.frames.tolist() == case.frames
    rng = np.random.default_rng(case.features.shape[1])
    for longest in (1, 7, 200):
        stream = model(case.model).stream(language=case.language)
        settled, start = [], 0
        while start < case.features.shape[1]:
            size = int(rng.integers(0, longest + 1))
            settled += stream.feed_features(case.features[:, start : start + size]).words
            start += size
        found = stream.finish()
        assert_same(found, expected)
        assert settled == found.words[: len(settled)]


def test_all_utterances_were_compared():
    assert {name: len(cases(name)) for name in MODELS} == {
        "rnnt-70-6": 5, "rnnt-8-1": 5, "tdt-4-0": 4, "prompt-70-13": 8,
    }  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_recognize_gives_what_the_stream_gives(name):
    for case in cases(name):
        if case.language is None:
            encoder_out, counts = model(name).encoder(case.features[None], np.array([case.features.shape[1]]))
            (found,) = model(name).decoder.decode(encoder_out, counts)
            assert (found.tokens.tolist(), found.frames.tolist()) == (case.tokens, case.frames)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("search", [Greedy(), Beam(size=4), Beam(size=3, strategy="tsd")], ids=str)
def test_streams_do_not_depend_on_each_other(name, search):
    """Streams come, are fed in any order, and go; each gives what it gives alone, to the bit."""
    rng = np.random.default_rng(0)
    alone = [whole(case, search=search) for case in cases(name)]
    pool = model(name).streams(search=search)
    left, found = {}, {}
    waiting = [(i, copy) for i in range(len(alone)) for copy in range(2)]
    while waiting or left:
        for key in [key for key in waiting if rng.random() < 0.3]:
            pool.open(key, language=cases(name)[key[0]].language)
            left[key] = cases(name)[key[0]].features
            waiting.remove(key)
        pieces = {}
        for key in [key for key in left if rng.random() < 0.7]:
            size = int(rng.integers(0, 90))
            pieces[key], left[key] = left[key][:, :size], left[key][:, size:]
        assert list(pool.feed_features(pieces)) == list(pieces)
        ended = [key for key in left if not left[key].shape[1]]
        found |= pool.finish(ended)
        for key in ended:
            del left[key]
    assert len(found) == 2 * len(alone) and not len(pool)
    for (i, _), one in found.items():
        if search == Beam(size=4):  # malsd depends on chunks, but not on neighbours: the windows are the same
            assert one.text == alone[i].text
        assert_same(one, alone[i])


@pytest.mark.parametrize(("family", "mel_bins"), [("nemo", 80), ("nemo", 128), ("gigaam", 64), ("gigaam-v2", 64)])
@pytest.mark.parametrize("count", [0, 1, 159, 160, 161, 200, 201, 319, 320, 359, 360, 400, 401, 479, 480, 1000, 16_001])
def test_features_of_a_stream_are_those_of_the_whole(family, mel_bins, count):
    rng = np.random.default_rng(count)
    samples = (0.1 * rng.standard_normal(count)).astype(np.float32)
    extract = FeatureExtractor(mel_bins, None, family)
    features, lengths = extract([samples])
    for size in (1 if count < 2000 else 160, 37, 161, 5000):
        stream = FeatureStream(extract)
        parts = [stream.add(samples[start : start + size]) for start in range(0, count, size)]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.end()], axis=1), features[0, :, : lengths[0]])


def recordings(count: int = 8) -> dict[str, np.ndarray]:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    return {
        path.stem: soundfile.read(path, dtype="float32")[0] for path in sorted(RECORDINGS.glob("*.flac"))[::2][:count]
    }


@pytest.fixture(scope="module")
def demo():
    return load_model("demo")


def test_the_demo_model_hears_live_recordings(demo):
    texts = json.loads((RECORDINGS / "texts.json").read_text())
    wrong = 0
    pool = demo.streams()
    found = recordings()
    for start in range(0, max(map(len, found.values())), 1600):
        pool.feed({name: samples[start : start + 1600] for name, samples in found.items()})
    for name, transcript in pool.finish().items():
        wrong += transcript.text != texts[f"{name}.flac"]
    assert wrong <= 2


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_samples_of_any_rate_in_any_cutting(demo, rate, dtype):
    rng = np.random.default_rng(rate)
    samples = np.repeat(next(iter(recordings(1).values())), 1)
    samples = np.interp(np.arange(len(samples) * rate // 16_000) * 16_000 / rate, np.arange(len(samples)), samples)
    samples = (samples * 32767).astype(np.int16) if dtype == "int16" else samples.astype(np.float32)
    expected = None
    for longest in (len(samples), 3000, 100):
        stream, start = demo.stream(), 0
        while start < len(samples):
            size = int(rng.integers(0, longest + 1)) if longest < len(samples) else longest
            stream.feed(samples[start : start + size], rate)
            start += size
        found = stream.finish()
        expected = expected or found
        assert_same(found, expected)
    assert expected.text and expected.duration == pytest.approx(len(samples) / rate, abs=1e-3)


@pytest.mark.parametrize(
    "right", [lambda x: x, lambda x: -x, lambda x: 0.3 * np.roll(x, 40)], ids=["same", "turned", "late"]
)
def test_channels_in_any_cutting(demo, right):
    """Whether channels cancel is not decided by the pieces in which they come."""
    rng = np.random.default_rng(0)
    samples = next(iter(recordings(1).values()))
    both = np.stack([samples, right(samples)], axis=1) + (1e-3 * rng.standard_normal((len(samples), 2))).astype("f4")
    expected = None
    for longest in (len(both), 100, 3000):
        stream, start = demo.stream(), 0
        while start < len(both):
            size = int(rng.integers(0, longest + 1)) if longest < len(both) else longest
            stream.feed(both[start : start + size])
            start += size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tdt.AudioWarning)
            found = stream.finish()
        expected = expected or found
        assert_same(found, expected)
    assert expected.text == demo.recognize((samples, 16_000)).text


def test_what_is_told_adds_up(demo):
    """Settled words stand in the transcript, in order, unchanged; the tentative text goes on after them."""
    for samples in recordings(4).values():
        stream = demo.stream(latency=Latency(chunk=0.4, right=0.4, left=4))
        settled, tentative = [], set()
        for start in range(0, len(samples), 800):
            news = stream.feed(samples[start : start + 800])
            settled += news.words
            tentative.add(news.tentative)
            assert news.heard == pytest.approx(min(start + 800, len(samples)) / 16_000)
            assert 0 <= news.decoded <= news.heard
            assert news.heard - news.decoded < 0.4 + 0.4 + 0.1 or news.decoded == 0
        transcript = stream.finish()
        assert transcript.words[: len(settled)] == settled
        assert " ".join(word.text for word in transcript.words) == transcript.text
        assert any(tentative)


def test_a_pause_ends_an_utterance(demo):
    first, second, *_ = recordings().values()
    silence = np.zeros(2 * 16_000, np.float32)
    stream = demo.stream(pause=0.8)
    ended, words = [], []
    for piece in (first, silence, second, silence):
        for start in range(0, len(piece), 1600):
            news = stream.feed(piece[start : start + 1600])
            words += news.words
            if news.ended:
                ended.append((news.heard, len(words)))
    # It is noticed when the chunk and the right context have come, 1.8 s after that at most.
    assert len(ended) == 2 and ended[0][0] < (len(first) + len(silence)) / 16_000 + 1.8
    assert stream.finish().words == words


@pytest.mark.parametrize("search", [Beam(size=4), Beam(size=8, strategy="tsd")], ids=str)
def test_a_beam_settles_no_word_that_may_still_change(demo, search):
    for samples in recordings(6).values():
        stream = demo.stream(search=search, pause=0.1)
        settled = []
        for start in range(0, len(samples), 1600):
            settled += stream.feed(samples[start : start + 1600]).words
        transcript = stream.finish()
        assert transcript.words[: len(settled)] == settled
        assert transcript.text == demo.recognize((samples, 16_000), search=search).text
        assert " ".join(word.text for word in transcript.words) == transcript.text


def test_tokens_that_end_utterances_and_name_languages_are_no_text(tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(GOLDEN / "rnnt-8-1", directory)
    tokens = (directory / "tokens.txt").read_text().splitlines()
    assert [line.split()[0] for line in tokens[-3:-1]] == ["<EOU>", "<EOB>"]
    tokens[3], tokens[9] = "<EOU> 3", "<de-DE> 9"
    (directory / "tokens.txt").write_text("\n".join(tokens) + "\n")
    case = cases("rnnt-8-1")[1]
    assert {3, 9} <= set(case.tokens)
    stream = load_model(directory, layout="split").stream()
    news = [stream.feed_features(case.features[:, i : i + 16]) for i in range(0, case.features.shape[1], 16)]
    found = stream.finish()
    assert found.hypothesis.tokens.tolist() == case.tokens
    assert "<" not in found.text + "".join(word.text for word in found.words)
    assert any(one.ended for one in news) and news[-1].language == "de-DE"
    assert not any(one.ended for one in news[: 8 * min(case.frames) // 16])


def test_languages(tmp_path):
    prompted, plain = model("prompt-70-13"), model("rnnt-8-1")
    texts = {case.language: whole(case).text for case in cases("prompt-70-13") if case.features.shape[1] == 960}
    assert len(set(texts.values())) == 2
    with pytest.raises(InputError, match="no language 'fr-FR': auto, en-US, ja-JP"):
        prompted.stream(language="fr-FR")
    with pytest.raises(InputError, match="is not told a language"):
        plain.stream(language="en-US")
    assert prompted.stream().feed_features(np.zeros((128, 10), np.float32)).words == ()  # its default, "auto"


def test_an_error_stays_in_its_stream(demo):
    good, other, *_ = recordings().values()
    expected = {name: demo.stream() for name in ("good", "other")}
    for name, samples in (("good", good), ("other", other)):
        expected[name].feed(samples)
    pool = demo.streams()
    half = len(good) // 2
    bad = np.full(100, np.nan, np.float32)
    results = pool.feed({"good": good[:half], "other": bad, "third": "text"})
    assert isinstance(results["good"], tdt.speech.streaming.News)
    assert isinstance(results["other"], InputError) and "NaN" in str(results["other"])
    assert isinstance(results["third"], InputError)
    assert "samples must be an array" in str(results["third"])
    assert pool.names == ["good"]
    late = np.zeros(3 * 16_000, np.float32)
    late[-1] = np.inf  # what comes before it in the piece is not heard either
    assert isinstance(pool.feed({"good": late})["good"], InputError)
    results = pool.feed({"good": bad, "other": other})
    assert isinstance(results["good"], InputError) and not isinstance(results["other"], Exception)
    assert isinstance(pool.feed({"good": good[half:]})["good"], tdt.speech.streaming.News)
    assert isinstance(pool.feed_features({"good": np.zeros((80, 3), np.float32)})["good"], InputError)
    for name, transcript in pool.finish().items():
        assert_same(transcript, expected[name].finish())


def test_a_broken_encoder_breaks_the_streams_it_concerns(demo, monkeypatch):
    good, other, *_ = recordings().values()
    pool = demo.streams()
    run = demo.encoder.__class__.__call__

    def fails_for_loud_ones(self, features, lengths):
        if features.max() > 1e3:
            raise RuntimeError("broken")
        return run(self, features, lengths)

    monkeypatch.setattr(demo.encoder.__class__, "__call__", fails_for_loud_ones)
    walk = pool._walk
    encode = walk.encode

    def spoilt(streams):
        if len(streams) > 1 or streams[0][1].frames % 2:
            raise RuntimeError("broken")
        return encode(streams)

    monkeypatch.setattr(walk, "encode", spoilt)
    results = pool.feed({"even": good[: 16_000 * 2 - 120], "odd": good[: 16_000 * 2 + 40]})
    assert [type(result).__name__ for result in results.values()].count("RuntimeError") == 1
    monkeypatch.undo()
    finished = pool.finish()
    assert sum(isinstance(result, RuntimeError) for result in finished.values()) == 1


def test_an_encoder_that_takes_one_at_a_time_gets_one_at_a_time(monkeypatch):
    """A dynamically quantised one scales the activations of a whole batch at once."""
    one_by_one = load_model("demo")
    monkeypatch.setattr(one_by_one.encoder, "takes_batches", False)
    run, batches = type(one_by_one.encoder).__call__, []

    def counted(self, features, lengths):
        batches.append(len(features))
        return run(self, features, lengths)

    monkeypatch.setattr(type(one_by_one.encoder), "__call__", counted)
    pool = one_by_one.streams()
    pool.feed(recordings(4))
    texts = {name: transcript.text for name, transcript in pool.finish().items()}
    assert set(batches) == {1} and all(texts.values())


def test_a_stream_whose_words_cannot_be_made_fails_alone(demo, monkeypatch):
    pool = demo.streams()
    good, bad, *_ = recordings().values()
    for name in ("good", "bad"):
        pool.open(name)

    def fails(part):
        raise RuntimeError("no words")

    monkeypatch.setattr(pool._streams["bad"].wording, "add", fails)
    results = pool.feed({"good": good, "bad": bad})
    assert isinstance(results["bad"], RuntimeError) and not isinstance(results["good"], Exception)
    finished = pool.finish()
    assert isinstance(finished["bad"], RuntimeError) and finished["good"].text == demo.recognize((good, 16_000)).text


def test_names_and_ends(demo):
    pool = demo.streams()
    pool.open("a")
    with pytest.raises(InputError, match="there is a stream 'a' already"):
        pool.open("a")
    with pytest.raises(InputError, match="no stream 'b'"):
        pool.finish(["a", "b"])
    with pytest.raises(InputError, match="no stream 'b'"):
        pool.drop("b")
    assert "a" in pool and len(pool) == 1
    pool.drop("a")
    assert not len(pool) and pool.finish() == {}
    empty = demo.stream()
    assert empty.feed(np.zeros(0, np.float32)).words == ()
    transcript = empty.finish()
    assert (transcript.text, transcript.words, transcript.duration) == ("", [], 0.0)
    for call in (empty.finish, lambda: empty.feed(np.zeros(10)), lambda: empty.feed_features(np.zeros((80, 1)))):
        with pytest.raises(InputError, match="the stream is finished"):
            call()


@pytest.mark.parametrize("seconds", [0.001, 0.005, 0.02, 0.1, 1.19, 1.2, 1.21])
def test_short_streams_give_what_recordings_give(demo, seconds):
    samples = next(iter(recordings(1).values()))[: int(seconds * 16_000)]
    stream = demo.stream()
    stream.feed(samples)
    assert stream.finish().text == demo.recognize((samples, 16_000)).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "beam"}, "search must be"),
        ({"latency": 0.5}, "latency must be"),
        ({"latency": Latency(left=1000)}, "longer than"),
        ({"pause": 0}, "pause must be"),
        ({"pause": "long"}, "pause must be"),
        ({"language": "en"}, "is not told a language"),
    ],
)
def test_wrong_options(demo, options, message):
    with pytest.raises(InputError, match=message):
        demo.stream(**options)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "a", True, None])
def test_wrong_latencies(value):
    with pytest.raises(InputError, match="chunk must be"):
        Latency(chunk=value)


def with_metadata(tmp_path, **entries) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(Path(tdt.__file__).parent / "demo", directory)
    graph = onnx.load(directory / "encoder-model.onnx")
    for key, value in entries.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.save(graph, directory / "encoder-model.onnx")
    return directory


def test_windows_that_the_file_states(tmp_path, demo):
    """As sherpa-onnx's export of parakeet-unified does."""
    stated = {"left_encoder_frames": "35", "chunk_encoder_frames": "10", "right_encoder_frames": "12"}
    found = load_model(with_metadata(tmp_path, streaming_model_type="nemo_parakeet_unified_streaming", **stated))
    samples = next(iter(recordings(1).values()))
    windows = Latency(left=2.8, chunk=0.8, right=0.96)
    streams = [found.stream(), demo.stream(latency=windows)]
    for start in range(0, len(samples), 1600):
        first, second = (stream.feed(samples[start : start + 1600]) for stream in streams)
        assert first == second
    assert_same(streams[0].finish(), streams[1].finish())
    found.stream(latency=Latency(left=3.2, chunk=1.6, right=1.2))
    for latency in (Latency(left=3.2, chunk=0.4, right=1.2), Latency(left=2.0, chunk=0.8, right=1.2),
                    Latency(left=3.2, chunk=0.8, right=0.4)):  # fmt: skip
        with pytest.raises(InputError, match=r"exported for chunks of 0.80 s with 0.96 s after them"):
            found.stream(latency=latency)


@pytest.mark.parametrize("key", ["left_encoder_frames", "chunk_encoder_frames", "right_encoder_frames"])
@pytest.mark.parametrize("value", ["", "-1", "many", "99999999999", "1.5"])
def test_windows_that_are_none(tmp_path, key, value):
    stated = {"left_encoder_frames": "30", "chunk_encoder_frames": "10", "right_encoder_frames": "10", key: value}
    with pytest.raises(tdt.BundleError, match=key):
        load_model(with_metadata(tmp_path, **stated)).stream()


def test_latency_of_a_cache_aware_encoder_lies_in_its_file():
    with pytest.raises(InputError, match="lie in its file"):
        model("rnnt-8-1").stream(latency=Latency())


def test_a_model_with_caches_is_pickled():
    import pickle

    case = cases("rnnt-8-1")[2]
    stream = pickle.loads(pickle.dumps(model("rnnt-8-1"))).stream()
    stream.feed_features(case.features)
    assert stream.finish().hypothesis.tokens.tolist() == case.tokens
