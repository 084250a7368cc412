"""A network made of the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from ..kernels import KernelSet
    from . import Program


class CallableNetwork:
    """Predictor and joint as Python functions over NumPy arrays, or over CuPy's.

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
    device:
        ``"cpu"``, or ``"cuda"``: the functions take and return CuPy arrays, ``index`` too, and rows stay on the card.

    The functions must treat rows independently and leave their arguments unchanged. States are only ever made by
    ``predict`` and picked from by ``select``, so the predictor runs for all rows that emitted together, which is when
    every row has found its next token or its end. In a beam search they run for as many rows together as have states
    that came from one call.
    """

    name = "callable"
    frame_dtype = np.dtype(np.float32)
    lockstep = False

    def __init__(
        self,
        predict: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]],
        joint: Callable[[np.ndarray, np.ndarray], np.ndarray],
        select: Callable[[Any, np.ndarray], Any],
        device: str = "cpu",
    ):
        if device not in ("cpu", "cuda"):
            raise InputError(f"no device {device!r}: cpu, cuda")
        self.predict = predict
        self.joint = joint
        self.select = select
        self.device = device
        self._arrays: Any = np
        if device == "cuda":
            from ..cuda.device import current_device, import_cupy

            current_device()
            self._arrays = import_cupy()

    def start(self, blank: int) -> CallableState:
        g, state = self.predict_checked(np.array([blank], np.int32), None)
        return CallableState(((state, g),), np.zeros((2, 1), np.intp))

    def program(self, kernels: KernelSet) -> Program | None:
        if self.device == "cpu":
            return None
        from .callable_cuda import CallableCudaProgram

        return CallableCudaProgram(self, kernels)

    def workspace(self, frames: Any, state: CallableState) -> CallableWorkspace:
        return CallableWorkspace(self, frames, state)

    def on_device(self, array: np.ndarray) -> Any:
        """An array of the host as the functions take it."""
        return self._arrays.asarray(np.ascontiguousarray(array))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return self._arrays.empty(shape, dtype)

    def predict_checked(self, tokens: np.ndarray, state: Any) -> tuple[Any, Any]:
        """``predict`` for tokens of the host."""
        result = self.predict(self.on_device(tokens), state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise InputError(f"predict must return (g, state), got {type(result).__name__}")
        g = self._arrays.asarray(result[0])
        if g.ndim != 2 or len(g) != len(tokens):
            raise InputError(f"predict must return g of shape [{len(tokens)}, H], got {list(g.shape)}")
        return g, result[1]

    def joint_checked(self, frames: Any, g: Any) -> Any:
        """``joint``, its rows float32 and contiguous."""
        made = self._arrays.asarray(self.joint(frames, g))
        if made.ndim != 2 or len(made) != len(g):
            raise InputError(f"joint must return rows of shape [{len(g)}, V + 1 + D], got {list(made.shape)}")
        return self._arrays.ascontiguousarray(made, np.float32)


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


class CallableWorkspace:
    """Predictor states by slot, and frames [B, T, E]; a `Workspace`. Slots, tokens and rows are the host's."""

    def __init__(self, network: CallableNetwork, frames: Any, state: CallableState):
        self._network = network
        self._frames = frames
        self._parts = dict(enumerate(state.parts))
        self._places = state.places.copy()
        width = state.parts[0][1].shape[1]
        self._g = network.empty((len(state), width), state.parts[0][1].dtype)
        for part, rows in self._by_part(np.arange(len(state))):
            index = network.on_device(self._places[1, rows])
            self._g[network.on_device(rows)] = state.parts[part][1][index]

    def joint(self, slots: np.ndarray, rows: np.ndarray, frames: np.ndarray) -> Any:
        place = self._network.on_device
        return self._network.joint_checked(self._frames[place(rows), place(frames)], self._g[place(slots)])

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        # Parents are read before any slot is written: a slot may be another row's parent.
        fresh = []
        for part, rows in self._by_part(parents):
            index = self._network.on_device(self._places[1, parents[rows]])
            state = self._network.select(self._parts[part][0], index)
            g, state = self._network.predict_checked(np.ascontiguousarray(tokens[rows]), state)
            fresh.append((slots[rows], g, state))
        for rows, g, state in fresh:
            part = max(self._parts) + 1
            self._parts[part] = state, g
            self._places[0, rows], self._places[1, rows] = part, np.arange(len(rows))
            self._g[self._network.on_device(rows)] = g
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
