"""Splitting a combined graph into its predictor and its joint. This is done in memory; no file is written."""

from __future__ import annotations

from ..errors import BundleError, TdtDecodeError
from .onnx_files.dependencies import import_onnx
from .onnx_files.flow import Flow, extract
from .onnx_files.graph import Graph, Port
from .ports import token_inputs
from .probe import make_batch_dynamic, probe_batch, random_values
from .transducers import PredictorGraph


class CannotSplit(TdtDecodeError):
    """A combined graph cannot be split; the message says why."""


def encoder_input(graph: Graph) -> Port:
    """The input of a combined graph that takes encoder frames.

    Encoder frames affect only one output, the joint row. States also affect the states that come out. So the input is
    the float input on which the fewest outputs depend. If several inputs tie, it is the first float input.

    Raises
    ------
    BundleError
        If the graph has no float input.
    """
    floats = token_inputs(graph).floats
    if not floats:
        raise BundleError("expected a float input for encoder frames, but it has no float input", file=graph.file)
    flow = Flow(graph)
    outputs = {port.name for port in graph.outputs if port.is_float}
    reached = {port: len(flow.reached([port.name]) & outputs) for port in floats}
    fewest = min((count for count in reached.values() if count), default=0)
    candidates = [port for port in floats if reached[port] == fewest]
    return candidates[0] if len(candidates) == 1 else floats[0]


class Cut:
    """The places where a combined graph can be split into predictor and joint.

    The graph can be split at a tensor if that tensor is all that the joint takes from the predictor. Constants that
    both parts use are copied into both. Weights are not changed.

    Parameters
    ----------
    graph:
        The combined graph.
    encoder:
        Its input of encoder frames.

    Attributes
    ----------
    tensors:
        The names of all such tensors, the latest first. Splitting at the latest moves as much work as possible into
        the predictor, which runs once per emitted token.

    Raises
    ------
    CannotSplit
        If a state depends on the encoder frames, or no single tensor separates predictor and joint.
    """

    def __init__(self, graph: Graph, encoder: Port):
        self._graph = graph
        self._encoder = encoder
        self._flow = Flow(graph)
        with_encoder = self._flow.reached([encoder.name])
        rows = [port.name for port in graph.outputs if port.is_float and port.name in with_encoder]
        if len(rows) != 1:
            raise CannotSplit(
                f"the outputs that depend on the encoder are {', '.join(rows) or 'none'}; expected only the joint row"
            )
        self._row = rows[0]
        self.tensors = self._separators(with_encoder)

    def module_boundary(self, blank: int) -> str:
        """The name of the tensor where NeMo's predictor module ends and its joint module begins.

        It is the first tensor, in the order of computation, that has as many values per token as the predictor's
        states are wide. Transposes that directly follow it are counted as part of the predictor.

        Parameters
        ----------
        blank:
            Id of blank, which the predictor is run with.

        Raises
        ------
        CannotSplit
            If there is no such tensor, or ONNX Runtime cannot run the predictor's part.
        """
        onnx = import_onnx()
        tokens = token_inputs(self._graph)
        states = [port for port in tokens.floats if port.name != self._encoder.name]
        make_batch_dynamic(self._graph, {**tokens.batch_axes, **{state.name: 1 for state in states}})
        width = states[-1].shape[2] if states else None
        batch = probe_batch(self._graph)
        feeds = tokens.feeds(batch, blank)
        for state in states:
            layers, _, size = state.shape
            assert isinstance(layers, int) and isinstance(size, int)  # checked when the graph was bound
            feeds[state.name] = random_values((layers, None, size), batch, state.dtype, 0)
        inputs = [value for value in self._graph.model.graph.input if value.name in feeds]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.tensors]
        try:
            values = extract(self._graph, inputs, outputs).plain_session().run(list(self.tensors), feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise CannotSplit(f"ONNX Runtime cannot run the predictor's part: {error}") from None
        found = None
        for tensor, value in zip(reversed(self.tensors), reversed(values)):
            per_token = width is not None and sorted(value.shape) == sorted([batch, 1, width])
            if per_token and (found is None or self._is_transpose(tensor)):
                found = tensor
            elif found is not None:
                break
        if found is None:
            raise CannotSplit(f"no tensor before the joint has {width} values per token")
        return found

    def _is_transpose(self, tensor: str) -> bool:
        return self._graph.model.graph.node[self._flow.producer[tensor]].op_type == "Transpose"

    def predictor(self, tensor: str | None = None) -> Graph:
        """The predictor's part. Its outputs are the tensor at which the graph is split, and the states.

        Parameters
        ----------
        tensor:
            One of `tensors`. Default: the first of them.

        Raises
        ------
        CannotSplit
            If the tensor is a state output, or not of a float type.
        """
        onnx = import_onnx()
        tensor = self.tensors[0] if tensor is None else tensor
        floats = {port.name for port in self._graph.outputs if port.is_float} - {self._row}
        if tensor in floats:
            raise CannotSplit(f"the joint reads the state output {tensor}; expected a tensor of its own")
        states = [value for value in self._graph.model.graph.output if value.name in floats]
        boundary = onnx.ValueInfoProto(name=tensor)
        inputs = [value for value in self._graph.model.graph.input if value.name != self._encoder.name]
        predictor = extract(self._graph, inputs, [boundary, *states])
        # ONNX Runtime is asked for the type, since onnx cannot infer it behind non-standard operators.
        kind = _output_types(predictor)[tensor]
        if kind not in _FLOATS:
            raise CannotSplit(f"the joint reads {tensor}, which has type {kind}; expected a float type")
        boundary = predictor.model.graph.output[0]
        boundary.type.tensor_type.elem_type = getattr(onnx.TensorProto, _FLOATS[kind])
        return predictor

    def joint(self, predictor: PredictorGraph) -> Graph:
        """The joint's part. Its inputs are the encoder frames and the output of `predictor`."""
        onnx = import_onnx()
        port = predictor.output
        taken = onnx.helper.make_tensor_value_info(
            port.name, onnx.helper.np_dtype_to_tensor_dtype(port.dtype), predictor.output_shape
        )
        encoder = [value for value in self._graph.model.graph.input if value.name == self._encoder.name]
        rows = [value for value in self._graph.model.graph.output if value.name == self._row]
        return extract(self._graph, [*encoder, taken], rows, stop={port.name})

    def _separators(self, with_encoder: set[str]) -> tuple[str, ...]:
        flow = self._flow
        sources = [port.name for port in self._graph.inputs if port.name != self._encoder.name]
        with_tokens = flow.reached(sources) - with_encoder
        joint = [i for i in flow.needed([self._row]) if flow.outputs(i) & with_encoder]
        # The frontier is the set of tensors that the joint reads from the predictor. Move the predictor's last node
        # over to the joint, again and again. Whenever the frontier is one tensor, the graph can be split there.
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
            raise CannotSplit(f"the joint reads {taken or 'nothing'} from the predictor; expected one tensor")
        return tuple(found)


_FLOATS = {"tensor(float)": "FLOAT", "tensor(float16)": "FLOAT16", "tensor(bfloat16)": "BFLOAT16"}


def _output_types(graph: Graph) -> dict[str, str]:
    try:
        session = graph.plain_session()
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise CannotSplit(f"ONNX Runtime cannot load the predictor's part: {error}") from None
    return {output.name: output.type for output in session.get_outputs()}
