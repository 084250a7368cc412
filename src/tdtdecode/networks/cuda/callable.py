"""The user's own functions over arrays on the device: rows are decided and ranked there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import first_frames
from ...cuda.arrays import DeviceArray, laid_out
from ...cuda.device import current_device
from ...cuda.requests import Requests
from ...errors import InputError
from ..functions import CallableState, CallableWorkspace, UserFunctions
from ..loops import label_looping
from .stepwise import run_beam

if TYPE_CHECKING:
    from ...kernels import BeamSearch, GreedySearch, KernelSet


class CallableCudaProgram:
    """The user's functions with the searches that drive them.

    The functions are called by the host, so it must know for how many rows: of each round the lists come to it, a few
    integers a row, and the rows themselves never do.
    """

    rows = 1 << 16
    rounds = 1

    def __init__(self, functions: UserFunctions, kernels: KernelSet):
        if kernels.name != "cuda":
            raise InputError(f"network 'callable' on cuda does not exist for kernels {kernels.name!r}: cuda")
        self._functions = functions
        self.card = current_device()

    def greedy(
        self, search: GreedySearch, rows: Sequence[DeviceArray], state: CallableState, final: bool
    ) -> CallableState | None:
        """Run a search to its end on B ``rows`` [E, T], from their state to the state returned; None if ``final``."""
        lengths = search.positions[2]
        workspace = _FlatFrames(self._functions, self.frames(rows, lengths), state, first_frames(lengths))
        label_looping(search, workspace)
        return None if final else workspace.state()

    def beam(
        self, search: BeamSearch, rows: Sequence[DeviceArray], state: CallableState, places: np.ndarray, final: bool
    ) -> CallableState:
        """Run a beam search to its end on B ``rows`` [E, T], from the states of its beams, those of stream i from
        ``places[i]`` on. Returns the states that they need then, stream by stream; none if ``final``."""
        return run_beam(self, search, rows, state, places, final)

    def frames(self, rows: Sequence[DeviceArray], lengths: np.ndarray) -> Any:
        """Rows [E, T] as float32 [all frames, E] on the device."""
        size = rows[0].shape[0] if len(rows) else 0
        return laid_out(rows, lengths, size, np.dtype(np.float32), self.card)

    def workspace(self, state: CallableState, places: np.ndarray, slots: int, frames: Any, rows: int) -> _Lists:
        """A workspace of that many slots, the states at ``places`` of them."""
        index = np.zeros(slots, np.intp)  # what is in the other slots is never read
        index[places] = np.arange(len(places))
        return _Lists(_FlatFrames(self._functions, frames, state.select(index), np.zeros(1, np.int64)))


class _FlatFrames(CallableWorkspace):
    """A workspace over the frames of all rows one after the other, those of row i from ``first[i]`` on."""

    def __init__(self, functions: UserFunctions, frames: Any, state: CallableState, first: np.ndarray):
        super().__init__(functions, frames, state)
        self._first = first

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> Any:
        place = self._functions.on_device
        return self._functions.joint(
            self._frames[place(self._first[utterances] + frames)], self._g[place(slots.astype(np.int64))]
        )


class _Lists:
    """Answers the lists of a search on the device (`cuda.stepwise.DeviceWorkspace`)."""

    def __init__(self, workspace: _FlatFrames):
        self._workspace = workspace

    def joint(self, requests: Requests, rows: int) -> Any:
        wanted = requests.wanted(int(requests.fetch()[1]))
        if not len(wanted):
            return np.uint64(0)  # no row, and none is read
        return self._workspace.joint(wanted["slot"], np.zeros(len(wanted), np.intp), wanted["frame"])

    def predict(self, requests: Requests, rows: int) -> None:
        steps = requests.steps(int(requests.fetch()[0]))
        if len(steps):
            self._workspace.predict(steps["parent"], steps["token"].copy(), steps["slot"])

    def state(self, slots: np.ndarray) -> CallableState:
        return self._workspace.state().select(slots)
