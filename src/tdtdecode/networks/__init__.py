"""Networks compute the predictor and the joint. They share one small protocol; each has a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from ..cuda.device import Device
    from ..kernels import BeamSearch, GreedySearch, KernelSet


class NetworkState(Protocol):
    """Several predictor states: one for each utterance, or those of beams. A value: nothing changes it in place."""

    def __len__(self) -> int:
        """The number of states."""

    def select(self, index: np.ndarray) -> Self:
        """The states at ``index`` (integers [N], which may repeat), in that order."""

    def join(self, others: list[Self]) -> Self:
        """These states, followed by those of the others."""

    def like(self, other: Any) -> bool:
        """Whether ``other`` has the same form, so that the states of both can be joined."""


class Workspace(Protocol):
    """The buffers of one decode call: predictor states by slot, and the encoder frames of B utterances.

    Greedy search has one slot for each utterance, a beam search has many.
    """

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Compute joint rows, float32 [N, V + 1 + D], contiguous; valid until the next call.

        Row i is that of the predictor state in ``slots[i]`` and of frame ``frames[i]`` of ``utterances[i]``; all int32
        [N].
        """

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        """Run the predictor on int32 [N] tokens, from the states in slots ``parents`` to new states in ``slots``."""

    def state(self) -> NetworkState:
        """The states in all slots, in order. The workspace must not be used after that."""


class Program(Protocol):
    """A network compiled together with the searches on it. One call runs a whole decode."""

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
    """Computes joint rows for a search. Calls and threads share it, so it never changes; workspaces do."""

    name: str
    device: str
    """``"cpu"`` or ``"cuda"``: where frames and states are."""

    @property
    def card(self) -> Device | None:
        """The card that it was made on, for ``"cuda"``."""

    def start(self, blank: int) -> NetworkState:
        """The one predictor state before the first token: the predictor run on blank, from zero."""

    def program(self, kernels: KernelSet) -> Program | None:
        """The network compiled with the searches for these kernels.

        None if the kernels run the network step by step; then it is a `SteppedNetwork`.
        """


class SteppedNetwork(Network, Protocol):
    """A network on the CPU that a search can run step by step."""

    frame_dtype: np.dtype
    """The dtype of encoder frames."""
    lockstep: bool
    """Whether the predictor runs for any subset of utterances. If not, it runs for all of them together, once each has
    emitted a token or ended (label looping)."""

    def workspace(self, frames: np.ndarray, state: Any) -> Workspace:
        """A workspace for ``frames`` [B, T, E] of ``frame_dtype``, contiguous. Slot i holds the i-th of the states."""
