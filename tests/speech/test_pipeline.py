"""The pipeline's stages, threads and messages, with stages of the test's own; and with a model where it must be one.

What must hold: recordings in bounded number, errors in their places, and an end at once that leaves no threads,
whatever ends the work.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

import tdtdecode as tdt  # noqa: E402
from tdtdecode.cancellation import Cancellation, Cancelled, checkpoint, interruptible  # noqa: E402
from tdtdecode.speech import pipeline  # noqa: E402
from tdtdecode.speech.pipeline import Encoded, Finished, Heard, Piece, Reached, Read, run  # noqa: E402
from tests.conftest import HANGING, in_fork  # noqa: E402


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tdtdecode-")]


@pytest.fixture(autouse=True)
def no_threads_stay():
    yield
    assert ours() == []


class Stages:
    """Recordings are numbers: their seconds. A transcript is the number as text. Some numbers fail, by stage."""

    def __init__(self, fails=(), pieces=1, at_once=2):
        self.fails, self.count, self.at_once = dict(fails), pieces, at_once
        self.batches_seen, self.encoded = [], []

    def _fail(self, stage, seconds):
        if self.fails.get(seconds) == stage:
            raise LookupError(f"{stage} {seconds}")

    def thread(self, stage):
        return contextlib.nullcontext()

    def read(self, place, audio):
        self._fail("read", audio)
        pieces = [
            Piece(place, i, np.full((1, 1), audio, np.float32), 1, audio / self.count)
            for i in range(self.count if audio else 0)
        ]
        return Heard(audio, pieces, lambda found: "+".join(found))

    def batches(self, pieces):
        self.batches_seen.append([piece.place for piece in pieces])
        return [list(pieces[i : i + self.at_once]) for i in range(0, len(pieces), self.at_once)]

    def encode(self, pieces):
        self.encoded.append([piece.place for piece in pieces])
        for piece in pieces:
            self._fail("encode", piece.features[0, 0])
        yield Encoded(pieces, None)

    def decode(self, encoded, reached):
        for piece in encoded.pieces:
            self._fail("decode", piece.features[0, 0])
            reached(piece.place, piece.seconds)
        return [f"{piece.features[0, 0]:g}" for piece in encoded.pieces]


def results(stages, recordings, **options):
    news = list(run(stages, enumerate(recordings), **options))
    finished = {one.place: one.result for one in news if isinstance(one, Finished)}
    assert len(finished) == sum(isinstance(one, Finished) for one in news)
    return [finished[place] for place in sorted(finished)]


@pytest.mark.parametrize("pieces", [1, 3])
def test_everything_is_finished_once(pieces):
    numbers = [3, 1, 0, 4, 1, 5, 9, 2, 6] * 10
    found = results(Stages(pieces=pieces), numbers)
    assert found == ["+".join([str(n)] * pieces) if n else "" for n in numbers]
    assert results(Stages(), []) == []


def test_news_come_in_their_order():
    news = list(run(Stages(), enumerate([5, 6])))
    for place in (0, 1):
        kinds = [type(one) for one in news if one.place == place]
        assert kinds == [Read, Reached, Finished]


@pytest.mark.parametrize("stage", ["read", "encode", "decode"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_failure_takes_no_other_along(stage, pieces):
    numbers = [1, 2, 3, 4, 5, 6, 7]
    found = results(Stages({4: stage}, pieces, at_once=3), numbers)
    assert isinstance(found.pop(3), LookupError)
    assert found == ["+".join([str(n)] * pieces) for n in (1, 2, 3, 5, 6, 7)]


def test_a_transcript_that_cannot_be_made_is_a_failure():
    class Bad(Stages):
        def read(self, place, audio):
            heard = super().read(place, audio)
            return heard if audio != 2 else Heard(audio, heard.pieces, lambda found: 1 / 0)

    one, two, three = results(Bad(), [1, 2, 3])
    assert (one, three) == ("1", "3") and isinstance(two, ZeroDivisionError)


def test_what_is_no_recording_comes_as_its_error():
    found = results(Stages(), [1, ValueError("no"), 3])
    assert (found[0], found[2]) == ("1", "3") and str(found[1]) == "no"


@pytest.mark.parametrize("seconds", [1, 7, 100, 1000])
def test_what_is_under_way_is_bounded(seconds):
    """As long as nothing is finished, no more is taken; and then only as much as was finished."""
    going_on, taken, most = threading.Event(), 0, []

    class Slow(Stages):
        def decode(self, encoded, reached):
            going_on.wait(HANGING)
            return super().decode(encoded, reached)

    def endless():
        nonlocal taken
        for place in itertools.count():
            taken += 1
            yield place, seconds

    news = run(Slow(), endless(), ahead_seconds=300)
    finished = 0
    timer = threading.Timer(0.5, going_on.set)
    timer.start()
    for one in news:
        if isinstance(one, Finished):
            finished += 1
            most.append(taken - finished)
        if finished > 400:
            break
    news.close()
    assert max(most) * seconds <= 300 + seconds * pipeline.READERS


def test_the_encoder_chooses_from_all_there_is():
    stages = Stages()
    results(stages, [1] * 40)
    assert stages.batches_seen[0] == list(range(40))


def test_the_first_batches_do_not_wait_for_everything(monkeypatch):
    """The encoder begins when there is some audio, while the rest is being read."""
    encoding = threading.Event()

    class Watched(Stages):
        def encode(self, pieces):
            encoding.set()
            return super().encode(pieces)

    def recordings():
        for place in range(100):
            if place == 90:
                assert encoding.wait(HANGING)
            yield place, 1

    assert sum(isinstance(one, Finished) for one in run(Watched(), recordings())) == 100


def test_an_iterable_that_waits_does_not_hold_back_the_encoder(monkeypatch):
    monkeypatch.setattr(pipeline, "_PATIENCE", 0.01)
    stages = Stages()

    def recordings():
        yield 0, 1
        until = time.monotonic() + HANGING
        while not stages.encoded and time.monotonic() < until:
            time.sleep(0.01)
        yield 1, 2

    assert sum(isinstance(one, Finished) for one in run(stages, recordings())) == 2
    assert stages.encoded == [[0], [1]]


def test_the_iterable_is_used_in_the_callers_thread_and_its_error_comes_last():
    threads = set()

    def recordings():
        threads.add(threading.current_thread())
        yield 0, 1
        yield 1, 2
        threads.add(threading.current_thread())
        raise LookupError("the list ends here")

    done = []
    with pytest.raises(LookupError, match="the list ends here"):
        for one in run(Stages(), recordings()):
            done += [one.result] if isinstance(one, Finished) else []
    assert done == ["1", "2"] and threads == {threading.current_thread()}


class Endless(Stages):
    """Stages that work for ever, and look whether they should end as long work does."""

    def __init__(self, stage):
        super().__init__()
        self.working = threading.Event()
        self.stage = stage

    def _work(self, stage):
        while self.stage == stage:
            self.working.set()
            time.sleep(0.001)
            checkpoint()

    def read(self, place, audio):
        self._work("read")
        return super().read(place, audio)

    def encode(self, pieces):
        self._work("encode")
        return super().encode(pieces)

    def decode(self, encoded, reached):
        self._work("decode")
        return super().decode(encoded, reached)


class _Stop(BaseException):
    pass


@pytest.mark.parametrize("stage", ["read", "encode", "decode"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_it_ends_at_once(stage, forgotten):
    """`no_threads_stay` looks that its threads have ended too."""
    stages = Endless(stage)
    news = run(stages, iter([(0, 1), (1, ValueError("known at once"))]))
    assert any(isinstance(one, Finished) for one in news)
    assert stages.working.wait(HANGING) and ours()
    if forgotten:
        del news
        gc.collect()
    else:
        news.close()


@pytest.mark.parametrize("stage", ["read", "encode", "decode"])
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers of POSIX")
def test_an_interrupt_ends_it_at_once(stage):
    def interrupt(number, frame):
        raise _Stop

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(_Stop):
            list(run(Endless(stage), enumerate([1, 2])))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_stage_that_breaks_ends_the_work():
    class Broken(Stages):
        def batches(self, pieces):
            raise MemoryError("no memory for lists")

    with pytest.raises(MemoryError, match="no memory for lists"):
        list(run(Broken(), enumerate([1, 2, 3])))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_cannot_go_on_with_it():
    news = run(Stages(), ((place, 1) for place in itertools.count()))
    next(news)

    def child():
        with pytest.raises(tdt.InputError, match="the process that was forked: begin anew"):
            next(news)
        return results(Stages(), [1, 2])

    assert in_fork(child) == ["1", "2"]
    assert not isinstance(next(news), Exception)
    news.close()


def endless_graph():
    """A graph that counts up to its input, which takes a run that never ends if that is large."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go"]), helper.make_node("Add", ["x_in", "one"], ["x"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x_in", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "true", "zero"], ["out"], body=body)], "graph",
        [helper.make_tensor_value_info("count", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
        [helper.make_tensor("true", TensorProto.BOOL, [], [True]),
         helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_run_of_onnx_runtime_ends(when):
    session = ort.InferenceSession(endless_graph().SerializeToString(), providers=["CPUExecutionProvider"])
    onnx.checker.check_model(endless_graph())
    cancellation, ended, began = Cancellation(), [], threading.Event()

    def work():
        with cancellation.governing():
            began.set()
            try:
                with interruptible(ort.RunOptions()) as options:
                    session.run(None, {"count": np.array(2**60)}, options)
            except Cancelled:
                ended.append(True)

    if when == "before":
        cancellation.request()
    thread = threading.Thread(target=work)
    thread.start()
    began.wait(HANGING)
    if when == "during":
        time.sleep(0.1)
        cancellation.request()
    thread.join(HANGING)
    assert ended == [True]
    with interruptible(ort.RunOptions()) as options:  # nobody governs this thread
        assert session.run(None, {"count": np.array(3)}, options)[0] == [3.0]


PROGRAM = """
import itertools, os, signal, sys, threading, time

import numpy as np

import tdtdecode as tdt

signal.signal(signal.SIGINT, signal.default_int_handler)
model = tdt.load_model("demo")
noise = np.random.default_rng(0).standard_normal(16_000 * 20).astype(np.float32)
each = model.recognize_each((noise, 16_000) for _ in itertools.count())
next(each)
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("1 / 0\n", 1)])
def test_a_program_ends_in_the_middle_of_it(end, status):
    result = subprocess.run([sys.executable, "-c", PROGRAM + end], capture_output=True, text=True, timeout=HANGING)
    assert result.returncode == status, result.stderr
    assert ("Traceback" in result.stderr) == bool(status)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_from_the_keyboard():
    program = PROGRAM + (
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    for one in each: pass\nexcept KeyboardInterrupt:\n"
        "    time.sleep(0.01); print([t.name for t in threading.enumerate()])\n"
        "print(model.recognize((noise, 16_000)).duration)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGING)
    assert (result.returncode, result.stdout, result.stderr) == (0, "['MainThread']\n20.0\n", "")
