"""Comparing the decoders of a model on this machine: how fast they are, how fast they could be, how they differ."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .bundle import Bundle
from .decoder import Decoder
from .errors import BundleError, InputError
from .evaluation import edit_distance
from .hypothesis import Hypothesis
from .networks.fused import PRECISIONS, FusedProgram
from .networks.packing import aligned


def compare_decoders(
    bundle: Bundle,
    encoder_out: np.ndarray,
    lengths: np.ndarray,
    network: str | None = None,
    precision: str | None = None,
    kernels: str = "auto",
    threads: int = 1,
    runs: int = 7,
    speech: Callable[[Decoder], list[Hypothesis]] | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Measure greedy decoding of the same encoder output by several networks and precisions.

    Parameters
    ----------
    encoder_out, lengths:
        As for `Decoder.decode`: [B, E, T] and [B].
    network:
        ``"fused"`` or ``"ort"``; None for both.
    precision:
        The precision of the fused network; None for each. The graphs that ``"ort"`` runs have no other precision than
        their own, which is called float32 here.
    kernels, threads:
        As for `Decoder.from_bundle`.
    runs:
        How often each decoder is timed, after one run as a warm-up.
    speech:
        Decodes some speech, to count the edits; None: they are not counted. On random encoder output decisions are
        close, so that far more of them differ than on speech.

    Returns
    -------
    The figures of each decoder by its name, such as ``"fused int8"``. The first decoder is the most exact. Then the
    reason why each of the other decoders cannot be used, by its name. The figures are:

    - ``tokens``: number of emitted tokens.
    - ``differing_tokens``: edits between the tokens on speech and the first decoder's; ``compared_tokens``: the number
      of the first decoder's tokens on speech. Both are missing without ``speech``.
    - ``kernels``: name of the kernel set.
    - ``median``, ``min``, ``max``: seconds per run.
    - ``times_real_time``: seconds of audio decoded per second; ``us_per_token``: microseconds per token, if any.
    - ``bytes_per_token``, ``stream_bandwidth`` (bytes per second), ``floor_fraction`` (`floor_seconds` divided by the
      median, for one utterance): for the fused network on the CPU.

    Raises
    ------
    InputError
        If no decoder can be used, or the encoder output is wrong.
    """
    decoders, refused = _decoders(bundle, network, precision, kernels, threads)
    hypotheses: dict[str, list[Hypothesis]] = {}
    for name, decoder in decoders.items():
        try:
            hypotheses[name] = decoder.decode(encoder_out, lengths)
        except InputError as error:  # some kernel sets lack some precisions
            refused[name] = str(error)
    if not hypotheses:
        raise InputError("; ".join(dict.fromkeys(refused.values())))
    seconds = alternate(runs, {name: partial(decoders[name].decode, encoder_out, lengths) for name in hypotheses})
    audio_seconds = int(np.sum(lengths)) * bundle.frame_seconds
    spoken = {} if speech is None else {name: speech(decoders[name]) for name in hypotheses}
    reference = next(iter(spoken.values()), [])
    figures = {}
    for name, found in hypotheses.items():
        entry = _speed(decoders[name], sum(map(len, found)), len(lengths), seconds[name], audio_seconds, threads)
        if spoken:
            entry["differing_tokens"] = sum(map(_edits, reference, spoken[name]))
            entry["compared_tokens"] = sum(map(len, reference))
        figures[name] = entry
    return figures, refused


def _decoders(
    bundle: Bundle, network: str | None, precision: str | None, kernels: str, threads: int
) -> tuple[dict[str, Decoder], dict[str, str]]:
    """The decoders that can be made, by name, the most exact first; and why the others cannot be made."""
    candidates = []
    if network != "ort":
        candidates = [(f"fused {p}", "fused", p) for p in ([precision] if precision else PRECISIONS)]
    if network == "ort" or (network is None and precision in (None, "float32")):
        candidates.append(("ort", "ort", precision or "float32"))
    decoders, refused = {}, {}
    for name, kind, arithmetic in candidates:
        try:
            decoders[name] = Decoder.from_bundle(
                bundle, network=kind, precision=arithmetic, kernels=kernels, threads=threads
            )
        except (BundleError, InputError) as error:
            refused[name] = str(error)
    return decoders, refused


def _speed(
    decoder: Decoder, tokens: int, utterances: int, seconds: list[float], audio_seconds: float, threads: int
) -> dict[str, Any]:
    """The figures of one decoder, as `compare_decoders` describes them."""
    entry: dict[str, Any] = {"tokens": tokens, "kernels": decoder.kernels.name, **summary(seconds)}
    entry["times_real_time"] = audio_seconds / entry["median"]
    if tokens:
        entry["us_per_token"] = entry["median"] / tokens * 1e6
    if isinstance(decoder.program, FusedProgram):
        isa = decoder.kernels.isa
        assert isa is not None
        packed = decoder.program.packed
        bandwidth = stream_bandwidth(isa, packed.streamed_bytes, threads)
        entry |= {"bytes_per_token": packed.token_bytes, "stream_bandwidth": bandwidth}
        floor = floor_seconds(decoder, tokens, bandwidth)
        if utterances == 1 and floor is not None:
            entry["floor_fraction"] = floor / entry["median"]
    return entry


def _edits(reference: Hypothesis, other: Hypothesis) -> int:
    return edit_distance(reference.tokens.tolist(), other.tokens.tolist())


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
    from .networks._fused import read_seconds

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

    Neighbouring frames have a correlation of 0.6, similar to those of speech.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames, batch, encoder_size), dtype=np.float32)
    out = np.empty((batch, encoder_size, frames), np.float32)
    last = np.zeros((batch, encoder_size), np.float32)
    for t in range(frames):
        last = noise[t] if t == 0 else np.float32(0.6) * last + np.float32(0.8) * noise[t]
        out[:, :, t] = last
    return out


def summary(seconds: list[float]) -> dict[str, Any]:
    """The median, minimum and maximum of some times."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
