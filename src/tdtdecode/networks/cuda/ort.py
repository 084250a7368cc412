"""Exported graphs run by ONNX Runtime's CUDA provider. Every few steps the host reads a few integers, nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle.onnx_files.dependencies import import_onnxruntime
from ...bundle.onnx_files.graph import Graph
from ...bundle.transducers import CombinedTransducer, SplitTransducer, width
from ...cuda.arrays import DeviceArray, laid_out
from ...cuda.device import current_device, import_cupy, shared_stream
from ...cuda.requests import Requests
from ...cuda.state import DeviceState, uploaded
from ...cuda.structs import STEP
from ...errors import DeviceError, InputError
from ...reprs import joined_names, one_line
from ...sessions import cuda_session, default_options, quantized_refusal
from .graphs import Workspace
from .stepwise import run_beam, run_greedy

if TYPE_CHECKING:
    import onnxruntime as ort

    from ...kernels import BeamSearch, GreedySearch, KernelSet


class OrtCudaNetwork:
    """A bundle's predictor and joint on ONNX Runtime's CUDA provider.

    Parameters
    ----------
    transducer, session_options:
        As for `OrtNetwork`.

    Sessions and kernels share one stream, so they run in the order in which they are launched. One decode at a time
    uses the stream. States are `DeviceState` with the arrays of `OrtNetwork`.

    Raises
    ------
    DeviceError
        If there is no card, ONNX Runtime cannot load its CUDA provider, or the graphs are quantised.
    MissingDependencyError
        If CuPy is not installed, or ONNX Runtime has no CUDA provider.
    """

    name = "ort"
    device = "cuda"
    max_rows = 256
    rounds = 8

    def __init__(
        self,
        transducer: SplitTransducer | CombinedTransducer,
        session_options: ort.SessionOptions | None = None,
    ):
        self._transducer = transducer
        self.card = current_device()
        self.stream = shared_stream(self.card.index)
        options = session_options or default_options(1)
        if isinstance(transducer, SplitTransducer):
            graphs = [transducer.predictor.graph, transducer.joint.graph]
            encoder, shape = transducer.joint.encoder, transducer.joint.encoder_shape
        else:
            graphs = [transducer.graph]
            encoder, shape = transducer.encoder, transducer.encoder_shape
        self._frame_dtype = encoder.dtype
        self._encoder_size = width(shape)
        for graph in graphs:
            if graph.quantized:
                raise DeviceError(
                    quantized_refusal(graph.file, "graphs of another variant, network='fused' or device='cpu'")
                )
        sessions = [
            cuda_session(_opener(graph, options), self.card.index, self.stream.ptr, "network 'ort'") for graph in graphs
        ]
        self._sessions = sessions[0], sessions[-1]
        self._run_options = import_onnxruntime().RunOptions()
        # What follows a run is on the same stream and so comes after it: the host need not wait for the run.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        names = joined_names(dict.fromkeys(graph.file.name for graph in self._transducer.graphs))
        return one_line(self, f"{names} on ONNX Runtime", f"on the {self.card.name}")

    def start(self, blank: int) -> DeviceState:
        graph = self._transducer
        predictor = graph.predictor if isinstance(graph, SplitTransducer) else graph
        shapes = zip(predictor.states_in, predictor.state_shapes)
        states = [np.zeros((layers, 1, size), port.dtype) for port, (layers, size) in shapes]
        axes = (0, *(1 for _ in states))
        with self.in_order():
            if isinstance(graph, CombinedTransducer):
                return uploaded(np.array([blank], graph.targets.dtype), *states, axes=axes)
            first = np.zeros((1, width(graph.predictor.output_shape)), graph.joint.predictor.dtype)
            nothing = uploaded(first, *states, axes=axes)
            no_frames = self.frames([], np.zeros(0, np.int32))
            workspace = self.workspace(nothing, np.zeros(1, np.int64), 2, no_frames, 1)
            step = np.zeros(1, STEP)
            step["token"], step["slot"] = blank, 1
            workspace.predict(Requests(1, steps=step), 1)
            return workspace.state(np.ones(1, np.int64))

    def program(self, kernels: KernelSet) -> OrtCudaProgram:
        """The network with the searches.

        Raises
        ------
        InputError
            For other kernels than ``"cuda"``.
        """
        if kernels.name != "cuda":
            raise InputError(f"network 'ort' on cuda does not exist for kernels {kernels.name!r}: use 'cuda'")
        return OrtCudaProgram(self)

    def frames(self, utterances: Sequence[DeviceArray], lengths: np.ndarray) -> Any:
        """The frames of B utterances [E, T] in one array [all frames, E] on the device, in the graphs' dtype."""
        return laid_out(utterances, lengths, self._encoder_size, self._frame_dtype, self.card)

    def workspace(self, state: DeviceState, places: np.ndarray, slots: int, frames: Any, capacity: int) -> Workspace:
        """A workspace with ``slots`` slots, for lists of at most ``capacity`` entries; state i is put in slot
        ``places[i]``."""
        return Workspace(
            self._transducer, self._sessions, self.card, state, places, slots, frames, capacity, self._run_options
        )

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Within it, launches run after the work that the caller's stream has now. They are done when it ends."""
        caller = import_cupy().cuda.get_current_stream()
        with self._lock:
            self.stream.wait_event(caller.record())
            with self.stream:
                yield
                self.stream.synchronize()


class OrtCudaProgram:
    """Graphs on the device with the searches that drive them."""

    def __init__(self, network: OrtCudaNetwork):
        self._network = network

    def greedy(
        self, search: GreedySearch, utterances: Sequence[DeviceArray], state: DeviceState, final: bool
    ) -> DeviceState | None:
        """Run a greedy search to its end; parameters and result are those of `Program.greedy`."""
        with self._network.in_order():
            after = run_greedy(self._network, search, utterances, state)
            return None if final else after

    def beam(
        self, search: BeamSearch, utterances: Sequence[DeviceArray], state: DeviceState, places: np.ndarray, final: bool
    ) -> DeviceState:
        """Run a beam search to its end; parameters and result are those of `Program.beam`."""
        with self._network.in_order():
            return run_beam(self._network, search, utterances, state, places, final)


def _opener(graph: Graph, options: ort.SessionOptions) -> Callable[[list[Any]], ort.InferenceSession]:
    return lambda providers: graph.session(options, providers)
