"""The user's own functions on device arrays. The joint rows that they return are decided and ranked on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import first_frames
from ...cuda.arrays import DeviceArray, laid_out
from ...cuda.requests import Requests
from ...errors import InputError
from ..functions import CallableState, CallableWorkspace, UserFunctions
from ..loops import label_looping
from .stepwise import run_beam

if TYPE_CHECKING:
    from ...kernels import BeamSearch, GreedySearch, KernelSet


class CallableCudaProgram:
    """The user's functions with the searches that drive them.

    The host calls the functions, so it must know how many rows they are to compute. In each round the search's lists
    are copied to the host, a few integers for each row. The joint rows themselves stay on the device.
    """

    max_rows = 1 << 16
    rounds = 1

    def __init__(self, functions: UserFunctions, kernels: KernelSet):
        if kernels.name != "cuda":
            raise InputError(f"network 'callable' on cuda does not exist for kernels {kernels.name!r}: use 'cuda'")
        assert functions.card is not None
        self._functions = functions
        self.card = functions.card

    def greedy(
        self, search: GreedySearch, utterances: Sequence[DeviceArray], state: CallableState, final: bool
    ) -> CallableState | None:
        """Run a greedy search to its end; parameters and result are those of `Program.greedy`."""
        lengths = search.positions[2]
        workspace = _FlatFrames(self._functions, self.frames(utterances, lengths), state, first_frames(lengths))
        label_looping(search, workspace)
        return None if final else workspace.state()

    def beam(
        self,
        search: BeamSearch,
        utterances: Sequence[DeviceArray],
        state: CallableState,
        places: np.ndarray,
        final: bool,
    ) -> CallableState:
        """Run a beam search to its end; parameters and result are those of `Program.beam`."""
        return run_beam(self, search, utterances, state, places, final)

    def frames(self, utterances: Sequence[DeviceArray], lengths: np.ndarray) -> Any:
        """The frames of B utterances [E, T] in one array, float32 [all frames, E] on the device."""
        size = utterances[0].shape[0] if len(utterances) else 0
        return laid_out(utterances, lengths, size, np.dtype(np.float32), self.card)

    def workspace(self, state: CallableState, places: np.ndarray, slots: int, frames: Any, capacity: int) -> _Lists:
        """A workspace with ``slots`` slots; state i is put in slot ``places[i]``."""
        index = np.zeros(slots, np.intp)  # the other slots are never read before they are written
        index[places] = np.arange(len(places))
        return _Lists(_FlatFrames(self._functions, frames, state.select(index), np.zeros(1, np.int64)))


class _FlatFrames(CallableWorkspace):
    """A workspace whose frames [all frames, E] lie one after the other; those of utterance i begin at ``first[i]``."""

    def __init__(self, functions: UserFunctions, frames: Any, state: CallableState, first: np.ndarray):
        super().__init__(functions, frames, state)
        self._first = first

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> Any:
        place = self._functions.on_device
        return self._functions.joint(
            self._frames[place(self._first[utterances] + frames)], self._g[place(slots.astype(np.int64))]
        )


class _Lists:
    """A `DeviceWorkspace`: computes what a search on the device asks for in its lists."""

    def __init__(self, workspace: _FlatFrames):
        self._workspace = workspace

    def joint(self, requests: Requests, rows: int) -> Any:
        wanted = requests.wanted(int(requests.fetch()[1]))
        if not len(wanted):
            return np.uint64(0)  # a null pointer: no row is wanted, so none is read
        return self._workspace.joint(wanted["slot"], np.zeros(len(wanted), np.intp), wanted["frame"])

    def predict(self, requests: Requests, steps: int) -> None:
        asked = requests.steps(int(requests.fetch()[0]))
        if len(asked):
            self._workspace.predict(asked["parent"], asked["token"].copy(), asked["slot"])

    def state(self, slots: np.ndarray) -> CallableState:
        return self._workspace.state().select(slots)
