"""Locks and values computed once, in processes that fork beside threads."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import random
import re
import signal
import threading
from pathlib import Path

import pytest

import tdtdecode
from tdtdecode.forks import Lock, cached_property

_NO_FORKS = {"networks/cuda/ort.py"}
"""A context of CUDA cannot be used after a fork."""
_HELD_ACROSS_FORKS = {"speech/audio/decoders.py"}

_NEVER_FORKS = {"serve/lane.py", "serve/state.py"}
"""The server's process."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def status_of_child(work) -> int:
    """Fork, do the work in the child, and kill it if it takes more than a minute."""
    gc.collect()  # sessions of peers that the child would collect; see in_fork
    child = os.fork()
    if child == 0:
        timer = threading.Timer(60, os._exit, [9])
        timer.daemon = True
        timer.start()
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Slow:
    def __init__(self):
        self.entered, self.go_on, self.computed = threading.Event(), threading.Event(), 0
        self.waits = True

    @cached_property
    def value(self) -> int:
        self.computed += 1
        if self.waits:
            self.entered.set()
            self.go_on.wait(60)
        return 7


@needs_fork
def test_a_lock_held_by_another_thread_is_free_in_the_child():
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold():
        with lock.held:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)

    def take():
        with lock.held:
            pass

    try:
        assert status_of_child(take) == 0
    finally:
        done.set()
        thread.join()


@needs_fork
def test_a_value_that_another_thread_computes_can_be_computed_in_the_child():
    one, other = Slow(), Slow()
    thread = threading.Thread(target=lambda: one.value)
    thread.start()
    one.entered.wait(60)
    other.waits = False

    def compute():
        os._exit(0 if other.value == 7 else 1)

    try:
        assert status_of_child(compute) == 0
        assert other.value == 7, "one object's value waits for another's"
    finally:
        one.go_on.set()
        thread.join()


def test_a_value_is_computed_once():
    one = Slow()
    one.waits = False
    assert (one.value, one.value, one.computed) == (7, 7, 1)
    assert isinstance(Slow.value, cached_property)


def test_locks_exclude_and_are_copied_as_new_ones():
    lock = Lock()
    with lock.held:
        for other in (pickle.loads(pickle.dumps(lock)), copy.deepcopy(lock)):
            with other.held:
                pass
        entered = threading.Event()

        def enter():
            with lock.held:
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.05)
    thread.join(60)
    assert entered.is_set()


class _Interrupt(BaseException):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_an_interrupt_at_any_moment_leaves_a_lock_free():
    def interrupt(number, frame):
        raise _Interrupt

    lock, rng = Lock(), random.Random(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            with pytest.raises(_Interrupt):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1e-3))
                while True:
                    with lock.held:
                        pass
            assert not lock.held.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_no_other_locks_are_held_where_a_fork_may_happen():
    """What a fork would leave locked stands in `forks`, or is held across forks on purpose."""
    package = Path(tdtdecode.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bR?Lock\(\)|Condition\(|Semaphore\(|import cached_property", text := path.read_text())
        and re.search(r"threading\.|from functools import.*cached_property", text)
    }
    assert found - {"forks.py"} == _NO_FORKS | _HELD_ACROSS_FORKS | _NEVER_FORKS
