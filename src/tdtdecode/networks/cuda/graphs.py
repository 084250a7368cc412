"""Predictor and joint run by ONNX Runtime on the device: states, frames and joint rows never leave it.

A workspace computes what a search asks for in its lists (``csrc/cuda/requests.cuh``). Only the device knows how long
the lists are. So graphs are run for as many rows as there may be, and nothing reads the rows past a list's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle.transducers import CombinedTransducer, Ports, PredictorGraph, SplitTransducer, token_ports, width
from ...cuda.device import Device, import_cupy
from ...cuda.kernels import kernels
from ...cuda.requests import Requests
from ...cuda.state import DeviceState
from ...cuda.structs import COPY, address
from ...sessions import CUDA

if TYPE_CHECKING:
    import onnxruntime as ort


class _Runs:
    """A graph with buffers on the device for its inputs and outputs, bound once for each number of rows."""

    def __init__(
        self, session: ort.InferenceSession, options: Any, device: int, inputs: Ports, outputs: Ports, rows: int
    ):
        cupy = import_cupy()
        self._session, self._options, self._device = session, options, device
        self._inputs, self._outputs = inputs, outputs
        # Zeros, since the graph runs past a list's end too and must find valid tokens there.
        self.buffers = {port.name: cupy.zeros(width(shape) * rows, port.dtype) for port, shape in inputs + outputs}
        self._bound: dict[int, Any] = {}

    def run(self, rows: int) -> None:
        """Run the graph on the first ``rows`` rows of the buffers."""
        if rows not in self._bound:
            binding = self._session.io_binding()
            for bind, ports in ((binding.bind_input, self._inputs), (binding.bind_output, self._outputs)):
                for port, shape in ports:
                    exact = tuple(rows if dim is None else dim for dim in shape)
                    bind(port.name, CUDA, self._device, port.dtype, exact, address(self.buffers[port.name]))
            self._bound[rows] = binding
        self._session.run_with_iobinding(self._bound[rows], self._options)


def _copy(
    source: int, target: int, source_row: int, target_row: int, row_bytes: int, outer: int = 1,
    outers: tuple[int, int] = (0, 0), rows_from: tuple[int, int] = (0, 0), rows_to: tuple[int, int] = (0, 0),
) -> np.ndarray:  # fmt: skip
    """A `structs.COPY` [1]. ``rows_from`` and ``rows_to`` are the address of int32 row numbers and the stride between
    two of them, in int32; (0, 0) stands for the rows in their order."""
    record: np.ndarray = np.zeros(1, COPY)
    values = (
        source, target, rows_from[0], rows_to[0], source_row, outers[0], target_row, outers[1], rows_from[1],
        rows_to[1], outer, row_bytes,
    )  # fmt: skip
    for name, value in zip(COPY.names or (), values):
        record[name] = value
    return record


class Workspace:
    """The predictor states of a decode by slot, its frames, and the graphs that run on them.

    Parameters
    ----------
    transducer:
        The graphs.
    sessions:
        Those of predictor and joint. Where one graph computes both, its session twice.
    card:
        The device.
    state, places:
        N states to begin with, and int [N] the slots that they are put in.
    slots:
        Number of slots.
    frames:
        [all frames, E] on the device, in the dtype that the graph takes.
    capacity:
        Most entries of a list.
    options:
        Run options.
    """

    def __init__(
        self,
        transducer: SplitTransducer | CombinedTransducer,
        sessions: tuple[ort.InferenceSession, ort.InferenceSession],
        card: Device,
        state: DeviceState,
        places: np.ndarray,
        slots: int,
        frames: Any,
        capacity: int,
        options: ort.RunOptions,
    ):
        cupy = import_cupy()
        self._card = card
        self._frames = frames
        self._whole = isinstance(transducer, CombinedTransducer)
        index = cupy.asarray(np.ascontiguousarray(places, np.int64))
        self._arenas = []
        for array, axis in zip(state.gathered(), state.axes):
            arena = cupy.zeros(array.shape[:axis] + (slots,) + array.shape[axis + 1 :], array.dtype)
            arena[(slice(None),) * axis + (index,)] = array
            self._arenas.append(arena)
        self._axes = state.axes
        self._graph = transducer.predictor if isinstance(transducer, SplitTransducer) else transducer
        tokens, states_out = token_ports(self._graph)
        if isinstance(transducer, SplitTransducer):
            joint = transducer.joint
            outputs: Ports = [(joint.output, joint.output_shape)]
            self._joint_inputs: Ports = [(joint.encoder, joint.encoder_shape), (joint.predictor, joint.predictor_shape)]
            self._joint = _Runs(sessions[1], options, card.index, self._joint_inputs, outputs, capacity)
            made = [(transducer.predictor.output, transducer.predictor.output_shape), *states_out]
            self._runs = _Runs(sessions[0], options, card.index, tokens, made, capacity)
            self._output = joint.output
            self._encoder = joint.encoder
        else:
            outputs = [(transducer.output, transducer.output_shape)]
            inputs = [(transducer.encoder, transducer.encoder_shape), *tokens]
            outputs_and_states = [*outputs, *states_out]
            self._runs = self._joint = _Runs(sessions[1], options, card.index, inputs, outputs_and_states, capacity)
            self._next = [cupy.zeros(arena.shape, arena.dtype) for arena in self._arenas[1:]]
            self._output = transducer.output
            self._encoder = transducer.encoder
        if self._graph.target_length is not None:
            self._runs.buffers[self._graph.target_length.name].fill(1)
        self._width = width(outputs[0][1])
        self._wide = cupy.zeros(self._width * capacity, np.float32) if self._output.dtype != np.float32 else None
        self._tables: dict[tuple[str, int, int], tuple[Any, int]] = {}

    def joint(self, requests: Requests, rows: int) -> Any:
        """Compute the joint rows that are wanted, float32 [rows, V + 1 + D] on the device; see `DeviceWorkspace`."""
        wanted, frame = (requests.wanted_slots, 4), (requests.wanted_frames, 4)
        buffers = self._joint.buffers
        size = self._frames.dtype.itemsize * self._frames.shape[1]
        copies = [_copy(address(self._frames), address(buffers[self._encoder.name]), size, size, size, rows_from=frame)]
        if self._whole:
            copies += self._token_copies(wanted) + self._state_copies(self._arenas[1:], rows, gather=wanted)
        else:
            port, _ = self._joint_inputs[1]
            copies.append(self._row_copy(self._arenas[0], buffers[port.name], rows_from=wanted))
        self._gather("joint", rows, requests.wanted_count, requests.address, copies)
        self._joint.run(rows)
        if self._whole:
            scatter = self._state_copies(self._next, rows, scatter=wanted)
            self._gather("made", rows, requests.wanted_count, requests.address, scatter)
        made = buffers[self._output.name]
        if self._wide is None:
            return made
        arguments = (made, self._wide, np.int64(rows * self._width))
        kernels(self._card, "rows.cu").launch("widen_rows", self._card.multiprocessors, self._card.threads, arguments)
        return self._wide

    def predict(self, requests: Requests, steps: int) -> None:
        """Take the predictor steps that are asked for; see `DeviceWorkspace`."""
        parents, slots = (requests.parents, 3), (requests.slots, 3)
        count, key = requests.step_count, requests.address
        if self._whole:
            copies = [
                copy
                for source, target in zip(self._next, self._arenas[1:])
                for copy in [self._arena_copy(source, target, parents, slots)]
            ]
            self._gather("kept", steps, count, key, copies)
            self._put_tokens(requests, self._arenas[0], slots[0])
            return
        self._put_tokens(requests, self._runs.buffers[self._graph.targets.name], 0)
        self._gather("parents", steps, count, key, self._state_copies(self._arenas[1:], steps, gather=parents))
        self._runs.run(steps)
        assert isinstance(self._graph, PredictorGraph)
        output = self._runs.buffers[self._graph.output.name]
        row = self._arenas[0].dtype.itemsize * self._arenas[0].shape[1]
        made = [_copy(address(output), address(self._arenas[0]), row, row, row, rows_to=slots)]
        self._gather("slots", steps, count, key, made + self._state_copies(self._arenas[1:], steps, scatter=slots))

    def state(self, slots: np.ndarray) -> DeviceState:
        """The states in those slots."""
        return DeviceState(tuple(self._arenas), self._axes, slots)

    def _gather(self, name: str, rows: int, count: int, key: int, copies: list[np.ndarray]) -> None:
        """Copy at most ``rows`` rows; ``count`` is the address of how many there are.

        The table of copies is made once for each name, number of rows and lists (``key``).
        """
        if not copies:
            return
        cupy = import_cupy()
        if (name, rows, key) not in self._tables:
            table = np.concatenate(copies)
            self._tables[name, rows, key] = cupy.asarray(table.view(np.uint8)), len(table)
        table, arrays = self._tables[name, rows, key]
        kernels(self._card, "gather.cu").launch(
            "copy_rows", rows, min(128, self._card.threads), (table, np.int32(arrays), np.uint64(count))
        )

    def _put_tokens(self, requests: Requests, target: Any, places: int) -> None:
        arguments = (
            np.uint64(requests.tokens), np.uint64(places), np.int32(3), np.uint64(requests.step_count), target,
            np.int32(target.dtype.itemsize == 8),
        )  # fmt: skip
        kernels(self._card, "gather.cu").launch("copy_numbers", 1, self._card.threads, arguments)

    def _token_copies(self, wanted: tuple[int, int]) -> list[np.ndarray]:
        arena, port = self._arenas[0], self._runs.buffers[self._graph.targets.name]
        size = arena.dtype.itemsize
        return [_copy(address(arena), address(port), size, size, size, rows_from=wanted)]

    def _row_copy(self, arena: Any, port: Any, rows_from: tuple[int, int]) -> np.ndarray:
        size = arena.dtype.itemsize * arena.shape[1]
        return _copy(address(arena), address(port), size, size, size, rows_from=rows_from)

    def _state_copies(
        self, arenas: list[Any], rows: int, gather: tuple[int, int] = (0, 0), scatter: tuple[int, int] = (0, 0)
    ) -> list[np.ndarray]:
        """Copies of states [L, slots, H]: ``gather`` to the graph's inputs [L, rows, H], ``scatter`` from outputs."""
        copies = []
        ports = self._graph.states_in if gather[0] else self._graph.states_out
        for port, arena in zip(ports, arenas):
            buffer = address(self._runs.buffers[port.name])
            layers, slots, size = arena.shape
            row = size * arena.dtype.itemsize
            in_arena, in_port = slots * row, rows * row
            if gather[0]:
                copies.append(
                    _copy(address(arena), buffer, row, row, row, layers, (in_arena, in_port), rows_from=gather)
                )
            else:
                copies.append(
                    _copy(buffer, address(arena), row, row, row, layers, (in_port, in_arena), rows_to=scatter)
                )
        return copies

    @staticmethod
    def _arena_copy(source: Any, target: Any, parents: tuple[int, int], slots: tuple[int, int]) -> np.ndarray:
        layers, count, size = source.shape
        row = size * source.dtype.itemsize
        return _copy(
            address(source), address(target), row, row, row, layers, (count * row, count * row), parents, slots
        )
