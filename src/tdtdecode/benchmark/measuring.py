"""Timing functions in turn, and the floor: the time that reading the weights takes at least."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from ..decoder import Decoder
from ..networks.fused import FusedProgram
from ..networks.packing import aligned


def alternate(runs: int, functions: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """The seconds that each function's runs take, by name.

    Each function is called once as a warm-up. Then the functions take turns, so that a machine that becomes slower or
    faster affects them all.
    """
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
    """Bytes per second at which this machine reads a buffer of `nbytes` repeatedly.

    Caches help as much as they help with weights of that size.

    Parameters
    ----------
    isa:
        Instruction set of the reading kernel.
    """
    from ..networks._fused import read_seconds

    memory = aligned(np.ones(max(nbytes, 4096 * threads), np.uint8))
    return len(memory) // 4096 * 4096 / read_seconds(isa, memory, threads, repeats)


def floor_seconds(decoder: Decoder, tokens: int, bandwidth: float) -> float | None:
    """The seconds that reading the weights takes at least, for one utterance; None for networks other than fused.

    It is ``(tokens * bytes per token + bytes per decode) / bandwidth``. Each emitted token needs all LSTM layers, the
    predictor's projection and the joint's output. The encoder's projection is read once per utterance.

    Parameters
    ----------
    tokens:
        Number of emitted tokens.
    bandwidth:
        Bytes per second, from `stream_bandwidth`.
    """
    program = decoder.program
    if not isinstance(program, FusedProgram):
        return None
    return (tokens * program.packed.token_bytes + program.packed.decode_bytes) / bandwidth


def random_encoder_out(batch: int, encoder_size: int, frames: int, seed: int = 0) -> np.ndarray:
    """Random encoder output, float32 [B, E, T], of unit variance.

    Neighbouring frames have a correlation of 0.6, similar to those of speech. Utterance i is the same in every batch.
    """
    out = np.empty((batch, encoder_size, frames), np.float32)
    for i in range(batch):
        noise = np.random.default_rng([seed, i]).standard_normal((frames, encoder_size), dtype=np.float32)
        for t in range(1, frames):
            noise[t] = np.float32(0.6) * noise[t - 1] + np.float32(0.8) * noise[t]
        out[i] = noise.T
    return out


def summary(seconds: list[float]) -> dict[str, float]:
    """The median, the minimum and maximum, and the 10th and 90th percentile of some times.

    Percentiles that lie between two times are interpolated.
    """
    p10, median, p90 = np.percentile(seconds, (10, 50, 90)).tolist()
    return {"median": median, "min": min(seconds), "max": max(seconds), "p10": p10, "p90": p90}
