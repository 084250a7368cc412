"""From samples to text on a card: what runs on which stream, in which order, what is copied, where errors go."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import tdtdecode as tdt  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.speech import pipeline, stages  # noqa: E402
from tests.conftest import HANGING  # noqa: E402
from tests.cuda.helpers import PROVIDER_CARDS, emulated, on  # noqa: E402
from tests.host_cuda.emulated_cupy import EVENTS, TRANSFERS  # noqa: E402

SIZES = dict(vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32, mel_bins=80)
LENGTHS = (3_000, 40_000, 0, 17_500, 160, 31_999, 32_001, 100)


def noise(samples, seed=0):
    rng = np.random.default_rng([seed, samples])
    envelope = np.repeat(rng.uniform(0.01, 1, samples // 1_600 + 1), 1_600)[:samples]
    return (0.2 * rng.standard_normal(samples) * envelope).astype(np.float32), 16_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), "split", **SIZES)


@pytest.fixture(autouse=True)
def no_threads_stay():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tdtdecode-")]


def same(found, expected):
    assert [one.text for one in found] == [one.text for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.hypothesis.tokens, other.hypothesis.tokens)
        np.testing.assert_array_equal(one.hypothesis.frames, other.hypothesis.frames)
    assert any(one.text for one in found)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("card", PROVIDER_CARDS)
def test_text_is_that_of_the_cpu(directory, card, batch_size):
    recordings = [noise(n) for n in LENGTHS]
    expected = tdt.load_model(directory).recognize(recordings)
    with on(card):
        same(tdt.load_model(directory, device="cuda").recognize(recordings, batch_size=batch_size), expected)


@pytest.mark.parametrize("bucket", [1, 7, 200, 1_000])
def test_padding_changes_nothing(directory, monkeypatch, bucket):
    """Batches have a multiple of a number of frames, so that cuDNN meets few widths."""
    recordings = [noise(n, 1) for n in LENGTHS]
    expected = tdt.load_model(directory).recognize(recordings)
    monkeypatch.setattr(stages, "_BUCKET", bucket)
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        widths = watched_widths(model, monkeypatch)
        same(model.recognize(recordings, batch_size=2), expected)
    assert widths and all(width % bucket == 0 for width in widths)


def watched_widths(model, monkeypatch):
    """The widths of the encoder's batches, as they come."""
    widths, launched = [], model.encoder.launched

    def watched(features, lengths):
        widths.append(features.shape[2])
        return launched(features, lengths)

    monkeypatch.setattr(model.encoder, "launched", watched)
    return widths


def test_padding_does_not_exceed_the_encoders_limit(tmp_path, monkeypatch):
    directory = make_bundle(tmp_path, "split", **SIZES, position_frames=80)
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        widths = watched_widths(model, monkeypatch)
        assert model.max_seconds == 6.4
        model.recognize([noise(n, 2) for n in (20_000, 101_000, 102_400)], batch_size=1)
    assert sorted(widths) == [200, 640, 640]


def test_streams_and_copies(directory):
    """Readers copy samples in one piece and compute features. Nobody waits for the encoder's stream but by an event.
    Decoding has a stream of its own, and comes after that event."""
    with emulated() as cupy:
        from tdtdecode.cuda.device import shared_stream

        model = tdt.load_model(directory, device="cuda")
        recordings = [noise(n) for n in (16_000, 24_000, 20_000)]
        model.recognize(recordings)  # makes what is used again
        EVENTS.clear()
        before = dict(TRANSFERS)
        model.recognize(recordings, batch_size=3)
        events = list(EVENTS)
        encoding = shared_stream(0)
        NULL = cupy.cuda.get_current_stream()
    streams = {
        name: {stream for what, stream, more in events if what == "launch" and more == name}
        for name in ("log_mel_spectra", "finish_features", "put_together", "project_frames", "fused_greedy")
    }
    assert streams["put_together"] == {encoding}
    (decoding,) = streams["fused_greedy"]
    assert streams["project_frames"] == {decoding} and decoding is not encoding
    reading = streams["log_mel_spectra"]
    assert reading == streams["finish_features"] and not reading & {encoding, decoding, NULL}
    assert decoding.priority < encoding.priority

    places = {name: i for i, (what, _, name) in enumerate(events) if what == "launch"}
    records = [i for i, (what, stream, _) in enumerate(events) if (what, stream) == ("record", encoding)]
    event = events[records[-1]][2]
    waited = next(i for i, (what, _, more) in enumerate(events) if what == "synchronize_event" and more is event)
    assert places["finish_features"] < places["put_together"] < records[-1] < waited < places["project_frames"]
    # The only other wait for the encoder's stream is that at the very end.
    ends = [i for i, (what, stream, _) in enumerate(events) if (what, stream) == ("synchronize", encoding)]
    assert len(ends) == 1 and ends[0] > waited

    samples, parameters, batches = 3, 3, 1
    table, counts, sent, fetched = batches, batches, batches, batches
    frames = batches  # in the emulation alone: the encoder is the CPU's, so what it returns lies in main memory
    assert TRANSFERS["to_device"] - before["to_device"] == samples + parameters + table + frames + sent
    assert TRANSFERS["to_host"] - before["to_host"] == counts + fetched


def test_nobody_waits_for_a_run_but_the_next_one(directory):
    """ONNX Runtime uses a run's memory on the host again, so a run begins when the one before is done."""
    features, lengths = np.random.default_rng(0).standard_normal((2, 80, 64)).astype(np.float32), np.array([64, 30])
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        expected = model.encoder(features, lengths)[0].numpy()
        EVENTS.clear()
        results = [model.encoder.launched(features, lengths) for _ in range(2)]
        runs = [(what, more) for what, stream, more in EVENTS if what == "synchronize_event"]
        (_, earlier), (_, first) = runs  # the run before, and the first of these
        made = [more for what, _, more in EVENTS if what == "record"]
        assert first in made and made.index(first) < len(made) - 1 and earlier not in made
        for result in reversed(results):
            frames, counts = result()
            np.testing.assert_array_equal(frames.numpy(), expected)
            assert counts.tolist() == [8, 4]


def test_two_calls_at_once(directory):
    """They share the encoder and its stream."""
    recordings = [noise(n) for n in LENGTHS]
    expected = tdt.load_model(directory).recognize(recordings)
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(lambda _: model.recognize(recordings, batch_size=2), range(4)):
                same(found, expected)


def test_a_batch_is_encoded_while_another_is_decoded(directory, monkeypatch):
    """Decoding the first batch goes on only when the next one is being encoded."""
    monkeypatch.setattr(pipeline, "_FIRST_SECONDS", 1.0)
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        launches, encoded = 0, threading.Event()
        launched, decode = model.encoder.launched, tdt.Decoder.decode

        def counted(*arguments):
            nonlocal launches
            launches += 1
            if launches > 1:
                encoded.set()
            return launched(*arguments)

        def waiting(*arguments):
            assert encoded.wait(HANGING)
            return decode(*arguments)

        monkeypatch.setattr(model.encoder, "launched", counted)
        monkeypatch.setattr(tdt.Decoder, "decode", waiting)
        assert len(model.recognize([noise(20_000, seed) for seed in range(4)], batch_size=1)) == 4


def test_decoding_fills_a_part_of_the_card(directory):
    with emulated(multiprocessors=12):
        assert tdt.load_model(directory, device="cuda").decoder.network.on_device.launch.blocks == 3
        assert tdt.Decoder.from_bundle(directory, device="cuda").network.on_device.launch.blocks == 12
        few = tdt.Decoder.from_bundle(directory, device="cuda", card_share=0.01)
        assert few.network.on_device.launch.blocks == 1
    for share in (0, 1.5, "all", None):
        with pytest.raises(tdt.InputError, match="card_share must be a share above 0, at most 1"):
            tdt.Decoder.from_bundle(directory, card_share=share)


@pytest.mark.parametrize("stage", ["read", "encode", "wait", "decode"])
def test_an_error_costs_one_recording(directory, monkeypatch, stage):
    """Wherever it happens, also where the encoder's results are awaited."""
    recordings = [noise(n) for n in (16_000, 24_000, 20_000)]
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        expected = model.recognize(recordings)
        failing = 24_000 // 160
        _, (failing_frames,) = model.encoder(np.zeros((1, 80, failing), np.float32), np.array([failing]))

        def fails(lengths):
            if failing in np.asarray(lengths).tolist():
                raise tdt.DeviceError(f"{stage} fails")

        extract, launched, decode = model._extract_for_encoder, model.encoder.launched, tdt.Decoder.decode

        def reading(parts):
            features, lengths = extract(parts)
            fails(lengths)
            return features, lengths

        def encoding(features, lengths):
            fails(lengths)
            return launched(features, lengths)

        def awaited(features, lengths):
            result = launched(features, lengths)

            def wait():
                fails(lengths)
                return result()

            return wait

        def decoding(decoder, encoder_out, counts, search=None):
            fails(np.where(counts == failing_frames, failing, 0))
            return decode(decoder, encoder_out, counts, search)

        if stage == "read":
            reading.frames = extract.frames
            monkeypatch.setattr(model, "_extract_for_encoder", reading)
        elif stage == "decode":
            monkeypatch.setattr(tdt.Decoder, "decode", decoding)
        else:
            monkeypatch.setattr(model.encoder, "launched", encoding if stage == "encode" else awaited)
        found = model.recognize(recordings, on_error="return")
        assert isinstance(found.pop(1), tdt.DeviceError)
        same(found, [expected[0], expected[2]])
        with pytest.raises(tdt.DeviceError, match=f"{stage} fails"):
            model.recognize(recordings)


def test_an_end_in_the_middle(directory, monkeypatch):
    """Whoever takes no more gets his memory and his threads back, and the model goes on working."""
    with emulated():
        model = tdt.load_model(directory, device="cuda")
        recordings = [noise(20_000, seed) for seed in range(12)]
        expected = model.recognize(recordings)
        with contextlib.closing(model.recognize_each(iter(recordings), batch_size=2)) as transcripts:
            next(transcripts)
        with pytest.raises(KeyboardInterrupt):
            model.recognize(recordings, progress=_interrupted)
        EVENTS.clear()
        same(model.recognize(recordings), expected)


def _interrupted(_):
    raise KeyboardInterrupt


def test_a_model_on_a_second_card(directory):
    """All threads use the model's card, and its own streams."""
    recordings = [noise(n) for n in (16_000, 24_000)]
    expected = tdt.load_model(directory).recognize(recordings)
    with emulated(count=2) as cupy:
        with cupy.cuda.Device(1):
            model = tdt.load_model(directory, device="cuda")
        EVENTS.clear()
        same(model.recognize(recordings), expected)
        assert {stream.card for what, stream, _ in EVENTS if what == "launch"} == {1}


def test_tf32(directory):
    from tdtdecode import sessions

    with pytest.raises(tdt.InputError, match="tf32=True needs a card, got device='cpu'"):
        tdt.load_model(directory, tf32=True)
    asked = []
    with emulated(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "cuda_options", lambda device, stream, tf32: asked.append(tf32) or {})
        tdt.load_model(directory, device="cuda")
        tdt.load_model(directory, device="cuda", network="ort", tf32=True)
    assert asked == [False, False, False, True]  # never the decoder's graphs
