"""Taking the weights of predictor and joint out of their graphs, by structure: names mean nothing.

A row is traced back from the joint's output:

    row = output product( activation( encoder product(frame) + prediction product(g) ) )

and g through LSTM layers, each fed by the one below and by its own slice of the states, to the embedding. What only
moves axes of one element is passed over. Predictor and joint may share the work in any way: where a combined graph was
cut, the prediction product is the predictor's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...weights import Affine, LstmLayer, TransducerWeights
from ..onnx_files.dependencies import import_onnx
from ..onnx_files.graph import Graph
from ..transducers import CombinedTransducer, PredictorGraph, SplitTransducer, width
from .dequantize import dequantized
from .expressions import MAX_CONSTANT_BYTES, CannotLift, Expressions, attributes
from .patterns import affine, described, floats, identity, logits, shares

if TYPE_CHECKING:
    import onnx

__all__ = ["CannotLift", "lift"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ELEMENTWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
_OF_TOKENS: dict[str, Callable[..., np.ndarray]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
}
_LSTM_ACTIVATIONS = [b"sigmoid", b"tanh", b"tanh"]


def lift(transducer: SplitTransducer | CombinedTransducer) -> TransducerWeights:
    """The weights of a transducer, float32 whatever they are stored in.

    Raises
    ------
    CannotLift
        If its structure is not the one above; the message names the operator and what was expected.
    """
    if isinstance(transducer, CombinedTransducer):
        raise CannotLift(f"predictor and joint could not be told apart in the combined graph: {transducer.reason}")
    try:
        # What overflows is found when all is there, by its result.
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
            f"expected {', '.join(_ACTIVATIONS)} before the joint's last product, found {described(node, name)}"
        )
    joint_size = output.weight.shape[1]
    encoder, prediction = shares(joint, node.input[0], ports.encoder, ports.predictor, joint_size)
    source = transducer.predictor.output.name
    if prediction is None:
        source, prediction = _predictor_share(predictor, source, joint_size)
    embedding, layers = _Predictor(predictor, transducer.predictor).lift(source)
    if boundary not in (None, len(embedding)):
        raise CannotLift(
            f"the joint normalises {boundary} numbers of a row by themselves; expected the {len(embedding)} tokens"
        )
    weights = TransducerWeights(embedding, layers, prediction, encoder, _ACTIVATIONS[node.op_type], output)
    _check_widths(weights, transducer)
    _check_finite(weights, (predictor.graph, joint.graph))
    return weights


def _predictor_share(predictor: Expressions, name: str, size: int) -> tuple[str, Affine]:
    """The prediction's product at the end of a predictor; none where a joint as wide as its LSTM adds that itself."""
    name, node, _ = predictor.source(name)
    if node is not None and node.op_type in ("MatMul", "Gemm", "Add"):
        return affine(predictor, name, "the prediction's product")
    return name, identity(size)


class _Predictor:
    """The layers of a predictor and how they are wired to its states."""

    def __init__(self, graph: Expressions, ports: PredictorGraph):
        self._graph = graph
        self._ports = ports
        self._inputs = [port.name for port in ports.states_in]
        self._outputs = [port.name for port in ports.states_out]

    def lift(self, name: str) -> tuple[np.ndarray, tuple[LstmLayer, ...]]:
        """The embedding and the layers, from the bottom up, below the tensor of that name."""
        found: list[tuple[onnx.NodeProto, LstmLayer]] = []
        name, node, output = self._graph.source(name)
        while node is not None and node.op_type in ("LSTM", "GRU", "RNN"):
            if node.op_type != "LSTM" or output == 2:
                raise CannotLift(f"expected LSTM layers and their outputs in the predictor, found {node.op_type}")
            found.append((node, self._layer(node)))
            name, node, output = self._graph.source(node.input[0])
        found.reverse()
        self._check_states([lstm for lstm, _ in found])
        return floats(self._table(name)), tuple(layer for _, layer in found)

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
            raise CannotLift(f"{where}: its weights are no constants")
        size = values[1].shape[-1]
        bias = np.zeros(8 * size, np.float32) if values[2] is None else values[2].astype(np.float32).reshape(-1)
        return LstmLayer(floats(values[0][0]), floats(values[1][0]), bias[: 4 * size] + bias[4 * size:])

    def _check_states(self, layers: list[onnx.NodeProto]) -> None:
        """Each layer must begin with its own slice of both states, and its results must become the same slices."""
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
        """The state a tensor is cut from, and which layer's part of it."""
        name, node, output = self._graph.source(name)
        if node is None:
            return name, 0
        if node.op_type in ("Slice", "Gather"):
            # Before opset 10, a Slice has attributes for its bounds.
            starts = np.asarray(attributes(node).get("starts", ()))
            index = self._graph.constant(node.input[1]) if len(node.input) > 1 else starts
        elif node.op_type == "Split":
            index = np.array([output])
        else:
            return described(node, name), 0
        if index is None or index.size != 1:
            return described(node, name), 0
        at = int(index.reshape(()))
        return self._graph.behind_views(node.input[0]), at % self._ports.state_shapes[0][0]

    def _parts(self, name: str) -> list[tuple[onnx.NodeProto | None, int]]:
        """The tensors that a state is put together from."""
        _, node, output = self._graph.source(name)
        if node is not None and node.op_type == "Concat":
            return [self._graph.source(value)[1:] for value in node.input]
        return [(node, output)]

    def _table(self, name: str) -> np.ndarray:
        """What each token becomes: float32 [V + 1, width]."""
        name, node, _ = self._graph.source(name)
        where = described(node, name)
        if node is None:
            raise CannotLift(f"expected the predictor to begin with an embedding, found {where}")
        if node.op_type == "Gather":
            return self._rows(node)
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
                raise CannotLift(f"{where}: cannot be computed for all {len(table)} tokens ahead")
            return table @ layer.weight.T + layer.bias
        raise CannotLift(f"expected LSTM layers over an embedding in the predictor, found {where}")

    def _rows(self, node: onnx.NodeProto) -> np.ndarray:
        rows = self._graph.constant(node.input[0])
        where = described(node, node.output[0])
        if rows is None or rows.ndim != 2 or attributes(node).get("axis", 0) != 0:
            raise CannotLift(f"{where}: expected the embedding to be rows [V + 1, width] of constants")
        index, maker, _ = self._graph.source(node.input[1])
        if index != self._ports.targets.name:
            raise CannotLift(
                f"{where}: expected the embedding to be looked up by the tokens {self._ports.targets.name}, found "
                f"{described(maker, index)}"
            )
        return rows.astype(np.float32)

    def _masked(self, node: onnx.NodeProto) -> np.ndarray:
        """Where(condition on the token, one of embedding and number, the other)."""
        tables = [name for name in node.input[1:3] if self._number(name) is None]
        if len(tables) != 1:
            raise CannotLift(f"{described(node, node.output[0])}: expected a mask of the embedding by one number")
        table = self._table(tables[0])
        mask = self._of_each_token(node.input[0], len(table)).reshape(-1, 1)
        first, second = (self._number(name) for name in node.input[1:3])
        chosen = np.where(mask, table if first is None else first, table if second is None else second)
        return np.asarray(chosen, np.float32)

    def _scaled(self, node: onnx.NodeProto) -> np.ndarray:
        """The embedding times a constant, or times a mask made of the token."""
        for name, factor in (tuple(node.input), tuple(reversed(node.input))):
            constant = self._graph.constant(factor)
            if constant is not None:
                table = self._table(name)
                if constant.size not in (1, table.shape[1]):
                    break
                return table * constant.astype(np.float32).reshape(-1)
            if self._is_of_token(factor):
                table = self._table(name)
                return table * self._of_each_token(factor, len(table)).astype(np.float32).reshape(-1, 1)
        raise CannotLift(f"{described(node, node.output[0])}: expected an embedding times a constant or a mask")

    def _number(self, name: str) -> np.ndarray | None:
        """A constant that is a single number."""
        constant = self._graph.constant(name)
        return constant.reshape(()) if constant is not None and constant.size == 1 else None

    def _is_of_token(self, name: str) -> bool:
        name, node, _ = self._graph.source(name)
        return name == self._ports.targets.name or (node is not None and node.op_type in _OF_TOKENS)

    def _of_each_token(self, name: str, tokens: int) -> np.ndarray:
        """What an expression of nothing but the token is, for each: [V + 1], or one number for all."""
        name, node, _ = self._graph.source(name)
        if name == self._ports.targets.name:
            return np.arange(tokens)
        number = self._number(name)
        if number is not None:
            return number
        if node is None or node.op_type not in _OF_TOKENS:
            raise CannotLift(f"expected a mask that compares the token with a number, found {described(node, name)}")
        return _OF_TOKENS[node.op_type](*(self._of_each_token(value, tokens) for value in node.input))


def _check_widths(weights: TransducerWeights, transducer: SplitTransducer) -> None:
    """Refuse weights that do not fit each other or the graphs' ports, which behind views nothing else would show."""
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
            raise CannotLift(f"{what} has {found} numbers by its weights, but {size} are given")


def _check_finite(weights: TransducerWeights, graphs: tuple[Graph, ...]) -> None:
    parts: dict[str, tuple[np.ndarray, ...]] = {"the embedding": (weights.embedding,)}
    for i, layer in enumerate(weights.layers):
        parts[f"LSTM layer {i}"] = (layer.input, layer.recurrent, layer.bias)
    for name in ("prediction", "encoder", "output"):
        found = getattr(weights, name)
        parts[f"the {name} product"] = (found.weight, found.bias)
    for part, arrays in parts.items():
        if not all(np.isfinite(array).all() for array in arrays):
            stored = ", ".join(_tensors_not_finite(graphs))
            where = f" ({stored})" if stored else ""
            raise CannotLift(f"{part} has weights that are infinite or no numbers{where}: the export is damaged")


def _tensors_not_finite(graphs: tuple[Graph, ...]) -> list[str]:
    """Names of the weights, as they are stored, that are to blame."""
    onnx = import_onnx()
    floats = {getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")}
    return [
        name
        for graph in graphs
        for name, tensor in graph.initializers.items()
        if tensor.data_type in floats and not np.isfinite(graph.array(name).astype(np.float32)).all()
    ]
