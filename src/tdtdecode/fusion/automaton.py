"""Weighted back-off automata over token ids. N-gram models and boosted phrases are compiled to these."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, eq=False)
class Automaton:
    """A back-off automaton with S states and A arcs. Scores are in nats, before a fusion's weight is applied.

    If a state has an arc for a token, the token's score is that of the arc. If it has none, the score is the state's
    back-off weight plus the token's score in the state that it backs off to. A state that backs off to itself is a
    root: there, a token without an arc scores 0 and the state stays the same.

    Attributes
    ----------
    first_arc:
        int64 [S + 1]; state s has the arcs from ``first_arc[s]`` up to, not including, ``first_arc[s + 1]``.
    arc_token, arc_weight, arc_target:
        int32, float32, int32 [A]; token, score and next state of each arc. Tokens ascend within a state, and blank is
        never among them.
    backoff_state, backoff_weight:
        int32, float32 [S]; a root's weight is 0.
    final_weight:
        float32 [S], added to the score of a hypothesis that ends in the state.
    start:
        int32 [R], the state before the first token: one for each utterance of a batch, or one (R = 1) for all.
    """

    first_arc: np.ndarray
    arc_token: np.ndarray
    arc_weight: np.ndarray
    arc_target: np.ndarray
    backoff_state: np.ndarray
    backoff_weight: np.ndarray
    final_weight: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.backoff_state)

    def step(self, state: int, token: int) -> tuple[float, int]:
        """The score of a token in a state, and the state after the token."""
        score = 0.0
        while True:
            first, last = self.first_arc[state], self.first_arc[state + 1]
            arc = first + np.searchsorted(self.arc_token[first:last], token)
            if arc < last and self.arc_token[arc] == token:
                return score + float(self.arc_weight[arc]), int(self.arc_target[arc])
            if self.backoff_state[state] == state:
                return score, state
            score += float(self.backoff_weight[state])
            state = int(self.backoff_state[state])

    def scores(self, state: int, entries: int) -> np.ndarray:
        """The scores of all tokens in a state, float32 [V + 1]; ``entries`` is V + 1."""
        chain = [(state, np.float32(0))]
        while self.backoff_state[state] != state:
            chain.append((int(self.backoff_state[state]), chain[-1][1] + self.backoff_weight[state]))
            state = chain[-1][0]
        result = np.full(entries, chain[-1][1], np.float32)
        for state, backed_off in reversed(chain):  # longer contexts override shorter ones
            arcs = slice(self.first_arc[state], self.first_arc[state + 1])
            result[self.arc_token[arcs]] = backed_off + self.arc_weight[arcs]
        return result

    def check(self, entries: int) -> None:
        """Check everything that the kernels rely on, for V + 1 ``entries``; ValueError if something is wrong."""
        states, arcs = len(self.backoff_state), len(self.arc_token)
        depth, state = 0, self.backoff_state.astype(np.int64)
        good = (
            states > 0
            and self.first_arc.shape == (states + 1,)
            and len(self.start) > 0
            and all(len(part) == states for part in (self.backoff_weight, self.final_weight))
            and all(len(part) == arcs for part in (self.arc_weight, self.arc_target))
            and all(getattr(self, name).dtype == kind for name, kind in DTYPES.items())
            and self.first_arc[0] == 0
            and self.first_arc[-1] == arcs
            and bool((np.diff(self.first_arc) >= 0).all())
            and _within(self.arc_token, entries)
            and all(_within(part, states) for part in (self.arc_target, self.backoff_state, self.start))
        )
        if good and arcs > 1:
            ascending = np.diff(self.arc_token) > 0
            first = self.first_arc[1:-1]
            ascending[first[(first > 0) & (first < arcs)] - 1] = True  # two arcs of different states: any order
            good = bool(ascending.all())
        while good and (state[state] != state).any():
            state, depth = state[state], depth + 1
            good = depth < 64  # each round doubles the number of back-off steps taken, so more means a cycle
        # A circle of 2^n states looks like so many roots after n rounds.
        if not good or (self.backoff_state[state] != state).any():
            raise ValueError("not a back-off automaton")


DTYPES = {
    "first_arc": np.int64,
    "arc_token": np.int32,
    "arc_weight": np.float32,
    "arc_target": np.int32,
    "backoff_state": np.int32,
    "backoff_weight": np.float32,
    "final_weight": np.float32,
    "start": np.int32,
}
assert list(DTYPES) == [field.name for field in fields(Automaton)]


def _within(values: np.ndarray, end: int) -> bool:
    return not len(values) or bool(values.min() >= 0 and values.max() < end)
