"""A long life in one process: threads, forks, cancelled work, thousands of lengths. Results and memory stay the same.

With ``-s`` the memory's curve is printed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import tdtdecode as tdt  # noqa: E402
from tests.conftest import in_fork  # noqa: E402

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from Linux's /proc"),
]

RATE = 16_000
LENGTHS = 2_000
FLAT = 3 << 20
"""Bytes by which the memory may differ between the middle and the end: what an allocator moves about."""


@pytest.fixture(scope="module")
def model():
    return tdt.load_model("demo", threads=2)


@pytest.fixture(scope="module")
def speech():
    """40 s of the demo's own recording, over and over."""
    soundfile = pytest.importorskip("soundfile")
    samples, rate = soundfile.read(os.path.join(os.path.dirname(tdt.__file__), "demo", "speech.flac"), dtype="float32")
    assert rate == RATE
    return np.resize(samples, 40 * RATE)


@pytest.fixture(scope="module")
def searches():
    boost = tdt.PhraseBoost(["new york", "friday"], 0.5)
    return [tdt.Greedy(), tdt.Beam(), tdt.Greedy(fusion=[boost]), tdt.Beam(strategy="malsd", fusion=[boost])]


def random_frames(model, batch, frames):
    size = model.decoder.network.weights.encoder.weight.shape[1]
    return np.random.default_rng(0).standard_normal((batch, size, frames)).astype(np.float32)


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check_flat(name, work, count, before=9):
    """Do work for 0, 1, ..., and see that the second half takes no more memory than the end of the first.

    That is its last twentieth, or all from ``before`` on.
    """
    curve = []
    for i in range(count):
        work(i)
        if i % (count // 20) == count // 20 - 1:
            curve.append(memory())
    print(f"\n{name}: MiB after each twentieth of {count}:", *(f"{bytes / 2**20:.1f}" for bytes in curve))
    assert max(curve[10:]) - max(curve[before:10]) < FLAT, f"{name}: {curve}"


def test_recordings_of_many_lengths(model, speech, searches):
    """The longest comes first, so that every buffer has its size."""
    lengths = np.linspace(40 * RATE, RATE // 2, LENGTHS).astype(int)
    assert len(set(lengths)) == LENGTHS
    np.random.default_rng(0).shuffle(lengths[1:])

    def work(i):
        assert model.recognize((speech[: lengths[i]], RATE), search=searches[i % len(searches)]).duration > 0

    check_flat("Recognizer", work, LENGTHS)


def test_one_call_for_recordings_of_many_lengths(model, speech):
    """The longest come first, so that batches of every kind have been there by the middle."""
    lengths = np.linspace(40 * RATE, RATE // 2, LENGTHS).astype(int)
    np.random.default_rng(0).shuffle(lengths[20:])
    results = model.recognize_each((speech[:length], RATE) for length in lengths)

    def work(i):
        assert next(results).duration == lengths[i] / RATE

    check_flat("recognize_each", work, LENGTHS, before=0)  # what is under way changes
    assert next(results, None) is None


def test_batches_of_many_sizes(model, searches):
    frames = random_frames(model, 16, 125)

    def work(i):
        batch, count = 1 + (15 - i) % 16, 125 - i // 16
        found = model.decoder.decode(frames[:batch, :, :count], search=searches[i % len(searches)])
        assert len(found) == batch

    check_flat("Decoder", work, LENGTHS)


def test_streams_that_come_and_go(model, searches):
    frames = random_frames(model, 4, 60)

    def work(i):
        state, size = None, 7 + i % 13
        for start in range(0, 60, size):
            part = frames[:, :, start : start + size]
            _, state = model.decoder.decode_chunk(part, state=state, search=searches[i % 2])
            state = state.select(np.arange(len(state)))  # the last state is dropped, as where a stream is broken off

    check_flat("streams", work, LENGTHS // 2)


def test_ten_hours_of_live_recordings(model, speech):
    """Live streams of 30 s on average, 16 at a time, that begin, end and are broken off."""
    pool, rng = model.streams(), np.random.default_rng(0)
    starts = dict.fromkeys(range(16), 0)

    def work(i):
        for name in starts:
            if name in pool and rng.random() < 1 / 30:
                if rng.random() < 0.5:
                    assert not isinstance(pool.finish([name])[name], Exception)
                else:
                    pool.drop(name)
        pieces = {name: speech[start : start + RATE] for name, start in starts.items()}
        assert not any(isinstance(news, Exception) for news in pool.feed(pieces).values())
        starts.update((name, (start + RATE) % (len(speech) - RATE)) for name, start in starts.items())

    check_flat("live streams", work, 10 * 3600 // 16)


def recognized(model, speech, seconds, search=None):
    out = model.recognize((speech[: int(seconds * RATE)], RATE), search=search)
    return out.text, out.hypothesis.tokens.tolist(), out.hypothesis.token_logprobs.tolist()


def test_threads_and_forks(model, speech, searches):
    """Threads recognise while the main thread forks, and every child recognises too."""
    jobs = [(seconds, search) for seconds in (1.0, 2.5, 9.0, 17.3) for search in searches[:3]]
    expected = [recognized(model, speech, *job) for job in jobs]
    stop, wrong, done = threading.Event(), [], itertools.count()

    def keep_on(start):
        for i in itertools.cycle(range(start, start + len(jobs))):
            if stop.is_set():
                return
            if recognized(model, speech, *jobs[i % len(jobs)]) != expected[i % len(jobs)]:
                wrong.append(jobs[i % len(jobs)])
            next(done)

    threads = [threading.Thread(target=keep_on, args=(3 * i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for i in range(40):
            job = i % len(jobs)
            assert in_fork(partial(recognized, model, speech, *jobs[job])) == expected[job]
    finally:
        stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong and next(done) > 40


class _Cancelled(BaseException):
    """Raised in the middle of a call, as an interrupt is."""


def test_cancelled_work(model, speech, searches):
    """Calls that end at any moment, futures and tasks that nobody waits for: the next call is right."""
    expected = [recognized(model, speech, 9.0, search) for search in searches]

    def cancel(number, frame):
        raise _Cancelled

    def work(i):
        search = searches[i % len(searches)]
        signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-4, longest)))
        try:
            for _ in range(10):
                recognized(model, speech, 9.0, search)
        except _Cancelled:
            cancelled.append(i)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if i % 10 == 0:
            assert recognized(model, speech, 9.0, search) == expected[i % len(searches)]

    begin = time.perf_counter()
    recognized(model, speech, 9.0)
    longest = 2 * (time.perf_counter() - begin)
    rng, cancelled = np.random.default_rng(0), []
    before = signal.signal(signal.SIGALRM, cancel)
    try:
        check_flat("cancelled", work, 300)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(cancelled) > 100

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(recognized, model, speech, 2.5) for _ in range(100)]
        assert sum(future.cancel() for future in futures) > 50

    async def impatient():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(recognized, model, speech, 17.3), 1e-3)

    for _ in range(20):
        asyncio.run(impatient())
    assert [recognized(model, speech, 9.0, search) for search in searches] == expected
