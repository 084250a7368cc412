"""Opening ONNX Runtime sessions: default options, sessions on CUDA, and sessions that survive a fork."""

from __future__ import annotations

import ctypes
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .arguments import as_instance, as_tuple, listed, refusal
from .bundle.onnx_files.dependencies import import_onnxruntime
from .errors import DeviceError, MissingDependencyError, SlowerWarning
from .reprs import joined_names

if TYPE_CHECKING:
    import onnxruntime as ort

CPU_PROVIDERS = ("CPUExecutionProvider",)
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA = "cuda"
"""ONNX Runtime's name for the device of the CUDA provider."""


def check_session_arguments(session_options: Any, providers: Any) -> None:
    """Raise an InputError unless these are ONNX Runtime's session options and its providers; None is neither.

    ONNX Runtime itself only warns of a provider that it does not have, and takes the CPU.
    """
    if session_options is not None:
        kind = import_onnxruntime().SessionOptions
        as_instance("session_options", session_options, kind, "onnxruntime.SessionOptions() or None")
    if providers is None:
        return
    available = import_onnxruntime().get_available_providers()
    for i, provider in enumerate(as_tuple("providers", providers, f"a list, such as {[CPU_PROVIDERS[0]]}")):
        name, options = provider if isinstance(provider, tuple) and len(provider) == 2 else (provider, {})
        if not isinstance(name, str) or not isinstance(options, dict):
            raise refusal(f"providers[{i}]", "the name of an execution provider, or (name, options)", provider)
        if name not in available:
            raise refusal(f"providers[{i}]", f"a provider of this ONNX Runtime, {listed(available)}", name)


def _warn_of_lost(providers: Sequence[Any], session: ort.InferenceSession, name: str) -> None:
    """Say if ONNX Runtime has left out a provider that was asked for, because a library of it is missing."""
    asked = [provider[0] if isinstance(provider, tuple) else provider for provider in providers]
    used = session.get_providers()
    if lost := [name for name in asked if name not in used]:
        warnings.warn(
            f"{name}: ONNX Runtime cannot use {joined_names(lost)} and runs it with {joined_names(used)}",
            SlowerWarning, stacklevel=2,
        )  # fmt: skip


def cuda_options(device: int, stream: int, tf32: bool) -> dict[str, Any]:
    """The options of the CUDA provider, for a device's number and the address of a stream.

    ``tf32``: whether products of float32 are rounded to TF32, 10 bits, as ONNX Runtime does unless it is told not to.
    Tokens are then not always those of the CPU.
    """
    return {
        "device_id": device,
        "user_compute_stream": str(stream),
        "use_tf32": str(int(tf32)),
        # By default every convolution is tried with all algorithms for each new shape, and nearly every batch has one.
        "cudnn_conv_algo_search": "HEURISTIC",
        # By default the arena doubles. The memory that it takes then is missing in CuPy's pool.
        "arena_extend_strategy": "kSameAsRequested",
    }


def default_options(threads: int | None) -> ort.SessionOptions:
    """Session options for CPU sessions. `threads` is the number of threads per operator; None means one per core."""
    options = import_onnxruntime().SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # For each set of shapes ever seen, ONNX Runtime would keep a plan of memory: 24 KB for each length of recording.
    options.enable_mem_pattern = False
    # Waiting threads sleep. On busy cores, spinning would cost several times as much as the work itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def cuda_session(
    open_session: Callable[[list[Any]], ort.InferenceSession],
    device: int,
    stream: int,
    purpose: str,
    tf32: bool = False,
) -> ort.InferenceSession:
    """Open a session that runs its graph on a CUDA device, on a given stream.

    Parameters
    ----------
    open_session:
        Opens the session with a list of providers.
    device:
        The device's number.
    stream:
        The stream's address. It must not be the default stream.
    purpose:
        What the session is for, for messages.
    tf32:
        Whether products of float32 may be rounded to TF32.

    Raises
    ------
    MissingDependencyError
        If this ONNX Runtime has no CUDA provider.
    DeviceError
        If the provider is installed, but cannot be used.
    """
    runtime = import_onnxruntime()
    if CUDA_PROVIDER not in runtime.get_available_providers():
        raise MissingDependencyError("onnxruntime-gpu", "gpu", f"{purpose} on cuda (onnxruntime's {CUDA_PROVIDER})")
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # loads the cuDNN and CUDA libraries that are installed as wheels, or with PyTorch
    session = open_session([(CUDA_PROVIDER, cuda_options(device, stream, tf32))])
    if CUDA_PROVIDER not in session.get_providers():
        # ONNX Runtime uses the CPU without an error if it cannot load the provider.
        raise DeviceError(
            f"{purpose} on cuda: onnxruntime cannot load its {CUDA_PROVIDER}, because cuDNN or CUDA is missing or has "
            "another version: pip install 'tdtdecode[gpu]', or use device='cpu'"
        )
    return session


def quantized_refusal(file: os.PathLike[str], instead: str) -> str:
    """The message that a quantised graph cannot run on a GPU. `instead` is what to use."""
    return f"{file} is quantised to int8, which onnxruntime's CUDA provider does not compute: use {instead}"


class ForkSafeSession:
    """A session that can be used after a fork.

    A session's threads do not exist in a forked child process. So the child opens a session of its own.

    Parameters
    ----------
    open_session:
        Opens the session. It is called at once, and in each child process on first use.
    providers:
        The providers that it opens the session with.
    name:
        What the session runs, for messages.
    """

    def __init__(
        self, open_session: Callable[[], ort.InferenceSession], providers: Sequence[Any] = (), name: str = ""
    ):
        self._open_session = open_session
        self._open()
        if providers:
            _warn_of_lost(providers, self._session, name)

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
    """Keep inherited sessions open: closing one would wait forever for threads that do not exist in this process."""
    for session in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited_sessions)
