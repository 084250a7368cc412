"""The search kernels in Numba: compiled, but easy to change in Python. Their specification is `reference.py`."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType

import numpy as np
from numba import njit

from . import beam_steps, reference_beam

LARGEST = np.finfo(np.float32).max
LOWEST = np.float32(-np.inf)


@njit(cache=True, nogil=True)
def _sanitized(logit):
    if not logit >= LOWEST:  # NaN
        return LOWEST
    return min(logit, LARGEST)


@njit(cache=True, nogil=True)
def _better(part, first, last, value, index):
    """The largest entry of a part from ``first`` to ``last`` and its lowest index, if it is above ``value``."""
    for i in range(first, last):
        if part[i] > value:  # seldom true, and never for NaN
            x = min(part[i], LARGEST)
            if x > value:
                value, index = x, i
    return value, index


@njit(cache=True, nogil=True)
def _best_allowed(part, mask, blank):
    """The largest token that may be emitted, and its lowest index; -1 if there is no number."""
    value, index = LOWEST, -1
    for i in range(len(mask)):
        if mask[i] and i != blank:
            value, index = _better(part, i, i + 1, value, index)
    return value, index


@njit(cache=True, nogil=True)
def _log_sum_exp(part, largest):
    total = 0.0
    for i in range(len(part)):
        total += math.exp(_sanitized(part[i]) - largest)
    return math.log(total)


@njit(cache=True, nogil=True)
def decide(rows, layout, options, masks, decisions, logprobs):
    vocab_size, blank, blank_frames, durations = layout
    table, numbers = masks
    end, entries = blank + len(blank_frames), vocab_size + len(blank_frames)
    for n in range(len(rows)):
        tokens, timing = rows[n, :entries], rows[n, entries:]
        best, token = _better(tokens, 0, blank, LOWEST, -1)
        best, token = _better(tokens, end, entries, best, token)
        blank_logit, blank_at = _better(tokens, blank, end, LOWEST, -1)
        steered = _sanitized(np.float32(blank_logit - options["blank_penalty"]))
        value = best
        if token < 0 or steered > best or (steered == best and blank_at < token):
            token = blank
        elif numbers[n] >= 0 and not table[numbers[n], token]:
            value, token = _best_allowed(tokens, table[numbers[n]], blank)
            if token < 0:
                token = blank
        decisions[0, n] = token
        decisions[1, n] = 0
        if token == blank:
            decisions[1, n] = blank_frames[blank_at - blank if blank_at >= 0 else len(blank_frames) - 1]
        logprobs[0, n] = logprobs[1, n] = 0.0
        index = -1
        if len(durations):
            longest, index = _better(timing, 0, len(timing), LOWEST, -1)
            decisions[1, n] = durations[max(index, 0)]
        if token != blank or options["trace"]:
            largest = max(best, blank_logit)
            if largest > LOWEST:
                chosen = blank_logit if token == blank else value
                logprobs[0, n] = chosen - largest - _log_sum_exp(tokens, largest)
            if index >= 0:
                logprobs[1, n] = -_log_sum_exp(timing, longest)


@njit(cache=True, nogil=True)
def advance(
    queue, count, decisions, logprobs, blank, options, hold, positions, log, log_logprobs, cursor
):
    logged = pending = 0
    for i in range(count):
        slot, token, duration = queue[0, i], decisions[0, i], decisions[1, i]
        is_blank = token == blank
        frame, symbols = positions[0, slot], 0
        if not is_blank or options["trace"]:
            entry = cursor + logged
            logged += 1
            log[0, entry], log[1, entry], log[2, entry], log[3, entry] = slot, token, frame, duration
            log_logprobs[0, entry], log_logprobs[1, entry] = logprobs[0, i], logprobs[1, i]
        if is_blank:
            step = max(duration, 1)
        else:
            step = duration
            if duration == 0:
                symbols = positions[1, slot] + 1
                if symbols >= options["max_symbols"]:
                    step, symbols = 1, 0
        positions[0, slot], positions[1, slot] = frame + step, symbols
        if frame + step < positions[2, slot] and (is_blank or not hold):
            queue[0, pending], queue[1, pending] = slot, frame + step
            pending += 1
    return logged, pending


def _compiled(source: ModuleType) -> ModuleType:
    """A second copy of a module, whose kernels Numba compiles on first use."""
    assert source.__spec__ is not None and source.__spec__.origin is not None
    spec = importlib.util.spec_from_file_location(f"{source.__name__}_compiled", source.__spec__.origin)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where Numba's cache looks for it
    module.kernel = njit(cache=True, nogil=True)  # type: ignore[attr-defined]
    spec.loader.exec_module(module)
    return module


class BeamEngine(reference_beam.BeamEngine):
    """The engine of the specification, with compiled steps."""

    steps = _compiled(beam_steps)
