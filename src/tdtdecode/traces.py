"""What can be seen of a decode from inside: every step of a search, and where the time goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .hypothesis import Hypothesis
from .reprs import counted, one_line


@dataclass(frozen=True, eq=False)
class Trace:
    """Every step of a greedy search over one utterance: which frames it looked at, and what it decided there.

    Attributes
    ----------
    frames:
        int32 [n], the encoder frame of each step. A frame that is not listed was skipped.
    tokens:
        int32 [n], the token emitted there, or `blank`.
    durations:
        int32 [n], the predicted duration in frames. Without durations, 0 for a token, and for a blank the frames that
        it moves. A blank of duration 0 moves one frame.
    token_logprobs, duration_logprobs:
        float32 [n], natural log: of the token or blank over the V + 1 token entries of the joint row, and of the
        duration over its D duration entries; duration log-probs are 0 for RNN-T.
    blank:
        The id of blank.
    """

    frames: np.ndarray
    tokens: np.ndarray
    durations: np.ndarray
    token_logprobs: np.ndarray
    duration_logprobs: np.ndarray
    blank: int

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return one_line(self, counted(len(self), "step"), f"{int(self.emitted.sum())} of them emit a token")

    @property
    def emitted(self) -> np.ndarray:
        """bool [n]: the steps that emitted a token."""
        return self.tokens != self.blank


WAITS = -1
"""Stands for the token of a candidate that takes no step."""


@dataclass(frozen=True, eq=False)
class BeamTrace:
    """Every step of a beam search over one utterance: what it chose from, what it kept, merged and dropped.

    In each step, hypotheses of the beam are extended by tokens and by blank, with every duration. These are the step's
    *candidates*. Candidates with the same tokens at the same position are merged into the first of them; the others are
    kept as the next beam, or pruned. `Beam` with strategy "tsd" merges before it prunes. "malsd" merges what it has
    left after pruning. There and in greedy search, what a hypothesis itself ranks too low is no candidate.

    n candidates are numbered in the order of the search. A number in `parents`, `merged_into`, `alignments` or `ends`
    is the place of a candidate in these arrays.

    Attributes
    ----------
    steps:
        int32 [n], the step of each candidate, from 0 on.
    parents:
        int32 [n], the candidate that each one extends: one that the step before has kept. -1 in the first step.
    tokens:
        int32 [n], the token that it adds; `blank`; or `WAITS` (-1). A hypothesis waits while others are behind it in
        the audio, or when it has reached the end.
    frames:
        int32 [n], the encoder frame whose joint row gave the token and the duration; for one that waits, the frame
        where it stands.
    durations:
        int32 [n], the predicted duration in frames, or those that a blank moves in RNN-T; 0 for a token of RNN-T, and
        for one that waits.
    next_frames:
        int32 [n], the frame where it goes on; at or past the utterance's end if it is complete.
    scores:
        float64 [n], its own score: natural logarithm of the probability of all that it stands for, with fusion and
        penalties, as `Beam` defines it.
    totals:
        float64 [n], the score together with those that were merged into it.
    merged_into:
        int32 [n], the candidate that it was merged into; -1 if it was not.
    kept:
        bool [n], whether it is in the beam after the step.
    alignments:
        int32 [n], the candidate whose tokens have the best times: among those merged into this one and itself, the one
        with the most probable alignment.
    ends:
        int32 [k], for each hypothesis of the beam at the end, best first, the candidate that it ends with. The first of
        them belong to ``hypothesis.nbest``.
    hypothesis:
        The result, which is that of `Decoder.decode` to the bit.
    blank:
        The id of blank.
    """

    steps: np.ndarray
    parents: np.ndarray
    tokens: np.ndarray
    frames: np.ndarray
    durations: np.ndarray
    next_frames: np.ndarray
    scores: np.ndarray
    totals: np.ndarray
    merged_into: np.ndarray
    kept: np.ndarray
    alignments: np.ndarray
    ends: np.ndarray
    hypothesis: Hypothesis
    blank: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        steps = counted(int(self.steps[-1]) + 1 if len(self) else 0, "step")
        return one_line(self, steps, counted(len(self), "candidate"), f"{int(self.kept.sum())} of them kept")

    @property
    def pruned(self) -> np.ndarray:
        """bool [n]: the candidates that were neither kept nor merged into another."""
        return ~self.kept & (self.merged_into < 0)

    @property
    def emitted(self) -> np.ndarray:
        """bool [n]: the candidates that add a token."""
        return (self.tokens != self.blank) & (self.tokens != WAITS)

    def path(self, candidate: int) -> np.ndarray:
        """The candidates along the best alignment of one, int32 [m] in the order of time.

        The path of ``ends[i]`` has the tokens, frames and durations of ``hypothesis.nbest[i]``: those of its candidates
        that emit one. Where the paths of two hypotheses part, their candidates differ from there on.
        """
        found = []
        while candidate >= 0:
            found.append(int(self.alignments[candidate]))
            candidate = int(self.parents[found[-1]])
        return np.array(found[::-1], np.int32)


PHASES = ("staging", "projection", "predictor", "joint", "search", "log-probs", "waiting")
"""What the threads of a decode do:

- staging: bringing vectors into the form that products take: encoder frames, hidden vectors of the joint, inputs;
- projection: the joint's product with encoder frames;
- predictor: its products and LSTM cells;
- joint: the product of its output layer, or of the int8 copy that screens it;
- search: decisions on joint rows, with the log-probabilities that are computed along with them; bookkeeping;
- log-probs: log-probabilities that screening left out, computed later for many tokens at once;
- waiting: for the other threads.
"""
COUNTS = ("passes", "joint_rows", "predictor_steps", "projected_frames", "late_rows")
"""What a decode's loop counts: its rounds; the joint rows, predictor steps and encoder frames that it computed; and the
joint rows that it computed once more for log-probabilities."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Where the time of a decode goes.

    Attributes
    ----------
    counts:
        int64 [5], how often the loop did what `COUNTS` names.
    nanoseconds:
        int64 [threads, 7], what each thread spent on each of `PHASES`.
    """

    counts: np.ndarray
    nanoseconds: np.ndarray

    @staticmethod
    def empty(threads: int) -> Profile:
        """A profile to which nothing was added yet."""
        return Profile(np.zeros(len(COUNTS), np.int64), np.zeros((threads, len(PHASES)), np.int64))

    def __repr__(self) -> str:
        shares = (f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.01)
        return one_line(self, f"{self.counts[0]} passes", *shares)

    @property
    def shares(self) -> dict[str, float]:
        """The share of each of `PHASES` in the time of all threads; 0 for all if nothing was decoded."""
        total = max(int(self.nanoseconds.sum()), 1)
        return dict(zip(PHASES, (self.nanoseconds.sum(0) / total).tolist()))

    @property
    def seconds(self) -> float:
        """The seconds that the decode's loop took."""
        return float(self.nanoseconds.sum(1).max(initial=0)) / 1e9
