"""Splitting a combined graph, in memory, into the predictor and the joint it was made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import BundleError, TdtDecodeError
from .graph import Graph, Port, import_onnx
from .ports import token_inputs
from .transducers import PredictorGraph

if TYPE_CHECKING:
    import onnx


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
    flow = _Flow(graph)
    outputs = {port.name for port in graph.outputs if port.is_float}
    reached = {port: len(flow.reached([port.name]) & outputs) for port in floats}
    fewest = min((count for count in reached.values() if count), default=0)
    candidates = [port for port in floats if reached[port] == fewest]
    return candidates[0] if len(candidates) == 1 else floats[0]


class Cut:
    """Where a combined graph comes apart: at one tensor, taken as late as possible.

    All that does not depend on the encoder frames is then computed by the predictor, once per emitted token.
    Constants used by both sides are in both; weights stay as they are.

    Parameters
    ----------
    graph:
        The combined graph.
    encoder:
        Its input of encoder frames.

    Raises
    ------
    CannotSplit
        If a state depends on the encoder, or no single tensor separates the two.
    """

    def __init__(self, graph: Graph, encoder: Port):
        self._graph = graph
        self._encoder = encoder
        self._flow = _Flow(graph)
        with_encoder = self._flow.reached([encoder.name])
        rows = [port.name for port in graph.outputs if port.is_float and port.name in with_encoder]
        if len(rows) != 1:
            raise CannotSplit(f"the outputs {', '.join(rows) or 'none'} depend on the encoder; expected just the row")
        self._row = rows[0]
        self._tensor = self._separator(with_encoder)

    def predictor(self) -> Graph:
        """The predictor's part; its outputs are the cut tensor and the states."""
        onnx = import_onnx()
        floats = {port.name for port in self._graph.outputs if port.is_float} - {self._row}
        if self._tensor in floats:
            raise CannotSplit(f"the joint takes the output {self._tensor}")
        states = [value for value in self._graph.model.graph.output if value.name in floats]
        boundary = onnx.ValueInfoProto(name=self._tensor)
        inputs = [value for value in self._graph.model.graph.input if value.name != self._encoder.name]
        part = self._part(inputs, [boundary, *states], stop=())
        # Operators outside the standard have types that only ONNX Runtime knows.
        kind = _output_types(part)[self._tensor]
        if kind not in _FLOATS:
            raise CannotSplit(f"the joint takes {self._tensor} of type {kind}; expected floats")
        boundary = part.model.graph.output[0]
        boundary.type.tensor_type.elem_type = getattr(onnx.TensorProto, _FLOATS[kind])
        return part

    def joint(self, predictor: PredictorGraph) -> Graph:
        """The joint's part; its inputs are the encoder frames and the predictor's output."""
        onnx = import_onnx()
        port = predictor.output
        taken = onnx.helper.make_tensor_value_info(
            port.name, onnx.helper.np_dtype_to_tensor_dtype(port.dtype), predictor.output_shape
        )
        encoder = [value for value in self._graph.model.graph.input if value.name == self._encoder.name]
        rows = [value for value in self._graph.model.graph.output if value.name == self._row]
        return self._part([*encoder, taken], rows, stop={self._tensor})

    def _separator(self, with_encoder: set[str]) -> str:
        flow = self._flow
        sources = [port.name for port in self._graph.inputs if port.name != self._encoder.name]
        with_tokens = flow.reached(sources) - with_encoder
        joint = [i for i in flow.needed([self._row]) if flow.outputs(i) & with_encoder]
        # What the joint takes from the predictor is a frontier. The node computed last before it moves to the
        # joint's side, until one tensor is left through which everything passes.
        frontier = {name for i in joint for name in flow.inputs(i)} & with_tokens
        taken = ", ".join(sorted(frontier))
        while len(frontier) > 1:
            if not frontier <= flow.producer.keys():
                break
            last = max(flow.producer[name] for name in frontier)
            frontier -= flow.outputs(last)
            frontier |= flow.inputs(last) & with_tokens
        if len(frontier) != 1 or not frontier <= flow.producer.keys():
            raise CannotSplit(f"the joint takes {taken or 'nothing'} from the predictor; expected one tensor")
        return frontier.pop()

    def _part(
        self,
        inputs: Iterable[onnx.ValueInfoProto],
        outputs: Iterable[onnx.ValueInfoProto],
        stop: Collection[str],
    ) -> Graph:
        onnx = import_onnx()
        outputs = list(outputs)
        whole = self._graph.model
        indices = self._flow.needed([value.name for value in outputs], stop)
        used = {name for i in indices for name in self._flow.inputs(i)}
        graph = onnx.helper.make_graph(
            [whole.graph.node[i] for i in sorted(indices)],
            whole.graph.name or "part",
            list(inputs),
            outputs,
            [tensor for tensor in whole.graph.initializer if tensor.name in used],
            sparse_initializer=[t for t in whole.graph.sparse_initializer if t.values.name in used],
        )
        graph.quantization_annotation.extend(whole.graph.quantization_annotation)
        part = onnx.helper.make_model(
            graph, opset_imports=whole.opset_import, functions=whole.functions, ir_version=whole.ir_version
        )
        return Graph(part, self._graph.file, self._graph.weights_folder)


_FLOATS = {"tensor(float)": "FLOAT", "tensor(float16)": "FLOAT16", "tensor(bfloat16)": "BFLOAT16"}


def _output_types(graph: Graph) -> dict[str, str]:
    try:
        session = graph.plain_session()
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise CannotSplit(f"ONNX Runtime refuses the predictor's part: {error}") from None
    return {output.name: output.type for output in session.get_outputs()}


class _Flow:
    """Which tensors depend on which, through nodes in topological order."""

    def __init__(self, graph: Graph):
        self._nodes = graph.model.graph.node
        self.producer = {name: i for i, node in enumerate(self._nodes) for name in node.output if name}
        for i in range(len(self._nodes)):
            if any(self.producer.get(name, -1) >= i for name in self.inputs(i)):
                raise BundleError("its nodes are not in topological order", file=graph.file)

    @cached_property
    def _inputs(self) -> list[set[str]]:
        return [set(_names_read(node)) for node in self._nodes]

    def inputs(self, i: int) -> set[str]:
        """Tensors that node i reads, also from inside its subgraphs."""
        return self._inputs[i]

    def outputs(self, i: int) -> set[str]:
        return {name for name in self._nodes[i].output if name}

    def reached(self, names: Iterable[str]) -> set[str]:
        """The given tensors and all that depend on them."""
        reached = set(names)
        for i in range(len(self._nodes)):
            if self.inputs(i) & reached:
                reached |= self.outputs(i)
        return reached

    def needed(self, names: Iterable[str], stop: Collection[str] = ()) -> set[int]:
        """The nodes that compute the given tensors, when those in `stop` are already there."""
        needed: set[int] = set()
        pending = [name for name in names if name not in stop]
        while pending:
            i = self.producer.get(pending.pop())
            if i is not None and i not in needed:
                needed.add(i)
                pending.extend(name for name in self.inputs(i) if name not in stop)
        return needed


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            inner = {name for inner_node in graph.node for name in inner_node.output}
            inner.update(value.name for value in graph.input)
            inner.update(tensor.name for tensor in graph.initializer)
            for inner_node in graph.node:
                yield from (name for name in _names_read(inner_node) if name not in inner)
            yield from (value.name for value in graph.output if value.name not in inner)
