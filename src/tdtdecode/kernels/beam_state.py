"""What a beam engine takes and gives beside its arrays: a beam between two chunks, and the failure of a function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BeamState:
    """One stream's beam between two chunks. A value.

    Attributes
    ----------
    scores:
        float64 [2, n]: log-probability of each hypothesis, merged alignments together, and of its best alignment.
    prefixes:
        uint64 [n], hashes of their tokens.
    numbers:
        int32 [7, n]: next frame, counted from the chunk to come; tokens emitted there; number of tokens; last record;
        place of the predictor's state among the stream's, or -1 where it follows from that at the next number, by
        a step on the last number, a token.
    records, logprobs:
        int32 [4, m] and float32 [3, m], the tokens that are not yet settled: record before it, token, frame, duration;
        both log-probabilities and the row's statistic.
    fusion:
        int64 [s, n]: the fusions' states, as many as the stream has states of the predictor.
    first_frame:
        Frames of the stream before the chunk to come.
    states:
        How many states of the predictor the stream has.
    """

    scores: np.ndarray
    prefixes: np.ndarray
    numbers: np.ndarray
    records: np.ndarray
    logprobs: np.ndarray
    fusion: np.ndarray
    first_frame: int
    states: int


class FusionError(Exception):
    """A user's scoring function failed inside a kernel."""

    def __init__(self, kind: int, fusion: int, token: int, state: list[int]):
        super().__init__(kind, fusion, token, state)
        self.kind, self.fusion, self.token, self.state = kind, fusion, token, state
