"""A beam between two chunks, and the error of a user's function, as beam engines return and raise them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BeamState:
    """One stream's beam of n hypotheses between two chunks. A value: it is never changed.

    Attributes
    ----------
    scores:
        float64 [2, n]: the score of each hypothesis, over all alignments merged into it; and the score of the best of
        these alignments.
    prefixes:
        uint64 [n], hashes of their tokens.
    numbers:
        int32 [7, n]: next frame, counted from the start of the next chunk; tokens emitted there; number of tokens;
        last record; slot; parent; token. The slot is the index of the predictor state among the stream's ``states``.
        If it is -1, that state follows from the one at index parent, by a step on the token.
    records, logprobs:
        int32 [4, m] and float32 [3, m], the tokens that are not settled yet. The first has the record of the token
        before (-1: none), token, frame and duration; the second has both log-probs and the joint row's statistic.
    fusion:
        int64 [states, k]: the k integers of the fusions' states that belong to each predictor state; [0, 0] without
        fusions.
    first_frame:
        The number of frames of the stream before the next chunk.
    states:
        The number of predictor states that the stream has.
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
