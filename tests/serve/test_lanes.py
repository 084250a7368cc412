"""The queue: batches by length and waiting time, failures and cancellations that concern one recording alone."""

from __future__ import annotations

import io
import threading
from concurrent.futures import wait

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.serve.engine import Engine
from tdtdecode.serve.job import Wish
from tdtdecode.serve.metrics import Metrics
from tdtdecode.serve.settings import Settings
from tdtdecode.speech.audio.sources import Source
from tests.demo import recordings
from tests.serve.running import HANGING


class Gate:
    """Holds the encoder until it is opened, and notes the rows and frames of each of its calls."""

    def __init__(self, model, monkeypatch):
        self.open, self.reached, self.calls = threading.Event(), threading.Event(), []
        encoder = model.encoder

        class Held(type(encoder)):
            def launched(inner, features, lengths):
                self.calls.append(features.shape)
                self.reached.set()
                assert self.open.wait(HANGING)
                if (features == 0).all():
                    raise RuntimeError("a recording of silence")
                return super().launched(features, lengths)

        monkeypatch.setattr(encoder, "__class__", Held)


@pytest.fixture
def fresh():
    return tdt.load_model("demo")


@pytest.fixture
def engine(fresh):
    made = Engine(fresh, Settings(batch_wait=0.0), Metrics())
    yield made
    made.close()


def submitted(engine, samples, wish=Wish(), size=0):
    job = engine.job((samples, 16_000), size, wish)
    engine.begin(job)
    return job


def settled(engine, count):
    """Wait until so many recordings wait for a batch."""
    lane = engine._short
    for _ in range(100 * HANGING):
        if len(lane._waiting) == count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(lane._waiting)} recordings wait, not {count}")


def tone(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def test_what_gathers_shares_batches_of_similar_length(engine, fresh, monkeypatch):
    gate = Gate(fresh, monkeypatch)
    first = submitted(engine, tone(1))
    assert gate.reached.wait(HANGING)
    jobs = [submitted(engine, tone(seconds, i)) for i, seconds in enumerate((1.0, 12.0, 1.1, 0.9, 12.1, 1.05))]
    settled(engine, 6)
    gate.open.set()
    wait([job.future for job in (first, *jobs)], HANGING)
    assert all(job.future.result().duration for job in jobs)
    rows = [shape[0] for shape in gate.calls]
    assert rows[:2] == [1, 4], "the short ones share a batch, which comes first as one of them has waited longest"
    assert sum(rows) == 7


def test_results_do_not_depend_on_the_batch(engine, fresh):
    samples = [one for one, _ in recordings().values()]
    expected = [fresh.recognize((one, 16_000)) for one in samples]
    jobs = [submitted(engine, one) for one in samples]
    for job, one in zip(jobs, expected, strict=True):
        found = job.future.result(HANGING)
        assert (found.text, found.words) == (one.text, one.words)


def test_a_bad_recording_fails_alone(engine, fresh, monkeypatch):
    """A call fails that has it among others; then each goes alone."""
    gate = Gate(fresh, monkeypatch)
    first = submitted(engine, tone(1))
    assert gate.reached.wait(HANGING)
    good, broken = [submitted(engine, tone(1, i)) for i in range(3)], submitted(engine, tone(1, 9))
    settled(engine, 4)
    encode = type(broken.stages).encode

    def failing(stages, pieces):
        if any(piece in broken.heard.pieces for piece in pieces):
            raise RuntimeError("this one")
        return encode(stages, pieces)

    monkeypatch.setattr(type(broken.stages), "encode", failing)
    gate.open.set()
    assert [job.future.result(HANGING).duration for job in (first, *good)] == [1.0] * 4
    with pytest.raises(RuntimeError, match="this one"):
        broken.future.result(HANGING)


def test_a_cancelled_recording_leaves_the_queue(engine, fresh, monkeypatch):
    gate = Gate(fresh, monkeypatch)
    first = submitted(engine, tone(1))
    assert gate.reached.wait(HANGING)
    left, stays = submitted(engine, tone(1, 1)), submitted(engine, tone(1, 2))
    settled(engine, 2)
    left.cancel()
    gate.open.set()
    assert stays.future.result(HANGING).duration == first.future.result(HANGING).duration == 1.0
    assert left.future.cancelled() and sum(shape[0] for shape in gate.calls) == 2


def test_long_recordings_have_a_thread_of_their_own(engine, fresh, monkeypatch):
    """A long recording is held in the encoder; short ones are answered meanwhile."""
    held, reached = threading.Event(), threading.Event()
    encoder = fresh.encoder

    class Held(type(encoder)):
        def __call__(inner, features, lengths):
            if features.shape[2] > 2500:
                reached.set()
                assert held.wait(HANGING)
            return super().__call__(features, lengths)

    monkeypatch.setattr(encoder, "__class__", Held)
    for size in (0, 9 << 20):  # read by a reader, and by the lane itself
        held.clear(), reached.clear()
        long = submitted(engine, tone(45), size=size)
        assert reached.wait(HANGING)
        assert submitted(engine, tone(1)).future.result(HANGING).duration == 1.0
        assert not long.future.done()
        held.set()
        assert long.future.result(HANGING).duration == 45.0


def test_a_large_upload_of_a_short_recording_joins_the_batches(engine, fresh):
    samples, text = next(iter(recordings().values()))
    job = submitted(engine, samples, size=9 << 20)
    assert job.future.result(HANGING).text == fresh.recognize((samples, 16_000)).text


def test_a_long_recording_is_cancelled_between_its_steps(fresh):
    fresh._max_input_frames = 500
    engine = Engine(fresh, Settings(), Metrics())
    steps = []
    job = engine.job((tone(60), 16_000), 0, Wish(), lambda text: steps.append(text) or job.cancel())
    engine.begin(job)
    engine.close()
    assert job.future.cancelled() and len(steps) == 1


@pytest.mark.parametrize("size", [0, 9 << 20], ids=["read before", "read in the long lane"])
def test_uploads_are_closed_however_they_end(engine, fresh, monkeypatch, speech, size):
    gate = Gate(fresh, monkeypatch)
    hold = submitted(engine, tone(40))  # the long lane is busy until the gate opens
    assert gate.reached.wait(HANGING)
    uploads = {"good": io.BytesIO(speech), "broken": io.BytesIO(b"no audio"), "cancelled": io.BytesIO(speech)}
    jobs = {name: engine.job(Source(name, upload), size, Wish()) for name, upload in uploads.items()}
    jobs["cancelled"].cancel()
    for job in jobs.values():
        engine.begin(job)
    gate.open.set()
    assert jobs["good"].future.result(HANGING).text == fresh.recognize(speech).text
    assert isinstance(jobs["broken"].future.exception(HANGING), tdt.InputError)
    hold.cancel()
    engine.close()
    assert all(upload.closed for upload in uploads.values())


def test_too_long_a_recording_is_refused_while_it_is_read(fresh):
    engine = Engine(fresh, Settings(max_seconds=2.0), Metrics())
    for size in (0, 9 << 20):
        with pytest.raises(tdt.InputError, match="longer than 2 s"):
            submitted(engine, tone(3), size=size).future.result(HANGING)
    assert submitted(engine, tone(2)).future.result(HANGING).duration == 2.0
    engine.close()


def test_closing_finishes_what_waits(fresh):
    engine = Engine(fresh, Settings(), Metrics())
    jobs = [submitted(engine, tone(seconds, i)) for i, seconds in enumerate((1, 1, 40, 2, 2))]
    engine.close()
    assert [job.future.result(0).duration for job in jobs] == [1, 1, 40, 2, 2]


def test_phrases_of_each_recording_alone(engine, fresh, monkeypatch):
    """Recordings with phrases are decoded in one call, each with its own; the others without."""
    gate = Gate(fresh, monkeypatch)
    seen = []
    decode = fresh.decoder.decode

    def noted(encoder_out, lengths=None, search=None):
        seen.append([list(own) for own in search.fusion[0].phrases] if search.fusion else None)
        return decode(encoder_out, lengths, search)

    monkeypatch.setattr(fresh.decoder, "decode", noted)
    first = submitted(engine, tone(1))
    assert gate.reached.wait(HANGING)
    wishes = [Wish(), Wish(phrases=("set a",)), Wish(phrases=("timer", "ten")), Wish()]
    jobs = [submitted(engine, tone(1, i), wish) for i, wish in enumerate(wishes)]
    settled(engine, 4)
    gate.open.set()
    wait([job.future for job in (first, *jobs)], HANGING)
    assert [job.future.exception() for job in jobs] == [None] * 4
    *plain, phrases = seen
    assert plain == [None, None] and sorted(phrases) == [["set a"], ["timer", "ten"]], "features end in any order"
