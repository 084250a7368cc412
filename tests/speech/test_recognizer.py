"""Recordings to transcripts: batches and their order, errors in their places, limits, and every way to name a model."""

from __future__ import annotations

import dataclasses
import gc
import io
import logging
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from benches.random_bundle import LAYOUTS, make_bundle  # noqa: E402
from tdtdecode.bundle import read_bundle  # noqa: E402
from tdtdecode.errors import AudioWarning, BundleError, InputError, SlowerWarning  # noqa: E402
from tdtdecode.fusion import PhraseBoost  # noqa: E402
from tdtdecode.hypothesis import Transcript  # noqa: E402
from tdtdecode.search import Beam, Greedy  # noqa: E402
from tdtdecode.speech import pipeline, routing  # noqa: E402
from tdtdecode.speech.audio import FeatureExtractor  # noqa: E402
from tdtdecode.speech.audio.features import SAMPLE_RATE  # noqa: E402
from tdtdecode.speech.loading import load_model  # noqa: E402
from tdtdecode.speech.recognizer import Recognizer  # noqa: E402
from tests.conftest import in_fork  # noqa: E402
from tests.cuda.helpers import PROVIDER_CARDS, on  # noqa: E402
from tests.host_cuda import emulated_cupy  # noqa: E402

SIZES = dict(vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32, mel_bins=80)


def noise(samples, seed=0):
    """A recording (array, rate): noise whose loudness and colour vary, so that something is recognised."""
    rng = np.random.default_rng([seed, samples])
    white = rng.standard_normal(samples)
    envelope = np.repeat(rng.uniform(0.01, 1, samples // 1_600 + 1), 1_600)[:samples]
    return (0.2 * white * envelope).astype(np.float32), 16_000


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Directories of random bundles by layout and precision, each made once."""
    made = {}

    def bundle(layout="split", precision="fp32", **options):
        key = (layout, precision, *sorted(options.items()))
        if key not in made:
            directory = tmp_path_factory.mktemp("bundle")
            made[key] = make_bundle(directory, layout, precision=precision, **SIZES, **options)
        return made[key]

    return bundle


@pytest.fixture(scope="session")
def model(bundles):
    return load_model(bundles())


def check_same(ours: Transcript, theirs: Transcript) -> None:
    assert ours.text == theirs.text and ours.duration == theirs.duration
    assert [word.text for word in ours.words] == [word.text for word in theirs.words]
    np.testing.assert_array_equal(ours.hypothesis.tokens, theirs.hypothesis.tokens)
    np.testing.assert_array_equal(ours.hypothesis.frames, theirs.hypothesis.frames)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_parts_done_by_hand(bundles, layout):
    import onnxruntime

    directory = bundles(layout)
    model = load_model(directory)
    bundle = read_bundle(directory)
    session = onnxruntime.InferenceSession(str(bundle.encoder), providers=["CPUExecutionProvider"])
    recordings = [noise(40_000), noise(64_000), noise(16_000)]
    for recording, transcript in zip(recordings, model.recognize(recordings), strict=True):
        features, lengths = FeatureExtractor(80)([recording[0]])
        frames, counts = session.run(None, dict(zip((i.name for i in session.get_inputs()), (features, lengths))))
        (expected,) = model.decoder.decode(frames, counts)
        np.testing.assert_array_equal(transcript.hypothesis.tokens, expected.tokens)
        np.testing.assert_array_equal(transcript.hypothesis.frames, expected.frames)
        assert transcript.text == bundle.vocabulary.detokenize(expected.tokens)
        assert transcript.text or len(recording[0]) < 64_000
        assert [word.start for word in transcript.words] == [
            word.start for word in bundle.vocabulary.words(expected, 0.08)
        ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_results_depend_on_neither_batch_nor_order(bundles, precision, batch_size):
    model = load_model(bundles("split", precision), variant=None if precision == "fp32" else precision)
    recordings = [noise(n) for n in (30_000, 1_000, 64_321, 16_000, 0, 48_000, 159, 160, 1_279, 1_281)]
    recordings[2] = (recordings[2][0] * 4, 16_000)  # one loud neighbour
    alone = [model.recognize(recording) for recording in recordings]
    assert sum(len(transcript.words) for transcript in alone) > 5
    order = np.random.default_rng(0).permutation(len(recordings))
    together = model.recognize([recordings[i] for i in order], batch_size=batch_size)
    for i, transcript in zip(order, together, strict=True):
        check_same(transcript, alone[i])


def test_a_quantised_encoder_gets_one_recording_at_a_time(bundles, model):
    class Counting:
        takes_batches = False
        rows = []

        def __call__(self, features, lengths):
            self.rows.append(len(lengths))
            return model.encoder(features, lengths)

    quantised = load_model(bundles("split", "int8"), variant="int8")
    assert model.encoder.takes_batches and not quantised.encoder.takes_batches
    counting = Counting()
    Recognizer(model.bundle, counting, model.decoder).recognize([noise(n) for n in (20_000, 30_000, 10_000)])
    assert counting.rows == [1, 1, 1]


def test_batches_are_of_similar_length_and_bounded(model, monkeypatch):
    widths = []

    class Recording:
        takes_batches = True

        def __call__(self, features, lengths):
            widths.append((len(lengths), features.shape[2]))
            return model.encoder(features, lengths)

    monkeypatch.setattr(pipeline, "_FIRST_SECONDS", 1e9)
    seconds = [1, 20, 2, 100, 1, 2, 19, 200]
    Recognizer(model.bundle, Recording(), model.decoder).recognize([noise(16_000 * s) for s in seconds], batch_size=3)
    assert widths == [(2, 101), (1, 2_001), (2, 201), (1, 10_001), (1, 1_901), (1, 20_001)]


@pytest.mark.parametrize("samples", [0, 1, 100, 159])
def test_nothing_to_hear_does_not_run_the_model(model, samples):
    silent = Recognizer(model.bundle, lambda *_: pytest.fail("the encoder ran"), model.decoder)
    silent.encoder.takes_batches = True
    transcript = silent.recognize(noise(samples))
    assert (transcript.text, transcript.words) == ("", []) and len(transcript.hypothesis) == 0
    assert transcript.duration == samples / 16_000


def test_silence(model):
    assert isinstance(model.recognize((np.zeros(32_000, dtype=np.float32), 16_000)), Transcript)


def test_no_recordings(model):
    assert model.recognize([]) == []


def test_times_stay_within_the_recording(model):
    for seed in range(5):
        recording = noise(20_000 + 777 * seed, seed)
        transcript = model.recognize(recording)
        assert all(0 <= word.start <= word.end <= transcript.duration for word in transcript.words)


def test_files_and_arrays(model, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    recording = noise(48_000)
    path = tmp_path / "a.wav"
    soundfile.write(path, recording[0], 16_000, subtype="FLOAT")
    for transcript in model.recognize([path, str(path), recording]):
        check_same(transcript, model.recognize(recording))


def test_errors_in_their_places(model, tmp_path):
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    good = noise(30_000)
    bad = tmp_path / "nothing.wav"
    notes = tmp_path / "notes.wav"
    notes.write_text("milk, eggs")
    nan = (np.full(16_000, np.nan, dtype=np.float32), 16_000)
    results = model.recognize([bad, good, notes, nan, good, None, good[0]], on_error="return")
    check_same(results[1], model.recognize(good))
    check_same(results[4], results[1])
    for i in (0, 2, 3, 5, 6):
        assert isinstance(results[i], InputError)
    assert "nothing.wav" in str(results[0]) and "notes.wav" in str(results[2])
    with pytest.raises(InputError, match="nothing.wav"):
        model.recognize([good, bad])
    assert isinstance(model.recognize(bad, on_error="return"), InputError)


def test_one_that_breaks_the_model_does_not_take_its_batch_along(model):
    class Fragile:
        takes_batches = True

        def __call__(self, features, lengths):
            if 250 in lengths:
                raise RuntimeError("out of memory")
            return model.encoder(features, lengths)

    fragile = Recognizer(model.bundle, Fragile(), model.decoder)
    recordings = [noise(n) for n in (39_000, 40_000, 41_000)]
    results = fragile.recognize(recordings, on_error="return")
    assert isinstance(results[1], RuntimeError)
    check_same(results[0], model.recognize(recordings[0]))
    check_same(results[2], model.recognize(recordings[2]))
    with pytest.raises(RuntimeError, match="out of memory"):
        fragile.recognize(recordings)


def test_the_encoders_limit(bundles, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    model = load_model(bundles("combined", position_frames=100))
    assert model.max_seconds == 8.0
    for samples in (127_000, 128_000):  # the last frame of NeMo's features would be one too many at the limit
        assert model.recognize(noise(samples)).duration == samples / 16_000
    long = noise(136_000)
    path = tmp_path / "lecture.flac"
    soundfile.write(path, *long)
    for out in model.recognize([path, long]):  # in windows: tests/speech/test_windows.py
        assert out.duration == 8.5 and out.words[-1].end > 8.0


def test_an_encoder_that_fails_says_how_long_the_recordings_were(bundles):
    model = load_model(bundles("combined", position_frames=100))
    model._max_input_frames = None  # as if nothing in the bundle told the limit
    with pytest.raises(InputError, match=r"failed on 1 recording\(s\) of up to 8\.5 s.*cut"):
        model.recognize(noise(136_000))


def test_an_encoder_of_fixed_length(bundles, tmp_path):
    directory = tmp_path / "fixed"
    directory.mkdir()
    for file in bundles().iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    encoder = onnx.load(directory / "encoder.onnx")
    encoder.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 400
    onnx.save(encoder, directory / "encoder.onnx")
    model = load_model(directory)
    assert model.max_seconds == 4.0
    short, full = noise(30_000), noise(64_000)
    reference = load_model(bundles())
    for ours, recording in zip(model.recognize([short, full]), (short, full), strict=True):
        check_same(ours, reference.recognize(recording))
    check_same(model.recognize(noise(65_000)), reference.recognize(noise(65_000)))


def test_the_search_of_a_call(model):
    recording = noise(64_000)
    none = model.recognize(recording, search=Greedy(blank_penalty=-1e6))
    assert none.text == "" and model.recognize(recording).text != ""


def test_progress(model):
    seen = []
    model.recognize(
        [noise(8_000), None, noise(9_000), noise(1_000)], batch_size=1, on_error="return",
        progress=lambda now: seen.append((now.recordings_done, now.recordings_total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 1.5}, {"on_error": "ignore"}])
def test_bad_options(model, options):
    with pytest.raises(InputError, match=next(iter(options))):
        model.recognize(noise(16_000), **options)


class TestDevices:
    def test_names(self, bundles):
        with pytest.raises(InputError, match="device must be one of 'cpu', 'cuda', 'auto', 'both', got 'gpu'"):
            load_model(bundles(), device="gpu")

    @pytest.mark.parametrize("card", PROVIDER_CARDS)
    def test_what_is_recognised_is_the_same(self, bundles, model, card):
        recordings = [noise(16_000 * seconds, seed=seconds) for seconds in (3, 1, 2)]
        with on(card):
            found = load_model(bundles(), device="cuda")
            assert (found.device, model.device) == ("cuda", "cpu")
            used = emulated_cupy.Device.used
            for search in (None, Beam(size=2)):
                for ours, theirs in zip(found.recognize(recordings, search), model.recognize(recordings, search)):
                    check_same(ours, theirs)
            assert card != "emulated" or emulated_cupy.Device.used >= used + 8  # in each thread of both calls

    @pytest.mark.parametrize("card", PROVIDER_CARDS)
    def test_auto_takes_the_card_and_says_so(self, bundles, caplog, card):
        with on(card), caplog.at_level(logging.INFO, "tdtdecode"):
            assert load_model(bundles(), device="auto").device == "cuda"
        assert "device: cuda (" in caplog.text

    def test_auto_says_why_it_takes_the_cpu(self, bundles, caplog, monkeypatch):
        import onnxruntime

        with caplog.at_level(logging.INFO, "tdtdecode"):
            with on("emulated", count=0):
                assert load_model(bundles(), device="auto").device == "cpu"
            monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
            with emulated_cupy.installed(), pytest.warns(SlowerWarning, match="onnxruntime-gpu"):
                assert load_model(bundles(), device="auto").device == "cpu"
        messages = [record.getMessage() for record in caplog.records]
        first, second = (message for message in messages if message.startswith("device: cpu, since"))
        assert "no CUDA device is visible" in first and "onnxruntime-gpu" in second

    def test_both_gives_short_audio_to_the_faster_one(self, bundles, caplog, monkeypatch):
        def timed(model, samples):
            """A GPU that takes a second whatever there is, and a CPU that takes a third of the audio's time."""
            return 1.0 if model.device == "cuda" else len(samples) / SAMPLE_RATE / 3

        monkeypatch.setattr(routing, "_median_time", timed)
        with on("emulated"), caplog.at_level(logging.INFO, "tdtdecode"):
            model = load_model(bundles(), device="both")
            assert model.crossover == 2.0 and "cpu for up to 2 s of audio, cuda beyond" in caplog.text
            with pytest.raises(InputError):
                model.recognize("missing.wav")
            used = []
            for one in (model.cpu, model.cuda):
                monkeypatch.setattr(one, "recognize", lambda *_, name=one.device: used.append(name))
            short, long = noise(16_000), noise(16_000 * 3)
            for audio in ([], [short], [short, short], [short, short, short], [long]):
                model.recognize(audio)
            assert used == ["cpu", "cpu", "cpu", "cuda", "cuda"]

    def test_the_crossover_is_measured(self, bundles):
        with on("emulated"):
            model = load_model(bundles(), device="both")
        assert model.crossover in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
        assert model.device == "cuda" and model.bundle is model.cpu.bundle


def test_options_reach_the_sessions(bundles):
    import onnxruntime

    model = load_model(bundles(), threads=1)
    assert model.encoder._session.current.get_session_options().intra_op_num_threads == 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = load_model(bundles(), session_options=options, providers=["CPUExecutionProvider"])
    assert model.encoder._session.current.get_session_options().log_severity_level == 3
    with pytest.raises(InputError, match="threads"):
        load_model(bundles(), threads=0)


def test_a_bundle_without_an_encoder(bundles, tmp_path):
    for file in bundles().iterdir():
        if "encoder" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BundleError, match="no encoder"):
        load_model(tmp_path)


def test_an_encoder_with_other_inputs(bundles, tmp_path):
    for file in bundles().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    encoder = onnx.load(tmp_path / "encoder.onnx")
    encoder.graph.input.append(onnx.helper.make_tensor_value_info("cache", onnx.TensorProto.FLOAT, ["B", 4]))
    onnx.save(encoder, tmp_path / "encoder.onnx")
    with pytest.raises(BundleError, match=r"encoder\.onnx: expected a streaming encoder .*and the caches"):
        load_model(tmp_path)


@pytest.mark.parametrize(("change", "field"), [
    ({"sample_rate": 8_000}, "sample_rate"),
    ({"mel_bins": None}, "feat_dim"),
])
def test_features_of_another_kind(model, change, field):
    other = dataclasses.replace(model.bundle, features=dataclasses.replace(model.bundle.features, **change))
    with pytest.raises(BundleError, match=field):
        Recognizer(other, model.encoder, model.decoder)


def test_external_weights(bundles):
    recording = noise(48_000)
    outside, inside = (load_model(bundles(external_weights=external)) for external in (True, False))
    check_same(outside.recognize(recording), inside.recognize(recording))


def test_the_demo():
    demo = Path(__file__).parents[2] / "src" / "tdtdecode" / "demo"
    if not list(demo.glob("*.onnx")):
        pytest.skip("the demo model has not been made")
    transcript = load_model("demo").recognize(demo / "speech.flac")
    assert transcript.text == (demo / "speech.txt").read_text(encoding="utf-8").strip()
    assert transcript.text == " ".join(word.text for word in transcript.words)
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork(model):
    recording = noise(48_000)
    expected = model.recognize(recording).text
    assert in_fork(lambda: model.recognize(recording).text) == expected


def test_garbage_of_the_parent_does_not_hang_a_fork(bundles):
    """A session with threads that dies in the child must not wait for them."""
    model = load_model(bundles(), threads=2)
    model.itself = model  # a cycle, so that only the collector frees it
    model.recognize(noise(48_000))
    del model
    assert in_fork(gc.collect, garbage_left=True) is not None


def test_phrases_by_recording(model):
    """Lists follow their recordings through batches that are sorted by length, and past those too short to decode."""
    recordings = [noise(size, seed) for seed, size in enumerate((40_000, 100, 90_000, 20_000, 60_000))]
    pieces = model.bundle.vocabulary.pieces
    lists = [[pieces[3]], [], [pieces[5], pieces[8]], [pieces[3]], []]
    boost = PhraseBoost.per_row([[[pieces.index(piece)] for piece in some] for some in lists], 6.0)
    found = model.recognize(recordings, search=Beam(fusion=[boost]), batch_size=2)
    for recording, some, transcript in zip(recordings, lists, found):
        alone = PhraseBoost([[pieces.index(piece)] for piece in some], 6.0)
        check_same(transcript, model.recognize(recording, search=Beam(fusion=[alone])))
    assert any(transcript.alternatives for transcript in found)
    with pytest.raises(InputError, match="phrases or tokens are given for 5 utterances, but there are 2"):
        model.recognize(recordings[:2], search=Beam(fusion=[boost]))


def test_alternatives_are_read(model):
    transcript = model.recognize(noise(50_000), search=Beam(size=4, nbest=3))
    assert len(transcript.alternatives) == len(transcript.hypothesis.alternatives) == 2
    for other, hypothesis in zip(transcript.alternatives, transcript.hypothesis.alternatives):
        assert other.text == model.decoder.detokenize(hypothesis.tokens)
        assert other.duration == transcript.duration


class TestWhatIsTranscribed:
    """Everything that holds a recording, alone and in lists."""

    @pytest.fixture
    def path(self, tmp_path):
        soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
        path = tmp_path / "a.wav"
        soundfile.write(path, noise(48_000)[0], 16_000, subtype="FLOAT")
        return path

    def test_bytes_and_file_objects(self, model, path):
        expected = model.recognize(noise(48_000))
        data = path.read_bytes()
        with open(path, "rb") as stream:
            for audio in (data, bytearray(data), memoryview(data), io.BytesIO(data), stream):
                check_same(model.recognize(audio), expected)
                check_same(model.recognize([audio, path])[0], expected)

    @pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
    def test_pipes(self, model, path, tmp_path):
        expected = model.recognize(path)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for audio in (pipe, [path, pipe]):
            writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
            writer.start()
            found = model.recognize(audio)
            writer.join()
            check_same(found[1] if isinstance(found, list) else found, expected)

    def test_big_endian_samples(self, model):
        samples = noise(48_000)[0]
        check_same(model.recognize((samples.astype(">f4"), 16_000)), model.recognize((samples, 16_000)))

    def test_one_warning_for_each_doubt(self, model, path, recwarn):
        data = path.read_bytes()
        at = data.index(b"data") + 4
        path.write_bytes(data[:at] + bytes(4) + data[at + 4 :])
        check_same(model.recognize(path), model.recognize(noise(48_000)))
        assert [warning.category for warning in recwarn] == [AudioWarning]
        assert str(path) in str(recwarn[0].message)

    def test_doubts_as_errors_stand_in_their_places(self, model, path, tmp_path):
        cut = tmp_path / "cut.wav"
        cut.write_bytes(path.read_bytes()[:100_000])
        with warnings.catch_warnings():
            warnings.simplefilter("error", AudioWarning)
            first, second = model.recognize([cut, path], on_error="return")
            with pytest.raises(AudioWarning, match="cut.wav"):
                model.recognize(cut)
        assert isinstance(first, AudioWarning) and "cut.wav" in str(first)
        check_same(second, model.recognize(path))

    def test_batches_are_made_of_what_is_there(self, model, tmp_path):
        """Headers that state little do not bring hours of audio into one batch."""
        soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
        paths = []
        for number, seconds in enumerate((300, 1, 290)):
            file = io.BytesIO()
            soundfile.write(file, noise(16_000 * seconds, number)[0], 16_000, format="FLAC")
            data = bytearray(file.getvalue())
            data[21:26] = bytes([data[21] & 0xF0]) + (1_000 + number).to_bytes(4, "big")
            paths.append(tmp_path / f"{number}.flac")
            paths[-1].write_bytes(data)
        widths = []

        class Recording:
            takes_batches = True

            def __call__(self, features, lengths):
                widths.append((len(lengths), features.shape[2] // 100))
                return model.encoder(features, lengths)

        with pytest.warns(AudioWarning):
            found = Recognizer(model.bundle, Recording(), model.decoder).recognize(paths)
        assert sorted(widths) == [(1, 1), (1, 290), (1, 300)]
        assert [out.duration for out in found] == [300, 1, 290]

    def test_both_devices_read_a_pipe_once(self, bundles, model, path, monkeypatch):
        class Pipe:
            def __init__(self):
                self.read = io.BytesIO(path.read_bytes()).read

        monkeypatch.setattr(routing, "_median_time", lambda *_: 1.0)
        with on("emulated"):
            both = load_model(bundles(), device="both")
            for audio in (Pipe(), [path, Pipe()]):
                found = both.recognize(audio)
                check_same(found[1] if isinstance(found, list) else found, model.recognize(path))
