"""Finding the weights of predictor and joint in their graphs.

Exporters name weights differently, so names are not used. The joint row is followed backwards through the graph, which
must compute

    row = output(activation(encoder(frame) + prediction(g)))

where `output`, `encoder` and `prediction` are products with weights, and g is the predictor's output. Then g is
followed backwards through LSTM layers to the embedding. Each layer must read the layer below and its own slice of the
states. Operators that only move axes of size 1 are skipped. The product `prediction` may lie in the joint's graph or
in the predictor's. It lies in the latter where a combined graph was split, and in models of k2, whose predictors look
at the last few tokens in place of states (`contexts`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...weights import Affine, LstmLayer, TransducerWeights
from ..onnx_files.dependencies import import_onnx
from ..onnx_files.graph import Graph
from ..transducers import CombinedTransducer, PredictorGraph, SplitTransducer, width
from .contexts import context_tables
from .dequantize import dequantized
from .expressions import MAX_CONSTANT_BYTES, CannotLift, Expressions, attributes
from .patterns import affine, as_float32, describe, identity, logits, projections

if TYPE_CHECKING:
    import onnx

__all__ = ["CannotLift", "lift"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ELEMENTWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
_COMPARISONS: dict[str, Callable[..., np.ndarray]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
}
_LSTM_ACTIVATIONS = [b"sigmoid", b"tanh", b"tanh"]


def lift(transducer: SplitTransducer | CombinedTransducer) -> TransducerWeights:
    """The weights of a transducer as float32 arrays, whatever type they are stored in.

    Raises
    ------
    CannotLift
        If the graphs compute something else than the formula at the top of this file. The message names the operator
        that was found, and what was expected.
    """
    if isinstance(transducer, CombinedTransducer):
        raise CannotLift(f"predictor and joint could not be told apart in the combined graph: {transducer.reason}")
    try:
        # An overflow is not an error yet: the finished weights are checked for infinities.
        with np.errstate(over="ignore", invalid="ignore"):
            return _lifted(transducer)
    except RecursionError:
        raise CannotLift("its operators are nested too deeply for the predictor and joint of a transducer") from None


def _lifted(transducer: SplitTransducer) -> TransducerWeights:
    ports = transducer.joint
    joint = Expressions(dequantized(ports.graph))
    predictor = Expressions(dequantized(transducer.predictor.graph))
    name, boundary = logits(joint, ports.output.name, len(ports.output_shape))
    hidden, output = affine(joint, name, "the joint's output")
    name, node, _ = joint.source(hidden)
    if node is None or node.op_type not in _ACTIVATIONS:
        raise CannotLift(
            f"expected {', '.join(_ACTIVATIONS)} before the joint's last product, found {describe(node, name)}"
        )
    joint_size = output.weight.shape[1]
    encoder, prediction = projections(joint, node.input[0], ports.encoder, ports.predictor, joint_size)
    source = transducer.predictor.output.name
    if prediction is None:
        source, prediction = _predictor_projection(predictor, source, joint_size)
    earlier: list[np.ndarray] = []
    layers: tuple[LstmLayer, ...] = ()
    if transducer.predictor.context is not None:
        entries = width(transducer.joint.output_shape)  # k2's models have no durations
        embedding, *earlier = context_tables(predictor, transducer.predictor, source, entries)
    else:
        embedding, layers = _Predictor(predictor, transducer.predictor).lift(source)
    if boundary not in (None, len(embedding)):
        raise CannotLift(
            f"the joint normalises {boundary} numbers of a row separately; expected the {len(embedding)} tokens"
        )
    weights = TransducerWeights(embedding, layers, prediction, encoder, _ACTIVATIONS[node.op_type], output,
                                tuple(earlier))  # fmt: skip
    _check_widths(weights, transducer)
    _check_values(weights, (predictor.graph, joint.graph))
    return weights


def _predictor_projection(predictor: Expressions, name: str, size: int) -> tuple[str, Affine]:
    """The product `prediction` at the end of a predictor's graph, and the tensor it is applied to.

    A joint may also have no such product, and add the LSTM's output as it is. The product is then the identity.
    """
    name, node, _ = predictor.source(name)
    if node is not None and node.op_type in ("MatMul", "Gemm", "Add"):
        return affine(predictor, name, "the prediction's product")
    return name, identity(size)


class _Predictor:
    """Finds the embedding and the LSTM layers of a predictor, and checks which states each layer uses."""

    def __init__(self, graph: Expressions, ports: PredictorGraph):
        self._graph = graph
        self._ports = ports
        self._inputs = [port.name for port in ports.states_in]
        self._outputs = [port.name for port in ports.states_out]

    def lift(self, name: str) -> tuple[np.ndarray, tuple[LstmLayer, ...]]:
        """The embedding [V + 1, width] and the LSTM layers, from the bottom up, that compute the tensor `name`."""
        found: list[tuple[onnx.NodeProto, LstmLayer]] = []
        name, node, output = self._graph.source(name)
        while node is not None and node.op_type in ("LSTM", "GRU", "RNN"):
            if node.op_type != "LSTM" or output == 2:
                raise CannotLift(f"expected LSTM layers and their outputs in the predictor, found {node.op_type}")
            found.append((node, self._layer(node)))
            name, node, output = self._graph.source(node.input[0])
        found.reverse()
        self._check_states([lstm for lstm, _ in found])
        return as_float32(self._table(name)), tuple(layer for _, layer in found)

    def _layer(self, node: onnx.NodeProto) -> LstmLayer:
        where = f"LSTM {node.name or node.output[0]}"
        options = attributes(node)
        if options.get("direction", b"forward") != b"forward":
            raise CannotLift(f"{where}: expected the forward direction, found {options['direction'].decode()}")
        activations = [name.lower() for name in options.get("activations", _LSTM_ACTIVATIONS)]
        if activations != _LSTM_ACTIVATIONS:
            found = ", ".join(name.decode() for name in options["activations"])
            raise CannotLift(f"{where}: expected activations Sigmoid, Tanh, Tanh, found {found}")
        for name in ("clip", "input_forget"):
            if options.get(name, 0):
                raise CannotLift(f"{where}: the option {name} is not supported")
        if len(node.input) > 7 and node.input[7]:
            raise CannotLift(f"{where}: peepholes are not supported")
        values = [self._graph.constant(name) if name else None for name in [*node.input, "", ""][1:4]]
        if values[0] is None or values[1] is None or (values[2] is None and len(node.input) > 3 and node.input[3]):
            raise CannotLift(f"{where}: its weights are not constants")
        size = values[1].shape[-1]
        bias = np.zeros(8 * size, np.float32) if values[2] is None else values[2].astype(np.float32).reshape(-1)
        return LstmLayer(as_float32(values[0][0]), as_float32(values[1][0]), bias[: 4 * size] + bias[4 * size:])

    def _check_states(self, layers: list[onnx.NodeProto]) -> None:
        """Check that each layer starts from its own slice of both states, and writes the same slices."""
        expected = 2 if layers else 0
        if len(self._inputs) != expected:
            raise CannotLift(f"expected {expected} states for {len(layers)} LSTM layers, found {len(self._inputs)}")
        parts = [self._parts(name) for name in self._outputs]
        for i, node in enumerate(layers):
            initial = [*node.input, "", "", ""][5:7]
            where = f"LSTM {node.name or node.output[0]}"
            ports = []
            for name, what in zip(initial, ("hidden state", "cell")):
                port, at = self._slice(name) if name else ("nothing", 0)
                if port not in self._inputs or at != i:
                    raise CannotLift(
                        f"{where}: expected its initial {what} to be slice {i} of a state, found {port}[{at}]"
                    )
                ports.append(self._inputs.index(port))
            if ports[0] == ports[1]:
                raise CannotLift(f"{where}: hidden state and cell come from the same state")
            for state, what, results in zip(ports, ("hidden state", "cell"), ((0, 1), (2,))):
                maker, output = parts[state][i] if i < len(parts[state]) else (None, -1)
                if maker is not node or output not in results:
                    raise CannotLift(
                        f"{where}: expected slice {i} of {self._outputs[state]} to be the layer's new {what}"
                    )

    def _slice(self, name: str) -> tuple[str, int]:
        """The state that a tensor is a slice of, and the index of that slice."""
        name, node, output = self._graph.source(name)
        if node is None:
            return name, 0
        if node.op_type in ("Slice", "Gather"):
            # Before opset 10, the bounds of a Slice are attributes.
            starts = np.asarray(attributes(node).get("starts", ()))
            index = self._graph.constant(node.input[1]) if len(node.input) > 1 else starts
        elif node.op_type == "Split":
            index = np.array([output])
        else:
            return describe(node, name), 0
        if index is None or index.size != 1:
            return describe(node, name), 0
        at = int(index.reshape(()))
        return self._graph.behind_views(node.input[0]), at % self._ports.state_shapes[0][0]

    def _parts(self, name: str) -> list[tuple[onnx.NodeProto | None, int]]:
        """The nodes, with output indices, that compute the slices of a state."""
        _, node, output = self._graph.source(name)
        if node is not None and node.op_type == "Concat":
            return [self._graph.source(value)[1:] for value in node.input]
        return [(node, output)]

    def _table(self, name: str) -> np.ndarray:
        """The value of a tensor that depends on the token only, for each token: float32 [V + 1, width]."""
        name, node, _ = self._graph.source(name)
        where = describe(node, name)
        if node is None:
            raise CannotLift(f"expected the predictor to begin with an embedding, found {where}")
        if node.op_type == "Gather":
            return self._gathered(node)
        if node.op_type == "DequantizeLinear":
            scale, zero = (self._graph.constant(value) for value in [*node.input, ""][1:3])
            table = self._table(node.input[0])
            if scale is None or scale.size != 1:
                raise CannotLift(f"{where}: expected one scale for the whole quantised embedding")
            offset = np.float32(0) if zero is None else zero.astype(np.float32).reshape(())
            return (table - offset) * scale.astype(np.float32).reshape(())
        if node.op_type in _ELEMENTWISE:
            return _ELEMENTWISE[node.op_type](self._table(node.input[0])).astype(np.float32)
        if node.op_type == "Where":
            return self._masked(node)
        if node.op_type == "Mul":
            return self._scaled(node)
        if node.op_type in ("MatMul", "Gemm", "Add"):
            source, layer = affine(self._graph, name, "a layer over the embedding")
            table = self._table(source)
            if 4 * len(table) * len(layer.weight) > MAX_CONSTANT_BYTES or table.shape[1] != layer.weight.shape[1]:
                raise CannotLift(f"{where}: cannot be computed in advance for all {len(table)} tokens")
            return table @ layer.weight.T + layer.bias
        raise CannotLift(f"expected LSTM layers over an embedding in the predictor, found {where}")

    def _gathered(self, node: onnx.NodeProto) -> np.ndarray:
        """The constant table that a Gather looks up by the token."""
        rows = self._graph.constant(node.input[0])
        where = describe(node, node.output[0])
        if rows is None or rows.ndim != 2 or attributes(node).get("axis", 0) != 0:
            raise CannotLift(f"{where}: expected the embedding to be a constant [V + 1, width]")
        index, maker, _ = self._graph.source(node.input[1])
        if index != self._ports.targets.name:
            raise CannotLift(
                f"{where}: expected the embedding to be looked up by the tokens {self._ports.targets.name}, found "
                f"{describe(maker, index)}"
            )
        return rows.astype(np.float32)

    def _masked(self, node: onnx.NodeProto) -> np.ndarray:
        """A Where that replaces the embedding of some tokens by a number, such as that of blank by 0."""
        tables = [name for name in node.input[1:3] if self._number(name) is None]
        if len(tables) != 1:
            raise CannotLift(f"{describe(node, node.output[0])}: expected a choice between the embedding and a number")
        table = self._table(tables[0])
        mask = self._for_each_token(node.input[0], len(table)).reshape(-1, 1)
        first, second = (self._number(name) for name in node.input[1:3])
        chosen = np.where(mask, table if first is None else first, table if second is None else second)
        return np.asarray(chosen, np.float32)

    def _scaled(self, node: onnx.NodeProto) -> np.ndarray:
        """The embedding times a constant, or times a mask that depends on the token."""
        for name, factor in (tuple(node.input), tuple(reversed(node.input))):
            constant = self._graph.constant(factor)
            if constant is not None:
                table = self._table(name)
                if constant.size not in (1, table.shape[1]):
                    break
                return table * constant.astype(np.float32).reshape(-1)
            if self._is_mask(factor):
                table = self._table(name)
                return table * self._for_each_token(factor, len(table)).astype(np.float32).reshape(-1, 1)
        raise CannotLift(f"{describe(node, node.output[0])}: expected an embedding times a constant or a mask")

    def _number(self, name: str) -> np.ndarray | None:
        """The value of a tensor that is a constant single number; None for other tensors."""
        constant = self._graph.constant(name)
        return constant.reshape(()) if constant is not None and constant.size == 1 else None

    def _is_mask(self, name: str) -> bool:
        """Whether a tensor is the token or a comparison, as the factor that masks an embedding is."""
        name, node, _ = self._graph.source(name)
        return name == self._ports.targets.name or (node is not None and node.op_type in _COMPARISONS)

    def _for_each_token(self, name: str, tokens: int) -> np.ndarray:
        """The value of a mask for each of `tokens` tokens: [tokens], or one number for all of them."""
        name, node, _ = self._graph.source(name)
        if name == self._ports.targets.name:
            return np.arange(tokens)
        number = self._number(name)
        if number is not None:
            return number
        if node is None or node.op_type not in _COMPARISONS:
            raise CannotLift(f"expected a mask that compares the token with a number, found {describe(node, name)}")
        return _COMPARISONS[node.op_type](*(self._for_each_token(value, tokens) for value in node.input))


def _check_widths(weights: TransducerWeights, transducer: SplitTransducer) -> None:
    """Check that the weights' widths fit each other and the graphs' ports.

    The graphs may hide a mismatch behind a Reshape, so nothing else would notice it.
    """
    g = weights.layers[-1].recurrent.shape[1] if weights.layers else weights.embedding.shape[1]
    below = [weights.embedding.shape[1], *(layer.recurrent.shape[1] for layer in weights.layers[:-1])]
    joint = weights.output.weight.shape[1]
    expected = {
        "the row": (len(weights.output.weight), width(transducer.joint.output_shape)),
        "the encoder product's input": (weights.encoder.weight.shape[1], width(transducer.joint.encoder_shape)),
        "the prediction product's input": (weights.prediction.weight.shape[1], g),
        "the prediction product's result": (len(weights.prediction.weight), joint),
    }
    for i, (layer, size) in enumerate(zip(weights.layers, below)):
        expected[f"the input of LSTM layer {i}"] = (layer.input.shape[1], size)
    for what, (found, size) in expected.items():
        if found != size:
            raise CannotLift(f"{what} has {found} values according to its weights, expected {size}")


def _check_values(weights: TransducerWeights, graphs: tuple[Graph, ...]) -> None:
    """Check that no weight is infinite, NaN or too large, and name the stored tensors that are infinite or NaN."""
    problem = weights.problem()
    if problem:
        stored = ", ".join(_tensors_not_finite(graphs))
        where = f" ({stored})" if stored else ""
        raise CannotLift(f"{problem}{where}: the export is damaged")


def _tensors_not_finite(graphs: tuple[Graph, ...]) -> list[str]:
    """The names of the stored weights that are infinite or NaN."""
    onnx = import_onnx()
    floats = {getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")}
    return [
        name
        for graph in graphs
        for name, tensor in graph.initializers.items()
        if tensor.data_type in floats and not np.isfinite(graph.array(name).astype(np.float32)).all()
    ]
