"""A network made of the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import as_choice, as_function
from ..reprs import one_line
from .functions import CallableState, CallableWorkspace, UserFunctions

if TYPE_CHECKING:
    from ..kernels import KernelSet
    from . import Program


class CallableNetwork:
    """Predictor and joint as Python functions over NumPy arrays, or over CuPy arrays.

    Parameters
    ----------
    predict:
        ``predict(tokens, state) -> (g, state)``: takes int32 [N] tokens and a state, which belongs to these N tokens,
        or is None at the start of a stream. Returns the predictor's output [N, H] and the new state. A state is an
        object of any kind that has N entries, one for each token.
    joint:
        ``joint(frames, g) -> rows``: takes encoder frames float32 [N, E] and predictor outputs [N, H]; returns the
        joint rows [N, V + 1 + D], logits or log-probs.
    select:
        ``select(state, index) -> state``: takes a state and int [N]; returns a state with the entries at these indices,
        in that order. An index may occur more than once.
    device:
        ``"cpu"`` or ``"cuda"``. With ``"cuda"`` all arrays above are CuPy arrays, and joint rows stay on the card.

    Notes
    -----
    Entry i of a result must depend only on entry i of the arguments. The functions must not change their arguments.

    Since ``select`` cannot mix entries of several states, the predictor runs for whole batches. In greedy search it
    runs once each utterance has found its next token or has ended, for all utterances that emitted. In a beam search it
    runs together for all hypotheses whose states came from one call.

    Raises
    ------
    InputError
        If there is no such device. Later, if a function returns something of another form than above.
    DeviceError, MissingDependencyError
        On cuda, if there is no card, or CuPy is not installed.
    """

    name = "callable"
    frame_dtype = np.dtype(np.float32)
    lockstep = False

    def __init__(
        self,
        predict: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]],
        joint: Callable[[np.ndarray, np.ndarray], np.ndarray],
        select: Callable[[Any, np.ndarray], Any],
        *,
        device: str = "cpu",
    ):
        for name, function in (("predict", predict), ("joint", joint), ("select", select)):
            as_function(name, function)
        as_choice("device", device, ("cpu", "cuda"))
        self.device = device
        self._functions = UserFunctions(predict, joint, select, device)
        self.card = self._functions.card

    def __repr__(self) -> str:
        return one_line(self, f"the caller's functions on the {self.device}")

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
