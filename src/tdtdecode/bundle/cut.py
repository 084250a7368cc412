"""Splitting a combined graph, in memory, into the predictor and the joint it was made from."""

from __future__ import annotations

from ..errors import BundleError, TdtDecodeError
from .onnx_files.dependencies import import_onnx
from .onnx_files.flow import Flow, part
from .onnx_files.graph import Graph, Port
from .ports import token_inputs
from .probe import filled, free_batch_axes, probe_batch
from .transducers import PredictorGraph


class CannotSplit(TdtDecodeError):
    """The structure of a combined graph does not allow a split; the message says why."""


def encoder_input(graph: Graph) -> Port:
    """The input of a combined graph that takes encoder frames.

    States reach the states that come out, encoder frames the row only. Where that does not tell them apart, it is
    the first float input.
    """
    floats = token_inputs(graph).floats
    if not floats:
        raise BundleError("no float input takes encoder frames", file=graph.file)
    flow = Flow(graph)
    outputs = {port.name for port in graph.outputs if port.is_float}
    reached = {port: len(flow.reached([port.name]) & outputs) for port in floats}
    fewest = min((count for count in reached.values() if count), default=0)
    candidates = [port for port in floats if reached[port] == fewest]
    return candidates[0] if len(candidates) == 1 else floats[0]


class Cut:
    """Where a combined graph comes apart: at one tensor, through which everything passes.

    Constants used by both sides are in both; weights stay as they are.

    Parameters
    ----------
    graph:
        The combined graph.
    encoder:
        Its input of encoder frames.

    Attributes
    ----------
    tensors:
        All such tensors, the latest first. Cut there, all that does not depend on the encoder frames is computed by
        the predictor, once per emitted token.

    Raises
    ------
    CannotSplit
        If a state depends on the encoder, or no single tensor separates the two.
    """

    def __init__(self, graph: Graph, encoder: Port):
        self._graph = graph
        self._encoder = encoder
        self._flow = Flow(graph)
        with_encoder = self._flow.reached([encoder.name])
        rows = [port.name for port in graph.outputs if port.is_float and port.name in with_encoder]
        if len(rows) != 1:
            raise CannotSplit(f"the outputs {', '.join(rows) or 'none'} depend on the encoder; expected just the row")
        self._row = rows[0]
        self.tensors = self._separators(with_encoder)

    def module_boundary(self, blank: int) -> str:
        """The tensor where NeMo's modules meet: the predictor's outputs, past all that only turns their axes.

        Raises
        ------
        CannotSplit
            If there is no such tensor.
        """
        onnx = import_onnx()
        tokens = token_inputs(self._graph)
        states = [port for port in tokens.floats if port.name != self._encoder.name]
        free_batch_axes(self._graph, {**tokens.batch_axes, **{state.name: 1 for state in states}})
        width = states[-1].shape[2] if states else None
        batch = probe_batch(self._graph)
        feeds = tokens.feeds(batch, blank)
        for state in states:
            layers, _, size = state.shape
            assert isinstance(layers, int) and isinstance(size, int)  # as they were when the graph was bound
            feeds[state.name] = filled((layers, None, size), batch, state.dtype, 0)
        inputs = [value for value in self._graph.model.graph.input if value.name in feeds]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.tensors]
        try:
            values = part(self._graph, inputs, outputs).plain_session().run(list(self.tensors), feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise CannotSplit(f"ONNX Runtime refuses the predictor's part: {error}") from None
        found = None
        for tensor, value in zip(reversed(self.tensors), reversed(values)):
            of_tokens = width is not None and sorted(value.shape) == sorted([batch, 1, width])
            if of_tokens and (found is None or self._turns(tensor)):
                found = tensor
            elif found is not None:
                break
        if found is None:
            raise CannotSplit(f"no tensor of {width} numbers for each token lies before the joint")
        return found

    def _turns(self, tensor: str) -> bool:
        return self._graph.model.graph.node[self._flow.producer[tensor]].op_type == "Transpose"

    def predictor(self, tensor: str | None = None) -> Graph:
        """The predictor's part; its outputs are the tensor cut at (default: the latest) and the states."""
        onnx = import_onnx()
        tensor = self.tensors[0] if tensor is None else tensor
        floats = {port.name for port in self._graph.outputs if port.is_float} - {self._row}
        if tensor in floats:
            raise CannotSplit(f"the joint takes the output {tensor}")
        states = [value for value in self._graph.model.graph.output if value.name in floats]
        boundary = onnx.ValueInfoProto(name=tensor)
        inputs = [value for value in self._graph.model.graph.input if value.name != self._encoder.name]
        predictor = part(self._graph, inputs, [boundary, *states])
        # Operators outside the standard have types that only ONNX Runtime knows.
        kind = _output_types(predictor)[tensor]
        if kind not in _FLOATS:
            raise CannotSplit(f"the joint takes {tensor} of type {kind}; expected floats")
        boundary = predictor.model.graph.output[0]
        boundary.type.tensor_type.elem_type = getattr(onnx.TensorProto, _FLOATS[kind])
        return predictor

    def joint(self, predictor: PredictorGraph) -> Graph:
        """The joint's part; its inputs are the encoder frames and the predictor's output."""
        onnx = import_onnx()
        port = predictor.output
        taken = onnx.helper.make_tensor_value_info(
            port.name, onnx.helper.np_dtype_to_tensor_dtype(port.dtype), predictor.output_shape
        )
        encoder = [value for value in self._graph.model.graph.input if value.name == self._encoder.name]
        rows = [value for value in self._graph.model.graph.output if value.name == self._row]
        return part(self._graph, [*encoder, taken], rows, stop={port.name})

    def _separators(self, with_encoder: set[str]) -> tuple[str, ...]:
        flow = self._flow
        sources = [port.name for port in self._graph.inputs if port.name != self._encoder.name]
        with_tokens = flow.reached(sources) - with_encoder
        joint = [i for i in flow.needed([self._row]) if flow.outputs(i) & with_encoder]
        # What the joint takes from the predictor is a frontier. The node computed last before it moves to the
        # joint's side, until one tensor is left through which everything passes; and on, to the ones before it.
        frontier = {name for i in joint for name in flow.inputs(i)} & with_tokens
        taken = ", ".join(sorted(frontier))
        found: list[str] = []
        while frontier and frontier <= flow.producer.keys():
            if len(frontier) == 1:
                found += frontier
            last = max(flow.producer[name] for name in frontier)
            frontier -= flow.outputs(last)
            frontier |= flow.inputs(last) & with_tokens
        if not found:
            raise CannotSplit(f"the joint takes {taken or 'nothing'} from the predictor; expected one tensor")
        return tuple(found)


_FLOATS = {"tensor(float)": "FLOAT", "tensor(float16)": "FLOAT16", "tensor(bfloat16)": "BFLOAT16"}


def _output_types(graph: Graph) -> dict[str, str]:
    try:
        session = graph.plain_session()
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise CannotSplit(f"ONNX Runtime refuses the predictor's part: {error}") from None
    return {output.name: output.type for output in session.get_outputs()}
