"""A network made of the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from ..kernels import KernelSet


class CallableNetwork:
    """Predictor and joint as Python functions over NumPy arrays.

    Parameters
    ----------
    predict:
        ``predict(tokens, state) -> (g, state)``: int32 [N] tokens and the state of these N rows, or None at the start
        of a stream; returns the predictor's output [N, H] and the new state of the N rows, any object.
    joint:
        ``joint(frames, g) -> rows``: float32 [N, E] and [N, H]; returns [N, V + 1 + D] logits (or log-probs).
    select:
        ``select(state, index) -> state``: the rows at int [N] ``index`` of a state, in that order; an index may occur
        more than once.

    The functions must treat rows independently and leave their arguments unchanged. States are only ever made by
    ``predict`` and picked from by ``select``, so the predictor runs for all rows that emitted together, which is when
    every row has found its next token or its end. In a beam search they run for as many rows together as have states
    that came from one call.
    """

    name = "callable"
    device = "cpu"
    frame_dtype = np.dtype(np.float32)
    lockstep = False

    def __init__(
        self,
        predict: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]],
        joint: Callable[[np.ndarray, np.ndarray], np.ndarray],
        select: Callable[[Any, np.ndarray], Any],
    ):
        self.predict = predict
        self.joint = joint
        self.select = select

    def start(self, blank: int) -> CallableState:
        g, state = self.predict_checked(np.array([blank], np.int32), None)
        return CallableState(((state, g),), np.zeros((2, 1), np.intp))

    def program(self, kernels: KernelSet) -> None:
        return None

    def workspace(self, frames: np.ndarray, state: CallableState) -> _Workspace:
        return _Workspace(self, frames, state)

    def predict_checked(self, tokens: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        result = self.predict(tokens, state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise InputError(f"predict must return (g, state), got {type(result).__name__}")
        g = np.asarray(result[0])
        if g.ndim != 2 or len(g) != len(tokens):
            raise InputError(f"predict must return g of shape [{len(tokens)}, H], got {list(g.shape)}")
        return g, result[1]


@dataclass(frozen=True, eq=False)
class CallableState:
    """Rows that lie in one or several of the user's states.

    Attributes
    ----------
    parts:
        The user's states with the predictor outputs [n, H] that belong to them.
    places:
        int [2, B]: in which part each row lies, and at which index.
    """

    parts: tuple[tuple[Any, np.ndarray], ...]
    places: np.ndarray

    def __len__(self) -> int:
        return self.places.shape[1]

    def select(self, index: np.ndarray) -> CallableState:
        return CallableState(self.parts, self.places[:, index])

    def join(self, others: list[CallableState]) -> CallableState:
        parts, places = self.parts, [self.places]
        for other in others:
            places.append(other.places + np.array([[len(parts)], [0]]))
            parts += other.parts
        return CallableState(parts, np.concatenate(places, axis=1))

    def like(self, other: Any) -> bool:
        widths = [g.shape[1] for _, g in self.parts[:1] + getattr(other, "parts", ())[:1]]
        return isinstance(other, CallableState) and len(set(widths)) <= 1


class _Workspace:
    def __init__(self, network: CallableNetwork, frames: np.ndarray, state: CallableState):
        self._network = network
        self._frames = frames
        self._parts = dict(enumerate(state.parts))
        self._places = state.places.copy()
        width = state.parts[0][1].shape[1]
        self._g = np.empty((len(state), width), state.parts[0][1].dtype)
        for part, rows in self._by_part(np.arange(len(state))):
            self._g[rows] = state.parts[part][1][self._places[1, rows]]

    def joint(self, slots: np.ndarray, rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
        made = np.asarray(self._network.joint(self._frames[rows, frames], self._g[slots]))
        if made.ndim != 2 or len(made) != len(slots):
            raise InputError(f"joint must return rows of shape [{len(slots)}, V + 1 + D], got {list(made.shape)}")
        return np.ascontiguousarray(made, np.float32)

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        # Parents are read before any slot is written: a slot may be another row's parent.
        fresh = []
        for part, rows in self._by_part(parents):
            state = self._network.select(self._parts[part][0], self._places[1, parents[rows]])
            g, state = self._network.predict_checked(np.ascontiguousarray(tokens[rows]), state)
            fresh.append((slots[rows], g, state))
        for rows, g, state in fresh:
            part = max(self._parts) + 1
            self._parts[part] = state, g
            self._places[0, rows], self._places[1, rows] = part, np.arange(len(rows))
            self._g[rows] = g
        # States that no row lies in any more are let go.
        for part in set(self._parts) - set(self._places[0].tolist()):
            del self._parts[part]

    def state(self) -> CallableState:
        used = sorted(self._parts)
        places = np.stack([np.searchsorted(used, self._places[0]), self._places[1]])
        return CallableState(tuple(self._parts[part] for part in used), places)

    def _by_part(self, slots: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Positions in ``slots`` grouped by the part their rows lie in."""
        part = self._places[0, slots]
        return [(int(p), np.flatnonzero(part == p)) for p in np.unique(part)]
