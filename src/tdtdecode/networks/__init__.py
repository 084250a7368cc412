"""Networks: who computes the predictor and the joint. One small protocol, one file per network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from ..kernels import BeamSearch, GreedySearch, KernelSet


class NetworkState(Protocol):
    """Where the predictor stands for some rows. A value: nothing changes it in place."""

    def __len__(self) -> int:
        """Number of rows."""

    def select(self, index: np.ndarray) -> Self:
        """The rows at ``index`` (integers [N], repetitions allowed), in that order."""

    def join(self, others: list[Self]) -> Self:
        """These rows, then those of the others."""

    def like(self, other: Any) -> bool:
        """Whether the other is of the same form, so that rows of both could be joined."""


class Workspace(Protocol):
    """One decode call's buffers: predictor states by slot, and the encoder frames of B rows.

    Greedy search has one slot for each row; a beam search has many.
    """

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Joint rows float32 [N, V + 1 + D], contiguous: int32 [N] slots of states, with frames of int32 [N] rows.

        Valid until the next call.
        """

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        """Run the predictor on int32 [N] tokens from the states of ``parents``; keep the results in ``slots``."""

    def state(self) -> NetworkState:
        """The states in all slots. Ends the workspace."""


class Program(Protocol):
    """A network compiled together with the searches on it: one call runs a whole decode."""

    def greedy(self, search: GreedySearch, utterances: Any, state: Any, final: bool) -> NetworkState | None:
        """Run a greedy search to its end.

        Parameters
        ----------
        search:
            The search over B utterances, moved on.
        utterances:
            The encoder output of each utterance, [E, T], as `utterances_of` or `device_utterances` returned it.
        state:
            The predictor states to begin with, one for each utterance.
        final:
            Whether the utterances end here.

        Returns
        -------
        The predictor states to go on from, one for each utterance; None if ``final``.
        """

    def beam(
        self, search: BeamSearch, utterances: Any, state: Any, places: np.ndarray, final: bool
    ) -> NetworkState:
        """Run a beam search to its end.

        Parameters
        ----------
        search, utterances, final:
            As for `greedy`.
        state:
            The predictor states of all beams, utterance by utterance.
        places:
            Integers [B + 1]: the states of utterance i are those from ``places[i]`` up to ``places[i + 1]``.

        Returns
        -------
        The predictor states that the beams need to go on, utterance by utterance; no states if ``final``.
        """


class Network(Protocol):
    """Computes joint rows for a search. Shared by calls and threads: what changes belongs to a call."""

    name: str
    device: str
    """``"cpu"`` or ``"cuda"``: where frames and states are."""

    def start(self, blank: int) -> NetworkState:
        """The state of one row before its first frame: the predictor run on blank from nothing."""

    def program(self, kernels: KernelSet) -> Program | None:
        """The compiled whole for these kernels; None where they drive the network, a `SteppedNetwork`, step by step."""


class SteppedNetwork(Network, Protocol):
    """A network on the CPU that a search can drive step by step."""

    frame_dtype: np.dtype
    """What encoder frames are given in."""
    lockstep: bool
    """True: the predictor runs for any subset of rows. False: only for all rows that are still alive, together
    (label looping: rows that emitted wait for the others)."""

    def workspace(self, frames: np.ndarray, state: Any) -> Workspace:
        """A workspace for ``frames`` [B, T, E] of ``frame_dtype``, contiguous; its slots hold the rows of the state."""
