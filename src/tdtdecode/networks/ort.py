"""Exported graphs run by ONNX Runtime, in lockstep over all utterances, on buffers that are bound once and reused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle.onnx_files.graph import Graph
from ..bundle.transducers import CombinedTransducer, Ports, PredictorGraph, SplitTransducer, token_ports, width
from ..errors import InputError
from ..reprs import joined_names, one_line
from ..sessions import CPU_PROVIDERS, ForkSafeSession, default_options
from .state import ArrayState, array_state

if TYPE_CHECKING:
    import onnxruntime as ort

    from ..kernels import KernelSet

MAX_ROWS = 256
"""The most rows of a run's batch axis. Larger batches save no time and need larger buffers."""


class OrtNetwork:
    """A bundle's predictor and joint on ONNX Runtime's CPU provider.

    Parameters
    ----------
    transducer:
        The graphs: split, or combined if they could not be split. A combined graph always runs predictor and joint
        together; its new states are kept only where a token was emitted.
    threads:
        The number of threads within an operator, for the sessions made here.
    session_options:
        The caller's own session options, which replace ours.
    providers:
        Execution providers; default: the CPU provider.

    N predictor states are an `ArrayState`. For split graphs it has the predictor's output [N, H], then the predictor's
    states [L, N, H]. For combined graphs it has the last token int32 [N], which the predictor has not seen yet, then
    the states before that token.

    Raises
    ------
    InputError
        If both threads and session options are given.
    """

    name = "ort"
    device = "cpu"
    card = None
    lockstep = True

    def __init__(
        self,
        transducer: SplitTransducer | CombinedTransducer,
        threads: int = 1,
        session_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
    ):
        if session_options is not None and threads != 1:
            raise InputError("threads and session_options cannot both be given: set the threads in the options")
        self._transducer = transducer
        options = session_options or default_options(threads)
        providers = list(providers or CPU_PROVIDERS)
        if isinstance(transducer, SplitTransducer):
            self._predictor = _Model(transducer.predictor.graph, options, providers)
            self._joint = _Model(transducer.joint.graph, options, providers)
            encoder = transducer.joint.encoder
        else:
            self._joint = _Model(transducer.graph, options, providers)
            encoder = transducer.encoder
        self.frame_dtype = encoder.dtype

    def __repr__(self) -> str:
        names = joined_names(dict.fromkeys(graph.file.name for graph in self._transducer.graphs))
        return one_line(self, f"{names} on ONNX Runtime", f"on the {self.device}")

    def start(self, blank: int) -> ArrayState:
        first = np.array([blank], np.int32)
        if isinstance(self._transducer, CombinedTransducer):
            return array_state(first, _zero_states(self._transducer))
        graph, only = self._transducer.predictor, np.zeros(1, np.intp)
        states = _zero_states(graph)
        g = np.zeros((1, width(graph.output_shape)), self._transducer.joint.predictor.dtype)
        _PredictorRuns(graph, self._predictor, 1).run(g, states, only, first, only)
        return array_state(g, states)

    def program(self, kernels: KernelSet) -> None:
        return None

    def workspace(self, frames: np.ndarray, state: ArrayState) -> _SplitWorkspace | _WholeWorkspace:
        if isinstance(self._transducer, SplitTransducer):
            return _SplitWorkspace(self._transducer, self._predictor, self._joint, frames, state)
        return _WholeWorkspace(self._transducer, self._joint, frames, state)


def _zero_states(graph: PredictorGraph | CombinedTransducer) -> tuple[np.ndarray, ...]:
    """The predictor states [L, 1, H] before any token."""
    shapes = zip(graph.states_in, graph.state_shapes)
    return tuple(np.zeros((layers, 1, size), port.dtype) for port, (layers, size) in shapes)


class _Model:
    """A graph and its session."""

    def __init__(self, graph: Graph, options: ort.SessionOptions, providers: list[Any]):
        self.rows_at_once = 1 if graph.quantized else MAX_ROWS
        """1 for dynamically quantised graphs: they scale a whole batch at once, so rows would depend on each other."""
        self.session = ForkSafeSession(lambda: graph.session(options, providers), providers, graph.file.name)


class _Runs:
    """A graph's inputs and outputs, in buffers that are allocated once, and bound once for each number of rows."""

    def __init__(self, model: _Model, inputs: Ports, outputs: Ports, rows: int):
        self.rows_at_once = max(1, min(rows, model.rows_at_once))
        self._session = model.session.current
        self._inputs, self._outputs = inputs, outputs
        self._buffers = {
            port.name: np.ones(width(shape) * self.rows_at_once, port.dtype) for port, shape in inputs + outputs
        }
        self._bound: dict[int, tuple[Any, dict[str, np.ndarray]]] = {}

    def at(self, rows: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The binding for this number of rows, and its arrays by port name."""
        if rows not in self._bound:
            binding, arrays = self._session.io_binding(), {}
            for bind, ports in ((binding.bind_input, self._inputs), (binding.bind_output, self._outputs)):
                for port, shape in ports:
                    exact = tuple(rows if dim is None else dim for dim in shape)
                    array = self._buffers[port.name][: width(shape) * rows].reshape(exact)
                    bind(port.name, "cpu", 0, port.dtype, exact, array.ctypes.data)
                    # If the batch axis comes first, each row is one run of memory, whatever the other axes are.
                    arrays[port.name] = array.reshape(rows, -1) if shape[0] is None else array
            self._bound[rows] = binding, arrays
        return self._bound[rows]

    def run(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)


class _PredictorRuns:
    """Takes predictor steps from slots to slots."""

    def __init__(self, graph: PredictorGraph, model: _Model, rows: int):
        self.graph = graph
        inputs, states_out = token_ports(graph)
        self._runs = _Runs(model, inputs, [(graph.output, graph.output_shape), *states_out], rows)

    def run(
        self,
        g: np.ndarray,
        states: tuple[np.ndarray, ...],
        parents: np.ndarray,
        tokens: np.ndarray,
        slots: np.ndarray,
    ) -> None:
        """Step on ``tokens`` from the states in slots ``parents``; write g [S, H] and states [L, S, H] at ``slots``.

        More steps than one run takes are divided over several runs. So no slot may be the parent of another step.
        """
        for i in range(0, len(parents), self._runs.rows_at_once):
            part = slice(i, i + self._runs.rows_at_once)
            binding, arrays = self._runs.at(len(parents[part]))
            arrays[self.graph.targets.name][:, 0] = tokens[part]
            for port, arena in zip(self.graph.states_in, states):
                arena.take(parents[part], 1, out=arrays[port.name], mode="clip")
            self._runs.run(binding)
            g[slots[part]] = arrays[self.graph.output.name]
            for port, arena in zip(self.graph.states_out, states):
                arena[:, slots[part]] = arrays[port.name]


class _Frames:
    """Gathers encoder frames [N, E] from [B, T, E]."""

    def __init__(self, frames: np.ndarray):
        self._stride = frames.shape[1]
        self._frames = frames.reshape(-1, frames.shape[2])

    def gather(self, utterances: np.ndarray, frames: np.ndarray, out: np.ndarray) -> None:
        self._frames.take(utterances.astype(np.intp) * self._stride + frames, 0, out=out, mode="clip")


class _SplitWorkspace:
    def __init__(
        self, transducer: SplitTransducer, predictor: _Model, joint: _Model, frames: np.ndarray, state: ArrayState
    ):
        batch = len(state)
        self._g, *states = (array.copy() for array in state.arrays)
        self._states = tuple(states)
        self._frames = _Frames(frames)
        self._predictor = _PredictorRuns(transducer.predictor, predictor, batch)
        graph = self._graph = transducer.joint
        self._joint = _Runs(
            joint,
            [(graph.encoder, graph.encoder_shape), (graph.predictor, graph.predictor_shape)],
            [(graph.output, graph.output_shape)],
            batch,
        )
        self._rows = np.empty((batch, width(graph.output_shape)), np.float32)

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> np.ndarray:
        for i in range(0, len(slots), self._joint.rows_at_once):
            part = slice(i, i + self._joint.rows_at_once)
            binding, arrays = self._joint.at(len(slots[part]))
            self._frames.gather(utterances[part], frames[part], arrays[self._graph.encoder.name])
            self._g.take(slots[part], 0, out=arrays[self._graph.predictor.name], mode="clip")
            self._joint.run(binding)
            self._rows[part][: len(slots[part])] = arrays[self._graph.output.name]
        return self._rows[: len(slots)]

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        self._predictor.run(self._g, self._states, parents, tokens, slots)

    def state(self) -> ArrayState:
        return array_state(self._g, self._states)


class _WholeWorkspace:
    """Runs predictor and joint together for every joint row. New states are kept only where a token is emitted."""

    def __init__(self, graph: CombinedTransducer, model: _Model, frames: np.ndarray, state: ArrayState):
        batch = len(state)
        self._tokens, *states = (array.copy() for array in state.arrays)
        self._states = tuple(states)
        self._next_states = tuple(np.empty_like(array) for array in self._states)
        self._frames = _Frames(frames)
        self._graph = graph
        inputs, states_out = token_ports(graph)
        self._runs = _Runs(
            model,
            [(graph.encoder, graph.encoder_shape), *inputs],
            [(graph.output, graph.output_shape), *states_out],
            batch,
        )
        self._rows = np.empty((batch, width(graph.output_shape)), np.float32)

    def joint(self, slots: np.ndarray, utterances: np.ndarray, frames: np.ndarray) -> np.ndarray:
        for i in range(0, len(slots), self._runs.rows_at_once):
            part = slice(i, i + self._runs.rows_at_once)
            binding, arrays = self._runs.at(len(slots[part]))
            self._frames.gather(utterances[part], frames[part], arrays[self._graph.encoder.name])
            arrays[self._graph.targets.name][:, 0] = self._tokens[slots[part]]
            for port, arena in zip(self._graph.states_in, self._states):
                arena.take(slots[part], 1, out=arrays[port.name], mode="clip")
            self._runs.run(binding)
            self._rows[part][: len(slots[part])] = arrays[self._graph.output.name]
            for port, arena in zip(self._graph.states_out, self._next_states):
                arena[:, slots[part]] = arrays[port.name]
        return self._rows[: len(slots)]

    def predict(self, parents: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> None:
        for arena, made in zip(self._states, self._next_states):
            arena[:, slots] = made[:, parents]
        self._tokens[slots] = tokens

    def state(self) -> ArrayState:
        return array_state(self._tokens, self._states)
