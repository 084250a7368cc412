"""Predictor and joint made of their weights. The whole decode loop is compiled, so there is no call per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..reprs import counted, one_line
from ..transducer import TransducerSpec
from ..weights import Affine, TransducerWeights
from .packing import MAX_INPUTS, Arithmetic, pack_network
from .state import ArrayState, array_state

if TYPE_CHECKING:
    from ..kernels import BeamSearch, GreedySearch, KernelSet
    from ..traces import Profile

PRECISIONS = ("float32", "bfloat16", "int8")

SCREENED_OUTPUTS = 4096
"""With at least this many outputs of the joint, screening saves more time than the later log-probabilities cost."""


class FusedNetwork:
    """A transducer's weights, and the compiled decode loops for them.

    Parameters
    ----------
    weights:
        Those of predictor and joint.
    spec:
        The joint row's layout, which the weights must fit.
    precision:
        - ``"float32"``: exact;
        - ``"bfloat16"``: weights and the vectors that they are multiplied with are rounded to bfloat16, sums are
          float32;
        - ``"int8"``: int8 weights with a scale for each output, 8-bit vectors with a scale for each, exact integer
          sums.

        Results do not depend on the batch in any of them.
    threads:
        The number of threads of one decode call.

    With the kernels ``"reference"``, the network is the NumPy code below, which is its specification, in float32.

    N predictor states are an `ArrayState`: the predictor's share of the joint's hidden vector [N, J], then the outputs
    and the cells of the LSTM layers, [L, N, H] each. A predictor that looks at C tokens has no outputs there, and in
    place of cells, [C - 1, N, H], what the tokens so far add to its output in each of the next C - 1 steps.

    Raises
    ------
    InputError
        If there is no such precision, the weights do not fit the spec, or they are not finite or too large.
    """

    name = "fused"
    device = "cpu"
    card = None
    lockstep = True
    frame_dtype = np.dtype(np.float32)

    def __init__(
        self, weights: TransducerWeights, spec: TransducerSpec, precision: str = "float32", threads: int = 1
    ):
        if precision not in PRECISIONS:
            raise InputError(f"network 'fused' has no precision {precision!r} on the cpu: {', '.join(PRECISIONS)}")
        _check(weights, spec)
        self.weights = weights
        self.spec = spec
        self.precision = precision
        self.threads = threads

    def __repr__(self) -> str:
        return one_line(
            self, f"{self.precision} on the {self.device}", self.weights.sizes, counted(self.threads, "thread")
        )

    def start(self, blank: int) -> ArrayState:
        layers, size = len(self.weights.layers), self.weights.prediction.weight.shape[1]
        hidden, cell = (np.zeros((count, 1, size), np.float32) for count in (layers, self.weights.cells))
        only = np.zeros(1, np.intp)
        state = array_state(np.zeros((1, len(self.weights.prediction.weight)), np.float32), (hidden, cell))
        workspace = _Workspace(self.weights, np.empty((1, 0, 0), np.float32), state)
        workspace.predict(only, np.array([blank], np.int32), only)
        return workspace.state()

    def workspace(self, frames: np.ndarray, state: ArrayState) -> _Workspace:
        return _Workspace(self.weights, frames, state)

    def program(self, kernels: KernelSet, arithmetic: Arithmetic | None = None) -> FusedProgram | None:
        """The network compiled with the searches, for the instruction set of the kernels; None for ``"reference"``.

        ``arithmetic`` says how to pack the weights; None: in the fastest way.

        Raises
        ------
        InputError
            If the network, or its precision, does not exist for these kernels.
        """
        if kernels.name == "reference":
            if self.precision != "float32":
                raise InputError(f"kernels 'reference' compute in float32; precision {self.precision!r} needs 'cpu'")
            return None
        if kernels.isa is None:
            raise InputError(f"network 'fused' does not exist for kernels {kernels.name!r}: reference, cpu")
        return FusedProgram(self, kernels.isa, arithmetic)


class FusedProgram:
    """A fused network, compiled for one instruction set; a `Program`.

    `greedy` and `beam` add what they spend to a ``profile``, if there is one.
    """

    def __init__(self, network: FusedNetwork, isa: str, arithmetic: Arithmetic | None = None):
        from ._fused import CompiledNetwork, screened_slots, widens_halves

        if arithmetic is None:
            slots = screened_slots(isa) if network.spec.joint_width >= SCREENED_OUTPUTS else 0
            arithmetic = Arithmetic(
                network.precision,
                halves=widens_halves(isa),
                screen=network.precision == "float32" and slots > 0,
                screened_slots=slots,
            )
        self.packed = pack_network(network.weights, network.spec, arithmetic)
        self._compiled = CompiledNetwork(self.packed, isa)
        self._threads = network.threads

    @property
    def threads(self) -> int:
        """The number of threads of one decode call."""
        return self._threads

    def greedy(
        self,
        search: GreedySearch,
        utterances: Sequence[np.ndarray] | np.ndarray,
        state: ArrayState,
        final: bool,
        profile: Profile | None = None,
    ) -> ArrayState | None:
        utterances = self._checked(utterances)
        prediction, hidden, cell = (array.copy() for array in state.arrays)
        # Long utterances come first, so that none is decoded alone at the end.
        order = np.argsort(search.frame - search.positions[2], kind="stable").astype(np.int32)
        log, logprobs = self._compiled.greedy(
            utterances, order, search.positions, prediction, hidden, cell,
            search.options, search.masks, self._threads, *_counters(profile),
        )  # fmt: skip
        search.finish(log, logprobs)
        return None if final else array_state(prediction, (hidden, cell))

    def beam(
        self,
        search: BeamSearch,
        utterances: Sequence[np.ndarray] | np.ndarray,
        state: ArrayState,
        places: np.ndarray,
        final: bool,
        profile: Profile | None = None,
    ) -> ArrayState:
        utterances = self._checked(utterances)
        order = np.argsort(-search.lengths, kind="stable").astype(np.int32)
        with search.naming_failures():
            prediction, hidden, cell = map(np.ascontiguousarray, state.arrays)
            done = self._compiled.beam(
                search.engine.address, utterances, order, search.lengths, places.astype(np.int64),
                prediction, hidden, cell, self._threads, not final, *_counters(profile),
            )  # fmt: skip
            if done is None:
                search.engine.raise_failure()
        assert done is not None
        prediction, hidden, cell = done
        return array_state(prediction, (hidden, cell))

    def _checked(self, utterances: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        """The encoder output of each utterance in float32, [E, T] with the E of the weights."""
        size = self.packed.encoder.inputs
        for i, frames in enumerate(utterances):
            if frames.shape[0] != size:
                raise InputError(f"encoder_out[{i}] must be [E, T] with E = {size}, got {list(frames.shape)}")
        return [np.asarray(frames, np.float32) for frames in utterances]


def _counters(profile: Profile | None) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    return () if profile is None else (profile.counts, profile.nanoseconds)


class _Workspace:
    """The network's specification in NumPy."""

    def __init__(self, weights: TransducerWeights, frames: np.ndarray, state: ArrayState):
        self._weights = weights
        self._frames = frames
        self._prediction, self._hidden, self._cell = (array.copy() for array in state.arrays)

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> np.ndarray:
        projected = _applied(self._weights.encoder, self._frames[utterances, frames])
        hidden = _ACTIVATIONS[self._weights.activation](projected + self._prediction[slots])
        return _applied(self._weights.output, hidden)

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        x = self._weights.embedding[tokens]
        hidden, cell = self._hidden[:, parents], self._cell[:, parents]
        for i, layer in enumerate(self._weights.layers):
            zero = np.zeros(len(layer.bias), np.float32)
            gates = _applied(Affine(layer.input, layer.bias), x) + _applied(Affine(layer.recurrent, zero), hidden[i])
            i_gate, o_gate, f_gate, new = np.split(gates, 4, axis=1)
            cell[i] = _sigmoid(f_gate) * cell[i] + _sigmoid(i_gate) * np.tanh(new)
            x = hidden[i] = _sigmoid(o_gate) * np.tanh(cell[i])
        if self._weights.earlier:
            x = np.maximum(x + cell[0], np.float32(0))
            later = [*cell[1:], np.float32(0)]
            for i, table in enumerate(self._weights.earlier):
                cell[i] = table[tokens] + later[i]
        self._hidden[:, slots], self._cell[:, slots] = hidden, cell
        self._prediction[slots] = _applied(self._weights.prediction, x)

    def state(self) -> ArrayState:
        return array_state(self._prediction, (self._hidden, self._cell))


def _applied(affine: Affine, x: np.ndarray) -> np.ndarray:
    """[N, inputs] -> [N, outputs]. Unlike in a BLAS product, the bits of a row do not depend on the other rows."""
    return np.einsum("ni,oi->no", x, affine.weight) + affine.bias


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
}


def _check(weights: TransducerWeights, spec: TransducerSpec) -> None:
    rows, joint = weights.output.weight.shape
    size = weights.prediction.weight.shape[1]
    below = weights.embedding.shape[1]
    fits = {
        f"embedding has {len(weights.embedding)} rows, expected V + 1 = {spec.vocab_size + 1}":
            len(weights.embedding) == spec.vocab_size + 1,
        f"output has {rows} rows, expected V + B + D = {spec.joint_width}": rows == spec.joint_width,
        f"encoder has {len(weights.encoder.weight)} outputs and prediction {len(weights.prediction.weight)}, "
        f"but output takes {joint} inputs": len(weights.encoder.weight) == len(weights.prediction.weight) == joint,
        f"encoder takes {weights.encoder.weight.shape[1]} numbers, expected E = {spec.encoder_size}":
            spec.encoder_size in (None, weights.encoder.weight.shape[1]),
        f"the joint and the layers may take at most {MAX_INPUTS} inputs":
            max(joint, 2 * size, below + size, weights.encoder.weight.shape[1]) <= MAX_INPUTS,
    }  # fmt: skip
    for i, layer in enumerate(weights.layers):
        fits[f"LSTM layer {i} does not take {below} numbers and give {size}"] = (
            layer.input.shape == (4 * size, below) and layer.recurrent.shape == (4 * size, size)
        )
        below = size
    if weights.earlier:
        fits["only a predictor without layers looks at earlier tokens"] = not weights.layers
        fits[f"the tables of earlier tokens are not {list(weights.embedding.shape)}, as the embedding is"] = all(
            table.shape == weights.embedding.shape for table in weights.earlier
        )
    fits[f"the predictor gives {below} numbers, but its projection takes {size}"] = below == size
    for problem, good in fits.items():
        if not good:
            raise InputError(f"weights do not fit: {problem}")
    if problem := weights.problem():
        raise InputError(problem)
