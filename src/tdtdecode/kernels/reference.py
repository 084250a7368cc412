"""The specification of the search kernels, in NumPy.

Every other kernel set has these two functions, with the same arguments and the same results:

- ``decide``: joint row -> decision (``csrc/tdt/row.h``);
- ``advance``: decision -> next frame (``csrc/tdt/transition.h``).

For beam search, a kernel set has a `BeamEngine`, specified in `reference_beam`.

Results are written to arrays that are passed in. These may be longer than needed: then only their first elements are
used, so that the same arrays serve any number of joint rows.
"""

from __future__ import annotations

import numpy as np

from ..allowed import Masks
from ..transducer import RowLayout
from .reference_beam import BeamEngine

__all__ = ["BeamEngine", "advance", "decide"]

LARGEST = np.finfo(np.float32).max


@np.errstate(over="ignore")  # the lowest float minus the largest is -inf, as it should be
def decide(
    rows: np.ndarray,
    layout: RowLayout,
    options: np.void,
    masks: Masks,
    decisions: np.ndarray,
    logprobs: np.ndarray,
) -> None:
    """Decide each of N joint rows on its own.

    Parameters
    ----------
    rows:
        float32 [N, V + B + D].
    layout:
        The row's layout.
    options:
        `tdtdecode.options.GREEDY_OPTIONS`.
    masks:
        The tokens that may be emitted, of >= N rows.
    decisions:
        int32 [2, >= N], written: the token, or `RowLayout.blank` for every blank; and frames. These are the predicted
        duration. Without durations, they are 0 for a token, and those of the blank for a blank.
    logprobs:
        float32 [2, >= N], written: log-softmax of the token over the V + B token entries, and of the duration over the
        D duration entries. Both are 0 if the token is blank, unless ``options["trace"]`` is set.
    """
    n = len(rows)
    rows = _sanitized(rows)
    vocab_size, blank, blank_frames, durations = layout
    end = blank + len(blank_frames)
    entries = vocab_size + len(blank_frames)
    tokens, timing = rows[:, :entries], rows[:, entries:]

    # The best blank takes part with its penalty, the other blanks do not.
    every = np.arange(n)
    blanks = tokens[:, blank:end]
    best_blank = np.where(blanks.max(axis=1) > -np.inf, blanks.argmax(axis=1), len(blank_frames) - 1)
    steered = tokens.copy()
    steered[:, blank:end] = -np.inf
    steered[every, blank + best_blank] = _sanitized(blanks[every, best_blank] - options["blank_penalty"])
    entry = np.where(steered.max(axis=1) > -np.inf, steered.argmax(axis=1), blank + best_blank)
    for i in np.flatnonzero((entry < blank) | (entry >= end)):  # rows that emit a token
        mask = masks.numbers[i]
        if mask >= 0 and not masks.table[mask, entry[i]]:
            may = np.where(masks.table[mask] != 0, tokens[i, : vocab_size + 1], -np.inf)
            may[blank] = -np.inf
            entry[i] = may.argmax() if may.max() > -np.inf else blank + best_blank[i]
    emits = (entry < blank) | (entry >= end)
    reported = emits | bool(options["trace"])
    decisions[0, :n] = np.where(emits, entry, blank)
    logprobs[0, :n] = np.where(reported, _log_softmax_at(tokens, entry), 0)

    decisions[1, :n] = np.where(emits, 0, blank_frames[best_blank])
    logprobs[1, :n] = 0
    if len(durations):
        index = timing.argmax(axis=1)
        decisions[1, :n] = durations[index]
        logprobs[1, :n] = np.where(reported, _log_softmax_at(timing, index), 0)


def advance(
    queue: np.ndarray,
    count: int,
    decisions: np.ndarray,
    logprobs: np.ndarray,
    blank: int,
    options: np.void,
    hold: bool,
    positions: np.ndarray,
    log: np.ndarray,
    log_logprobs: np.ndarray,
    cursor: int,
) -> tuple[int, int]:
    """Move ``count`` utterances on by their decisions, and log the tokens that they emitted.

    Parameters
    ----------
    queue:
        int32 [2, B]: the slots whose joint rows were decided, and the frames of these rows. Rewritten: the slots that
        are still inside the audio, in the same order, and the frames that they want next.
    count:
        How many slots of the queue were decided.
    decisions, logprobs:
        As ``decide`` wrote them, in the order of the queue.
    blank, options:
        Id of blank; `tdtdecode.options.GREEDY_OPTIONS`. With ``options["trace"]`` blanks are logged like tokens.
    hold:
        Leave slots that emitted out of the new queue, because the predictor has to run for them first.
    positions:
        int32 [3, B] by slot: next frame and tokens emitted at that frame, both updated; and the length, only read.
    log, log_logprobs:
        int32 [4, >= cursor + count] and float32 [2, same]: slot, token, frame and duration of each emitted token, and
        its two log-probs. Written from ``cursor`` on, in the order of the queue.

    Returns
    -------
    The number of entries logged, and the number of slots in the new queue.
    """
    slot = queue[0, :count].copy()
    token, duration = decisions[:, :count]
    frame, symbols, length = positions
    is_blank = token == blank

    logged = np.flatnonzero(~is_blank | bool(options["trace"]))
    entries = slice(cursor, cursor + len(logged))
    log[:, entries] = slot[logged], token[logged], frame[slot[logged]], duration[logged]
    log_logprobs[:, entries] = logprobs[:, logged]

    stays = ~is_blank & (duration == 0)
    capped = stays & (symbols[slot] + 1 >= options["max_symbols"])
    frame[slot] += np.where(is_blank, np.maximum(duration, 1), np.where(capped, 1, duration))
    symbols[slot] = np.where(stays & ~capped, symbols[slot] + 1, 0)

    waits = slot[(frame[slot] < length[slot]) & (is_blank | (not hold))]
    queue[:, : len(waits)] = waits, frame[waits]
    return len(logged), len(waits)


def _sanitized(logits: np.ndarray) -> np.ndarray:
    """The logits with -inf for NaN, and the largest finite float32 for +inf."""
    return np.minimum(np.where(np.isnan(logits), -np.inf, logits), LARGEST, dtype=np.float32)


def _log_softmax_at(part: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Log-softmax of each row of float32 [N, M] at one entry; 0, which is certainty, if the row has no number."""
    largest = part.max(axis=1, keepdims=True)
    has_number = largest[:, 0] > -np.inf
    shifted = part - np.where(has_number[:, None], largest, 0)
    chosen = np.take_along_axis(shifted, index[:, None].astype(np.intp), axis=1)[:, 0]
    log_sum = np.log(np.exp(shifted).sum(axis=1), where=has_number, out=np.zeros(len(part), np.float32))
    return np.where(has_number, chosen - log_sum, 0)
