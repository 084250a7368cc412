"""The user's functions, whose results are checked at each call, and collections of the states that they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cuda.device import Device, current_device, import_cupy
from ..errors import InputError


class UserFunctions:
    """``predict``, ``joint`` and ``select`` of a `CallableNetwork`, for arrays of one device."""

    def __init__(
        self,
        predict: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]],
        joint: Callable[[np.ndarray, np.ndarray], np.ndarray],
        select: Callable[[Any, np.ndarray], Any],
        device: str,
    ):
        self._predict = predict
        self._joint = joint
        self.select = select
        self._arrays: Any = np
        self.card: Device | None = None
        if device == "cuda":
            self.card = current_device()
            self._arrays = import_cupy()

    def __reduce__(self) -> tuple[Any, ...]:
        return UserFunctions, (self._predict, self._joint, self.select, "cpu" if self._arrays is np else "cuda")

    def on_device(self, array: np.ndarray) -> Any:
        """An array of the host, brought to the functions' device."""
        return self._arrays.asarray(np.ascontiguousarray(array))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return self._arrays.empty(shape, dtype)

    def predict(self, tokens: np.ndarray, state: Any) -> tuple[Any, Any]:
        """Call ``predict`` with tokens of the host.

        Raises
        ------
        InputError
            If it returns something else than (g, state), or g has a wrong shape.
        """
        result = self._predict(self.on_device(tokens), state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise InputError(f"predict must return (g, state), got {type(result).__name__}")
        g = self._arrays.asarray(result[0])
        if g.ndim != 2 or len(g) != len(tokens):
            raise InputError(f"predict must return g of shape [{len(tokens)}, H], got {list(g.shape)}")
        return g, result[1]

    def joint(self, frames: Any, g: Any) -> Any:
        """Call ``joint``; return its joint rows in float32, contiguous.

        Raises
        ------
        InputError
            If it returns another number of rows.
        """
        made = self._arrays.asarray(self._joint(frames, g))
        if made.ndim != 2 or len(made) != len(g):
            raise InputError(f"joint must return rows of shape [{len(g)}, V + 1 + D], got {list(made.shape)}")
        return self._arrays.ascontiguousarray(made, np.float32)


@dataclass(frozen=True, eq=False)
class CallableState:
    """N predictor states, which are entries of one or several of the user's states.

    Attributes
    ----------
    parts:
        The user's states, each with the predictor outputs [n, H] of its n entries.
    places:
        int [2, N]: which part each predictor state is in, and its index there.
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
    """Predictor states by slot, and frames [B, T, E]: a `Workspace`.

    Slots, tokens and utterances are given as arrays of the host, also if the functions run on a card.
    """

    def __init__(self, functions: UserFunctions, frames: Any, state: CallableState):
        self._functions = functions
        self._frames = frames
        self._parts = dict(enumerate(state.parts))
        self._places = state.places.copy()
        width = state.parts[0][1].shape[1]
        self._g = functions.empty((len(state), width), state.parts[0][1].dtype)
        for part, slots in self._by_part(np.arange(len(state))):
            index = functions.on_device(self._places[1, slots])
            self._g[functions.on_device(slots)] = state.parts[part][1][index]

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> Any:
        place = self._functions.on_device
        return self._functions.joint(self._frames[place(utterances), place(frames)], self._g[place(slots)])

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        # All parents are read before any slot is written, because a slot may be the parent of another step.
        fresh = []
        for part, steps in self._by_part(parents):
            index = self._functions.on_device(self._places[1, parents[steps]])
            state = self._functions.select(self._parts[part][0], index)
            g, state = self._functions.predict(np.ascontiguousarray(tokens[steps]), state)
            fresh.append((slots[steps], g, state))
        for written, g, state in fresh:
            part = max(self._parts) + 1
            self._parts[part] = state, g
            self._places[0, written], self._places[1, written] = part, np.arange(len(written))
            self._g[self._functions.on_device(written)] = g
        # States that no slot uses any more are dropped.
        for part in set(self._parts) - set(self._places[0].tolist()):
            del self._parts[part]

    def state(self) -> CallableState:
        used = sorted(self._parts)
        places = np.stack([np.searchsorted(used, self._places[0]), self._places[1]])
        return CallableState(tuple(self._parts[part] for part in used), places)

    def _by_part(self, slots: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The parts that the states in ``slots`` are in, each with the positions in ``slots`` that it concerns."""
        part = self._places[0, slots]
        return [(int(p), np.flatnonzero(part == p)) for p in np.unique(part)]
