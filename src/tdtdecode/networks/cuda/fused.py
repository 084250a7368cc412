"""Predictor and joint computed from their weights on a GPU, compiled together with the search: no launch per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...cuda.device import cuda_errors, current_device, decoding_failed
from ...cuda.state import DeviceState, uploaded
from ...errors import DeviceError, InputError
from ...reprs import one_line
from ...transducer import TransducerSpec
from ...weights import TransducerWeights
from ..fused import FusedNetwork
from .fused_beam import run_beam
from .fused_greedy import run_greedy
from .packing import WEIGHT_TYPES, pack_network
from .program import FusedNetworkOnDevice, Launch

if TYPE_CHECKING:
    from ...cuda.arrays import DeviceArray
    from ...kernels import BeamSearch, GreedySearch, KernelSet

_BFLOAT16_CAPABILITY = 80


class FusedCudaNetwork:
    """A transducer's weights on the card that CuPy uses, and the decode loops around them.

    Parameters
    ----------
    weights, spec:
        As for `FusedNetwork`.
    precision:
        ``"float32"``: exact. ``"float16"`` and ``"bfloat16"``: weights, and the numbers that they are multiplied with,
        are rounded to 16 bits; sums are float32. In all three, an utterance's results do not depend on its batch.
    launch:
        How a decode is launched on the card; None: what suits the card (`Launch.of`).

    States are `DeviceState` with the arrays of `FusedNetwork`; H is padded to a multiple of 4.

    Raises
    ------
    InputError
        If the weights do not fit the spec, are not finite or too large, have too many layers, or the precision does not
        exist.
    DeviceError
        If there is no card, or it cannot compute in this precision.
    MissingDependencyError
        If CuPy is not installed.
    """

    name = "fused"
    device = "cuda"

    def __init__(
        self, weights: TransducerWeights, spec: TransducerSpec, precision: str = "float32", launch: Launch | None = None
    ):
        if precision not in WEIGHT_TYPES:
            raise InputError(f"network 'fused' has no precision {precision!r} on cuda: {', '.join(WEIGHT_TYPES)}")
        self._specification = FusedNetwork(weights, spec)  # checks the weights
        self.card = current_device()
        if precision == "bfloat16" and self.card.capability < _BFLOAT16_CAPABILITY:
            raise DeviceError(
                f"{self.card.name} cannot multiply bfloat16, which takes compute capability 8.0: choose float16"
            )
        self.precision = precision
        launch = launch or Launch.of(self.card)
        self.on_device = FusedNetworkOnDevice(
            pack_network(weights, spec, precision, launch.blocks), self.card, launch
        )

    def __repr__(self) -> str:
        return one_line(self, f"{self.precision} on the {self.card.name}", self._specification.weights.sizes)

    def start(self, blank: int) -> DeviceState:
        state = self._specification.start(blank)
        padding = self.on_device.net.hidden - state.arrays[1].shape[2]
        prediction, *states = state.arrays
        padded = (np.pad(array, ((0, 0), (0, 0), (0, padding))) for array in states)
        return uploaded(prediction, *padded, axes=state.axes)

    def program(self, kernels: KernelSet) -> FusedCudaProgram:
        """The network with the searches.

        Raises
        ------
        InputError
            For other kernels than ``"cuda"``.
        """
        if kernels.name != "cuda":
            raise InputError(f"network 'fused' on cuda does not exist for kernels {kernels.name!r}: use 'cuda'")
        return FusedCudaProgram(self.on_device)


class FusedCudaProgram:
    """A fused network on the device with its decode loops."""

    def __init__(self, on_device: FusedNetworkOnDevice):
        self._on_device = on_device

    def greedy(
        self, search: GreedySearch, utterances: Sequence[DeviceArray], state: DeviceState, final: bool
    ) -> DeviceState | None:
        """Run a greedy search to its end; parameters and result are those of `Program.greedy`."""
        try:
            return run_greedy(self._on_device, search, utterances, state, final)
        except cuda_errors() as error:
            raise decoding_failed(self._on_device.device, error) from error

    def beam(
        self, search: BeamSearch, utterances: Sequence[DeviceArray], state: DeviceState, places: np.ndarray, final: bool
    ) -> DeviceState:
        """Run a beam search to its end; parameters and result are those of `Program.beam`."""
        try:
            return run_beam(self._on_device, search, utterances, state, places, final)
        except cuda_errors() as error:
            raise decoding_failed(self._on_device.device, error) from error
