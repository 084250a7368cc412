"""Comparing the decoders of a model on this machine: how fast they are, how fast they could be, how they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..evaluation import edit_distance
from ..hypothesis import Hypothesis
from ..networks.fused import PRECISIONS, FusedProgram
from ..search import Beam, Greedy
from ..traces import COUNTS
from .measuring import alternate, floor_seconds, stream_bandwidth, summary

SEARCHES: dict[str, Greedy | Beam] = {"greedy": Greedy(), "beam": Beam()}
"""The searches that can be compared."""


@dataclass(frozen=True)
class Sweep:
    """What is compared: every search with every decoder, number of threads and batch.

    Attributes
    ----------
    searches:
        Keys of `SEARCHES`.
    network:
        ``"fused"`` or ``"ort"``; None for both.
    precisions:
        The precisions of the fused network; None for each. The graphs that ``"ort"`` runs have no other precision than
        their own, which is called float32 here.
    threads:
        Numbers of the decoder's threads.
    kernels:
        As for `Decoder.from_bundle`.
    runs:
        How often each decoder is timed, after one run as a warm-up.
    profile:
        Whether to say where the time of the fused network goes.
    """

    searches: Sequence[str] = ("greedy",)
    network: str | None = None
    precisions: Sequence[str] | None = None
    threads: Sequence[int] = (1,)
    kernels: str = "auto"
    runs: int = 7
    profile: bool = False


def compare_decoders(
    bundle: Bundle,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    sweep: Sweep,
    speech: Callable[[Decoder, Greedy | Beam], list[Hypothesis]] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure decoding of the same encoder output by several networks, precisions and searches.

    Parameters
    ----------
    batches:
        Encoder output and lengths, [B, E, T] and [B], as for `Decoder.decode`.
    speech:
        Decodes some speech, to count the edits; None: they are not counted. On random encoder output decisions are
        close, so that far more of them differ than on speech.

    Returns
    -------
    The measurements. Then the reason why each of the other decoders cannot be used, by its name. A measurement has:

    - ``decoder``, such as "fused int8", ``kernels``, ``search``, ``threads`` and ``batch``;
    - ``tokens``: number of emitted tokens.
    - ``median``, ``min``, ``max``, ``p10``, ``p90``: seconds per run, the last two are percentiles;
    - ``times_real_time``: seconds of audio decoded per second; ``us_per_token``: microseconds per token, if any;
    - ``bytes_per_token``, ``stream_bandwidth`` (bytes per second): for the fused network on the CPU;
    - ``floor_us_per_token``, ``floor_fraction``: the time of a token from `floor_seconds`, and its share in the median;
      for greedy search over one utterance;
    - ``differing_tokens``: edits between the tokens on speech and those of the first decoder, the most exact one, with
      the same search; ``compared_tokens``: the number of its tokens. Only with ``speech``;
    - ``profile``: where the time goes, see `_profile`. Only if it is asked for, and for the fused network.

    Raises
    ------
    InputError
        If no decoder can be used, or the encoder output is wrong.
    """
    measured: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    spoken: dict[tuple[str, str], list[Hypothesis]] = {}
    for threads in sweep.threads:
        decoders = _decoders(bundle, sweep, threads, refused)
        for search in sweep.searches:
            for encoder_out, lengths in batches:
                found = _measured(decoders, search, encoder_out, lengths, sweep, refused)
                for name, entry in found.items():
                    decoder = decoders[name]
                    seconds = int(np.sum(lengths)) * bundle.frame_seconds
                    entry["times_real_time"] = seconds / entry["median"]
                    if speech is not None:
                        if (name, search) not in spoken:
                            spoken[name, search] = speech(decoder, SEARCHES[search])
                        reference = next(spoken[other] for other in spoken if other[1] == search)
                        entry["differing_tokens"] = sum(map(_edits, reference, spoken[name, search]))
                        entry["compared_tokens"] = sum(map(len, reference))
                    named = {"decoder": name, "kernels": decoder.kernels.name, "search": search, "threads": threads}
                    measured.append(named | entry)
    if not measured:
        raise InputError("; ".join(dict.fromkeys(refused.values())))
    return measured, refused


def _decoders(bundle: Bundle, sweep: Sweep, threads: int, refused: dict[str, str]) -> dict[str, Decoder]:
    """The decoders that can be made, by name, the most exact first. Says in ``refused`` why others cannot be made."""
    candidates = []
    chosen = sweep.precisions
    if sweep.network != "ort":
        candidates = [(f"fused {p}", "fused", p) for p in PRECISIONS if chosen is None or p in chosen]
    if sweep.network == "ort":
        candidates = [("ort", "ort", precision) for precision in chosen or ("float32",)]
    elif sweep.network is None and (chosen is None or "float32" in chosen):
        candidates.append(("ort", "ort", "float32"))
    decoders = {}
    for name, kind, arithmetic in candidates:
        try:
            decoders[name] = Decoder.from_bundle(
                bundle, network=kind, precision=arithmetic, kernels=sweep.kernels, threads=threads
            )
        except (BundleError, InputError) as error:
            refused[name] = str(error)
    return decoders


def _measured(
    decoders: dict[str, Decoder],
    search: str,
    encoder_out: np.ndarray,
    lengths: np.ndarray,
    sweep: Sweep,
    refused: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """The figures of each decoder for one batch. Says in ``refused`` which of them cannot decode."""
    options, tokens = SEARCHES[search], {}
    for name, decoder in decoders.items():
        try:
            tokens[name] = sum(map(len, decoder.decode(encoder_out, lengths, options)))
        except InputError as error:  # some kernel sets lack some precisions
            refused[name] = str(error)
    functions = {name: partial(decoders[name].decode, encoder_out, lengths, options) for name in tokens}
    found = {}
    for name, seconds in alternate(sweep.runs, functions).items():
        decoder = decoders[name]
        entry: dict[str, Any] = {"batch": len(lengths), "tokens": tokens[name], **summary(seconds)}
        if tokens[name]:
            entry["us_per_token"] = entry["median"] / tokens[name] * 1e6
        entry |= _floor(decoder, search, len(lengths), tokens[name], entry["median"])
        if sweep.profile and isinstance(decoder.program, FusedProgram):
            entry["profile"] = _profile(decoder, options, encoder_out, lengths, sweep.runs)
        found[name] = entry
    return found


def _floor(decoder: Decoder, search: str, batch: int, tokens: int, median: float) -> dict[str, float]:
    """How fast memory is, and what it allows; nothing for networks other than fused."""
    if not isinstance(decoder.program, FusedProgram):
        return {}
    isa, packed = decoder.kernels.isa, decoder.program.packed
    assert isa is not None
    bandwidth = stream_bandwidth(isa, packed.streamed_bytes, decoder.program.threads)
    found: dict[str, float] = {"bytes_per_token": packed.token_bytes, "stream_bandwidth": bandwidth}
    floor = floor_seconds(decoder, tokens, bandwidth)
    if search == "greedy" and batch == 1 and tokens and floor is not None:
        found |= {"floor_us_per_token": floor / tokens * 1e6, "floor_fraction": floor / median}
    return found


def _profile(
    decoder: Decoder, search: Greedy | Beam, encoder_out: np.ndarray, lengths: np.ndarray, runs: int
) -> dict[str, Any]:
    """Where the time of the loop goes, in the fastest of some runs.

    ``seconds`` of the loop; the `COUNTS` of what it did; and for each of `PHASES` in ``phases``: ``share`` of the time
    of all threads, ``us_per_token`` and ``us_per_pass``, the microseconds of all threads together.
    """
    found = [decoder.profile(encoder_out, lengths, search) for _ in range(runs)]
    hypotheses, profile = min(found, key=lambda pair: pair[1].seconds)
    tokens, counts = sum(map(len, hypotheses)), dict(zip(COUNTS, profile.counts.tolist()))
    microseconds = profile.nanoseconds.sum(0) / 1e3
    phases = {
        name: {
            "share": share, "us_per_token": float(spent) / max(tokens, 1),
            "us_per_pass": float(spent) / max(counts["passes"], 1),
        }
        for (name, share), spent in zip(profile.shares.items(), microseconds)
    }  # fmt: skip
    return {"seconds": profile.seconds, **counts, "phases": phases}


def _edits(reference: Hypothesis, other: Hypothesis) -> int:
    return edit_distance(reference.tokens.tolist(), other.tokens.tolist())
