"""ONNX Runtime sessions: our default options, and what happens to a session in a forked process."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .bundle.onnx_files.dependencies import import_onnxruntime
from .errors import DeviceError, MissingDependencyError

if TYPE_CHECKING:
    import onnxruntime as ort

CPU_PROVIDERS = ("CPUExecutionProvider",)
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA = "cuda"
"""What ONNX Runtime calls the device of that provider."""


def cuda_options(device: int, stream: int) -> dict[str, Any]:
    """What the CUDA provider is told."""
    return {"device_id": device, "user_compute_stream": str(stream)}


def default_options(threads: int | None) -> ort.SessionOptions:
    """Session options for that many threads within an operator; None: as many as there are cores."""
    options = import_onnxruntime().SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A plan of memory for each set of shapes ever seen would be kept for good: 24 KB for each length of recording.
    options.enable_mem_pattern = False
    # Waiting threads sleep: on busy cores spinning costs several times the work itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def cuda_session(
    open_session: Callable[[list[Any]], ort.InferenceSession], device: int, stream: int, purpose: str
) -> ort.InferenceSession:
    """A session whose graph runs on a CUDA device and on that stream.

    Parameters
    ----------
    open_session:
        Opens the session with a list of providers.
    device, stream:
        The device's number; the stream's address, which is not the default stream's.
    purpose:
        What the session is for, for messages.

    Raises
    ------
    MissingDependencyError
        If this ONNX Runtime has no CUDA provider.
    DeviceError
        If the provider is there and cannot be used.
    """
    runtime = import_onnxruntime()
    if CUDA_PROVIDER not in runtime.get_available_providers():
        raise MissingDependencyError("onnxruntime-gpu", "gpu", f"{purpose} on cuda (onnxruntime's {CUDA_PROVIDER})")
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # cuDNN and CUDA, as the wheels of CuPy or PyTorch bring them
    session = open_session([(CUDA_PROVIDER, cuda_options(device, stream))])
    if CUDA_PROVIDER not in session.get_providers():
        # ONNX Runtime goes on with the CPU where it cannot load the provider.
        raise DeviceError(
            f"{purpose} on cuda: onnxruntime cannot load its {CUDA_PROVIDER} (cuDNN or CUDA is missing or of another "
            "version: pip install 'tdtdecode[gpu]'); use device='cpu'"
        )
    return session


def quantized_refusal(file: os.PathLike[str], instead: str) -> str:
    """Why a quantised graph is not run on a GPU, and what to use."""
    return f"{file} is quantised to int8, which onnxruntime's CUDA provider does not compute: use {instead}"


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
