"""Taking the weights of predictor and joint out of their graphs, by structure: names mean nothing.

A row is traced back from the joint's output:

    row = output product( activation( encoder product(frame) + prediction product(g) ) )

and g through LSTM layers, each fed by the one below and by its own slice of the states, to the embedding. What only
moves axes of one element is passed over. Predictor and joint may share the work in any way: where a combined graph was
cut, the prediction product is the predictor's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..weights import Affine, LstmLayer, TransducerWeights
from .dequantize import dequantized
from .expressions import CannotLift, Expressions, attributes
from .graph import Port
from .transducers import CombinedTransducer, PredictorGraph, SplitTransducer

if TYPE_CHECKING:
    import onnx

__all__ = ["CannotLift", "lift"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ELEMENTWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
_LSTM_ACTIVATIONS = [b"Sigmoid", b"Tanh", b"Tanh"]


def lift(transducer: SplitTransducer | CombinedTransducer) -> TransducerWeights:
    """The weights of a transducer, float32 whatever they are stored in.

    Raises
    ------
    CannotLift
        If its structure is not the one above; the message names the operator and what was expected.
    """
    if isinstance(transducer, CombinedTransducer):
        raise CannotLift(f"predictor and joint could not be told apart in the combined graph: {transducer.reason}")
    joint = Expressions(dequantized(transducer.joint.graph))
    predictor = Expressions(dequantized(transducer.predictor.graph))
    hidden, output = _affine(joint, _without_log_softmax(joint, transducer.joint.output.name), "the joint's output")
    name, node, _ = joint.source(hidden)
    if node is None or node.op_type not in _ACTIVATIONS:
        raise CannotLift(
            f"expected {', '.join(_ACTIVATIONS)} before the joint's last product, found {_described(node, name)}"
        )
    encoder, prediction = _shares(joint, node.input[0], transducer.joint.encoder, transducer.joint.predictor)
    source = transducer.predictor.output.name
    if prediction is None:
        source, prediction = _affine(predictor, source, "the prediction's product")
    embedding, layers = _Predictor(predictor, transducer.predictor).lift(source)
    if encoder is None:
        encoder = _identity(output.weight.shape[1])
    weights = TransducerWeights(embedding, layers, prediction, encoder, _ACTIVATIONS[node.op_type], output)
    _check_finite(weights)
    return weights


def _without_log_softmax(joint: Expressions, name: str) -> str:
    """The logits: a log-softmax over a row shifts it as a whole, which no decision or log-probability sees."""
    _, node, _ = joint.source(name)
    if node is not None and node.op_type == "Log":
        _, node, _ = joint.source(node.input[0])
        if node is None or node.op_type != "Softmax":
            raise CannotLift("expected a Softmax before the Log at the end of the joint")
        return node.input[0]
    return node.input[0] if node is not None and node.op_type == "LogSoftmax" else name


@dataclass
class _Term:
    """A share of the joint's hidden sum: ``weight source + bias``, without a weight where it is the source itself."""

    source: str
    weight: np.ndarray | None
    bias: np.ndarray | float


def _shares(joint: Expressions, name: str, encoder: Port, prediction: Port) -> tuple[Affine | None, Affine | None]:
    """What the joint makes of a frame and of the predictor's output; None where it takes it as it is."""
    terms = _terms(joint, name)
    by_source: dict[str, _Term] = {}
    for term in terms:
        if term.source in by_source:
            raise CannotLift(f"the joint adds {term.source} twice")
        by_source[term.source] = term
    if set(by_source) != {encoder.name, prediction.name}:
        raise CannotLift(
            f"expected the sum of a frame's and a token's share before the joint's activation, found the sum of "
            f"{', '.join(sorted(by_source))}"
        )
    # Where one share is taken as it is, its bias belongs to the other: only the sum counts.
    plain = [term for term in terms if term.weight is None]
    weighted = [term for term in terms if term.weight is not None]
    if not weighted:
        raise CannotLift("the joint multiplies neither the frame nor the predictor's output by weights")
    for term in plain:
        weighted[0].bias = weighted[0].bias + term.bias
    first, second = by_source[encoder.name], by_source[prediction.name]
    return _as_affine(first), _as_affine(second)


def _as_affine(term: _Term) -> Affine | None:
    if term.weight is None:
        return None
    return Affine(term.weight, _bias(term.bias, len(term.weight), term.source))


def _terms(graph: Expressions, name: str) -> list[_Term]:
    """The terms of a sum; constants are added to one of them."""
    name, node, _ = graph.source(name)
    if node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        terms = [term for value, c in zip(node.input, constants) if c is None for term in _terms(graph, value)]
        for constant in constants:
            if constant is not None:
                terms[0].bias = terms[0].bias + constant.astype(np.float32).reshape(-1)
        return terms
    product = _product(graph, node)
    if product is not None:
        return [product]
    if node is not None:
        raise CannotLift(f"expected products and sums before the joint's activation, found {_described(node, name)}")
    return [_Term(name, None, 0.0)]


def _affine(graph: Expressions, name: str, what: str) -> tuple[str, Affine]:
    """Match ``weight x + bias``; returns x behind views."""
    name, node, _ = graph.source(name)
    bias: np.ndarray | float = 0.0
    while node is not None and node.op_type == "Add":
        constants = [graph.constant(value) for value in node.input]
        if sum(constant is not None for constant in constants) != 1:
            raise CannotLift(f"expected {what} to be one product and a bias, found {_described(node, name)}")
        added = next(constant for constant in constants if constant is not None)
        bias = bias + added.astype(np.float32).reshape(-1)
        name, node, _ = graph.source(next(v for v, constant in zip(node.input, constants) if constant is None))
    product = _product(graph, node)
    if product is None or product.weight is None:
        raise CannotLift(f"expected {what} to be a product with weights, found {_described(node, name)}")
    return product.source, Affine(product.weight, _bias(product.bias + bias, len(product.weight), name))


def _product(graph: Expressions, node: onnx.NodeProto | None) -> _Term | None:
    """A MatMul or Gemm of one tensor with constant weights, [outputs, inputs]."""
    if node is None or node.op_type not in ("MatMul", "Gemm"):
        return None
    left, right = (graph.constant(value) for value in node.input[:2])
    if (left is None) == (right is None):
        return None
    stored = right if left is None else left
    assert stored is not None
    if stored.ndim < 2 or stored.size != stored.shape[-2] * stored.shape[-1]:
        return None
    weight = stored.reshape(stored.shape[-2:])
    options = attributes(node) if node.op_type == "Gemm" else {}
    if left is None:
        weight = weight if options.get("transB", 0) else weight.T
    else:
        weight = weight.T if options.get("transA", 0) else weight
    bias: np.ndarray | float = 0.0
    if len(node.input) > 2 and node.input[2]:
        constant = graph.constant(node.input[2])
        if constant is None:
            return None
        bias = constant.astype(np.float32).reshape(-1) * np.float32(options.get("beta", 1.0))
    scaled = weight.astype(np.float32) * np.float32(options.get("alpha", 1.0))
    return _Term(graph.behind_views(node.input[0 if left is None else 1]), np.ascontiguousarray(scaled), bias)


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
        embedding = np.ascontiguousarray(self._table(name), np.float32)
        return embedding, tuple(layer for _, layer in found)

    def _layer(self, node: onnx.NodeProto) -> LstmLayer:
        where = f"LSTM {node.name or node.output[0]}"
        options = attributes(node)
        if options.get("direction", b"forward") != b"forward":
            raise CannotLift(f"{where}: expected the forward direction, found {options['direction'].decode()}")
        if options.get("activations", _LSTM_ACTIVATIONS) != _LSTM_ACTIVATIONS:
            raise CannotLift(f"{where}: expected activations Sigmoid, Tanh, Tanh")
        for name in ("clip", "input_forget"):
            if options.get(name, 0):
                raise CannotLift(f"{where}: the option {name} is not supported")
        if len(node.input) > 7 and node.input[7]:
            raise CannotLift(f"{where}: peepholes are not supported")
        values = [self._graph.constant(name) if name else None for name in [*node.input, "", ""][1:4]]
        if values[0] is None or values[1] is None or (values[2] is None and len(node.input) > 3 and node.input[3]):
            raise CannotLift(f"{where}: its weights are no constants")
        width = values[1].shape[-1]
        bias = np.zeros(8 * width, np.float32) if values[2] is None else values[2].astype(np.float32).reshape(-1)
        return LstmLayer(
            np.ascontiguousarray(values[0][0], np.float32),
            np.ascontiguousarray(values[1][0], np.float32),
            bias[: 4 * width] + bias[4 * width :],
        )

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
            index = self._graph.constant(node.input[1])
        elif node.op_type == "Split":
            index = np.array([output])
        else:
            return _described(node, name), 0
        if index is None or index.size != 1:
            return _described(node, name), 0
        at = int(index.reshape(()))
        return self._graph.behind_views(node.input[0]), at % self._ports.state_shapes[0][0]

    def _parts(self, name: str) -> list[tuple[onnx.NodeProto | None, int]]:
        """The tensors that a state is put together from."""
        _, node, output = self._graph.source(name)
        if node is not None and node.op_type == "Concat":
            return [self._graph.source(value)[1:] for value in node.input]
        return [(node, output)]

    def _table(self, name: str) -> np.ndarray:
        """What each token becomes: [V + 1, width]."""
        name, node, _ = self._graph.source(name)
        if node is None:
            raise CannotLift(f"expected the predictor to begin with an embedding, found {name}")
        if node.op_type == "DequantizeLinear":
            scale, zero = (self._graph.constant(value) for value in [*node.input, ""][1:3])
            table = self._table(node.input[0])
            if scale is None or scale.size != 1:
                raise CannotLift("expected one scale for the whole quantised embedding")
            offset = np.float32(0) if zero is None else zero.astype(np.float32).reshape(())
            return (table - offset) * scale.astype(np.float32).reshape(())
        if node.op_type == "Gather":
            rows = self._graph.constant(node.input[0])
            if rows is None or rows.ndim != 2 or attributes(node).get("axis", 0) != 0:
                raise CannotLift(f"expected the embedding to be rows [V + 1, width] of constants, found {name}")
            return rows.astype(np.float32)
        if node.op_type in _ELEMENTWISE:
            return _ELEMENTWISE[node.op_type](self._table(node.input[0])).astype(np.float32)
        if node.op_type in ("MatMul", "Gemm", "Add"):
            source, affine = _affine(self._graph, name, "a layer over the embedding")
            return self._table(source) @ affine.weight.T + affine.bias
        raise CannotLift(f"expected LSTM layers over an embedding in the predictor, found {_described(node, name)}")


def _bias(bias: np.ndarray | float, outputs: int, where: str) -> np.ndarray:
    values = np.asarray(bias, np.float32).reshape(-1)
    if values.size not in (1, outputs):
        raise CannotLift(f"the bias beside {where} has {values.size} numbers, expected {outputs}")
    return np.ascontiguousarray(np.broadcast_to(values, outputs))


def _identity(size: int) -> Affine:
    return Affine(np.eye(size, dtype=np.float32), np.zeros(size, np.float32))


def _check_finite(weights: TransducerWeights) -> None:
    parts: dict[str, tuple[np.ndarray, ...]] = {"the embedding": (weights.embedding,)}
    for i, layer in enumerate(weights.layers):
        parts[f"LSTM layer {i}"] = (layer.input, layer.recurrent, layer.bias)
    for name in ("prediction", "encoder", "output"):
        affine = getattr(weights, name)
        parts[f"the {name} product"] = (affine.weight, affine.bias)
    for part, arrays in parts.items():
        if not all(np.isfinite(array).all() for array in arrays):
            raise CannotLift(f"{part} has weights that are infinite or no numbers: the export is damaged")


def _described(node: onnx.NodeProto | None, name: str) -> str:
    return f"{name}" if node is None else f"{node.op_type} ({node.name or name})"
