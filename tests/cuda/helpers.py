"""Where the GPU's tests run: on a card that the host emulates, and on a real card if there is one."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import pytest

from tests.host_cuda import emulated_cupy

LAUNCHES = {"persistent": {}, "flags": {"barrier": "flags"}, "phases": {"persistent": False}}
"""How a fused decode can be launched: the whole loop at once with either kind of barrier, or phase by phase."""


@lru_cache(maxsize=None)
def missing_card() -> str | None:
    """Why there is no card to test on; None if there is one."""
    try:
        import cupy
    except ImportError as error:
        return f"no card: CuPy is not installed ({error})"
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no card: CUDA sees none"
    except Exception as error:
        return f"no card: {error}"


@lru_cache(maxsize=None)
def missing_provider() -> str | None:
    """Why ONNX Runtime cannot run graphs on a card; None if it can."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime-gpu is not installed"
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return "onnxruntime-gpu is not installed: this onnxruntime has no CUDAExecutionProvider"


CARDS = ["emulated", pytest.param("card", marks=pytest.mark.card)]
PROVIDER_CARDS = ["emulated", pytest.param("card", marks=pytest.mark.card(provider=True))]
"""`CARDS` for tests in which ONNX Runtime runs a graph on the card: an encoder or a network."""


@contextmanager
def emulated(**device):
    """Within it an emulated card takes CuPy's place, and ONNX Runtime's CPU provider that of its CUDA provider."""
    from tdtdecode import sessions
    from tdtdecode.networks.cuda import graphs
    from tdtdecode.speech import encoder

    with ExitStack() as stack:
        cupy = stack.enter_context(emulated_cupy.installed(**device))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sessions, "CUDA_PROVIDER", "CPUExecutionProvider")
        patch.setattr(sessions, "cuda_options", lambda device, stream, tf32: {})
        for module in (sessions, graphs, encoder):
            patch.setattr(module, "CUDA", "cpu")
        yield cupy


@contextmanager
def on(card: str, **device):
    """Within it the package uses that card, ``"emulated"`` or ``"card"``. Yields the module cupy."""
    if card == "emulated":
        with emulated(**device) as cupy:
            yield cupy
    else:
        import cupy

        if os.environ.get("TDTDECODE_TEST_POOLS") == "0":  # a pool hides what lies beyond an array's end
            cupy.cuda.set_allocator(None)
            cupy.cuda.set_pinned_memory_allocator(None)
        yield cupy


def is_emulated(cupy) -> bool:
    """Whether this module is the emulation's CuPy."""
    return cupy.ndarray is emulated_cupy.ndarray


@pytest.fixture(params=CARDS)
def cupy(request):
    """CuPy on the emulated card, or on a real one."""
    with on(request.param) as module:
        yield module


def launch(**options):
    """The `Launch` that suits the current card, with these options changed."""
    from dataclasses import replace

    from tdtdecode.cuda.device import current_device
    from tdtdecode.networks.cuda.program import Launch

    return replace(Launch.of(current_device()), **options)
