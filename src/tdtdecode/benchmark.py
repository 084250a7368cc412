"""How fast decoding is on this machine, and how fast it could be."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .decoder import Decoder
from .networks.fused import FusedProgram
from .networks.packing import aligned


def alternate(runs: int, functions: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each function's runs, taken in turn after one warm-up each, so that drift hits all alike."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def stream_bandwidth(isa: str, nbytes: int, threads: int, repeats: int = 10) -> float:
    """Bytes per second that this machine reads from a buffer of `nbytes`, again and again: caches count, as they do for
    weights of that size.
    """
    from .networks._fused import read_seconds

    memory = aligned(np.ones(max(nbytes, 4096 * threads), np.uint8))
    return len(memory) // 4096 * 4096 / read_seconds(isa, memory, threads, repeats)


def floor_seconds(decoder: Decoder, tokens: int, bandwidth: float) -> float | None:
    """The time that reading weights takes for one utterance, at least; None for networks whose bytes are not known.

    ``(tokens * bytes per token + bytes per decode) / bandwidth``: every emitted token needs all layers, the prediction
    and the joint's output; the encoder's projection is needed once.
    """
    program = decoder.program
    if not isinstance(program, FusedProgram):
        return None
    return (tokens * program.packed.token_bytes + program.packed.decode_bytes) / bandwidth


def random_encoder_out(batch: int, encoder_size: int, frames: int, seed: int = 0) -> np.ndarray:
    """Encoder output float32 [B, E, T] of unit variance, frames correlated by 0.6 as those of speech are."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames, batch, encoder_size), dtype=np.float32)
    out = np.empty((batch, encoder_size, frames), np.float32)
    last = np.zeros((batch, encoder_size), np.float32)
    for t in range(frames):
        last = noise[t] if t == 0 else np.float32(0.6) * last + np.float32(0.8) * noise[t]
        out[:, :, t] = last
    return out


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, least and most."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
