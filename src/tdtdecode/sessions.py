"""ONNX Runtime sessions: our default options, and what happens to a session in a forked process."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .bundle.graph import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime as ort

CPU_PROVIDERS = ("CPUExecutionProvider",)


def default_options(threads: int | None) -> ort.SessionOptions:
    """Session options for that many threads within an operator; None: as many as there are cores."""
    options = import_onnxruntime().SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads sleep: on busy cores spinning costs several times the work itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class ForkSafeSession:
    """A session whose threads do not survive a fork, so that a child process opens its own.

    Parameters
    ----------
    open_session:
        Opens the session; called at once, and again in a child process on first use.
    """

    def __init__(self, open_session: Callable[[], ort.InferenceSession]):
        self._open_session = open_session
        self._open()

    @property
    def current(self) -> ort.InferenceSession:
        """This process's session."""
        if self._process != os.getpid():
            self._open()
        return self._session

    def _open(self) -> None:
        self._session, self._process = self._open_session(), os.getpid()
        _sessions.add(self._session)


_sessions: weakref.WeakSet[ort.InferenceSession] = weakref.WeakSet()


def _keep_inherited_sessions() -> None:
    """Closing an inherited session would wait for threads that are not in this process: it is never closed."""
    for session in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited_sessions)
