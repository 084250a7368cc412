"""A network made of the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .functions import CallableState, CallableWorkspace, UserFunctions

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
        self.device = device
        self._functions = UserFunctions(predict, joint, select, device)

    def start(self, blank: int) -> CallableState:
        g, state = self._functions.predict(np.array([blank], np.int32), None)
        return CallableState(((state, g),), np.zeros((2, 1), np.intp))

    def program(self, kernels: KernelSet) -> Program | None:
        if self.device == "cpu":
            return None
        from .cuda.callable import CallableCudaProgram

        return CallableCudaProgram(self._functions, kernels)

    def workspace(self, frames: Any, state: CallableState) -> CallableWorkspace:
        return CallableWorkspace(self._functions, frames, state)
