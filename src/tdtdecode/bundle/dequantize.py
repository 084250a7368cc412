"""Dynamically quantised graphs in floating point: the same products, with the stored weights, without rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .expressions import CannotLift, Expressions
from .graph import Graph, import_onnx

if TYPE_CHECKING:
    import onnx

_STATIC = {"QLinearMatMul", "QGemm", "QLinearAdd", "QLinearConv", "QAttention", "MatMulNBits"}


def dequantized(graph: Graph) -> Graph:
    """A copy of a quantised graph whose products are float32 ones with weights ``(stored - zero point) * scale``.

    A graph that is not quantised is returned as it is.

    Raises
    ------
    CannotLift
        If it is quantised in a way that is not known; the message names the operator.
    """
    if not graph.quantized:
        return graph
    return _Rewriting(graph).result()


class _Rewriting:
    def __init__(self, graph: Graph):
        self._graph = graph
        self._expressions = Expressions(graph)
        self._weights: list[onnx.TensorProto] = []

    def result(self) -> Graph:
        nodes: list[onnx.NodeProto] = []
        rewritten: dict[str, onnx.NodeProto] = {}
        for node in self._graph.model.graph.node:
            if node.op_type in _STATIC:
                raise CannotLift(f"{node.op_type} ({node.name or node.output[0]}): no float form of it is known")
            if node.op_type == "DynamicQuantizeLSTM":
                nodes.append(self._lstm(node))
            elif node.op_type == "DynamicQuantizeMatMul":
                nodes += self._product(node.output[0], node.input[0], node.input[1:4], _optional(node, 4))
            elif node.op_type == "MatMulIntegerToFloat":
                scale, zero = node.input[3], _optional(node, 5)
                nodes += self._product(
                    node.output[0], self._unrounded(node.input[0]), (node.input[1], scale, zero), _optional(node, 6)
                )
            elif node.op_type == "MatMulInteger":
                rewritten[node.output[0]] = node
            elif node.op_type == "Mul" and (integer := self._scaled_product(node)) is not None:
                product, scale = integer
                zero = _optional(product, 3)
                nodes += self._product(
                    node.output[0], self._unrounded(product.input[0]), (product.input[1], scale, zero), ""
                )
                rewritten.pop(product.output[0], None)
            elif node.op_type == "ConvInteger":
                raise CannotLift("ConvInteger: predictor and joint have no convolutions")
            else:
                nodes.append(node)
        if rewritten:
            name = next(iter(rewritten))
            raise CannotLift(f"MatMulInteger ({name}): expected a Cast and a product with both scales after it")
        return self._assembled(nodes)

    def _scaled_product(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
        """The MatMulInteger whose Cast a Mul scales, and the name of the weights' scale."""
        for value, scales in (tuple(node.input), tuple(reversed(node.input))):
            cast, _ = self._expressions.producer(value)
            if cast is None or cast.op_type != "Cast":
                continue
            product, _ = self._expressions.producer(cast.input[0])
            both, _ = self._expressions.producer(scales)
            if product is None or product.op_type != "MatMulInteger" or both is None or both.op_type != "Mul":
                continue
            constants = [name for name in both.input if self._expressions.constant(name) is not None]
            if len(constants) == 1:
                return product, constants[0]
        return None

    def _unrounded(self, name: str) -> str:
        """What a quantised activation was made from."""
        node, output = self._expressions.producer(name)
        if node is None or node.op_type != "DynamicQuantizeLinear" or output != 0:
            raise CannotLift(f"the quantised activation {name} does not come from DynamicQuantizeLinear")
        return node.input[0]

    def _product(self, output: str, x: str, stored: tuple[str, str, str], bias: str) -> list[onnx.NodeProto]:
        onnx = import_onnx()
        weight = self._add(f"{stored[0]}_float", self._values(*stored))
        product = f"{output}_product" if bias else output
        nodes = [onnx.helper.make_node("MatMul", [x, weight], [product])]
        if bias:
            nodes.append(onnx.helper.make_node("Add", [product, bias], [output]))
        return nodes

    def _lstm(self, node: onnx.NodeProto) -> onnx.NodeProto:
        onnx = import_onnx()
        inputs = [*node.input, *[""] * (12 - len(node.input))]
        names = []
        for stored, scale, zero in ((inputs[1], inputs[8], inputs[9]), (inputs[2], inputs[10], inputs[11])):
            values = self._values(stored, scale, zero, axis=0)  # [directions, inputs, 4H]
            names.append(self._add(f"{stored}_float", values.transpose(0, 2, 1)))
        plain = onnx.helper.make_node("LSTM", [inputs[0], *names, *inputs[3:8]], list(node.output))
        plain.attribute.extend(node.attribute)
        return plain

    def _values(self, stored: str, scale: str, zero: str, axis: int | None = None) -> np.ndarray:
        values = [self._expressions.constant(name) for name in (stored, scale)]
        zeros = self._expressions.constant(zero) if zero else np.zeros(1, np.int8)
        if any(value is None for value in (*values, zeros)):
            raise CannotLift(f"the quantised weights {stored} or their scale are no constants")
        quantised, scales = (np.asarray(value) for value in values)
        zeros = np.asarray(zeros).astype(np.float32)
        scales = scales.astype(np.float32)
        if axis is not None:  # leading axes first: [directions] or [directions, 4H] over [directions, inputs, 4H]
            shape = (len(quantised), 1, -1)
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        return (quantised.astype(np.float32) - zeros) * scales

    def _add(self, name: str, values: np.ndarray) -> str:
        onnx = import_onnx()
        if all(tensor.name != name for tensor in self._weights):
            self._weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def _assembled(self, nodes: list[onnx.NodeProto]) -> Graph:
        """The graph of the nodes that its outputs still need."""
        whole = self._graph.model
        needed = {value.name for value in whole.graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(nodes):
            if needed & set(node.output):
                kept.insert(0, node)
                needed.update(node.input)
        weights = [tensor for tensor in (*whole.graph.initializer, *self._weights) if tensor.name in needed]
        helper = import_onnx().helper
        graph = helper.make_graph(
            kept, whole.graph.name or "float", list(whole.graph.input), list(whole.graph.output), weights
        )
        model = helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
        return Graph(model, self._graph.file, self._graph.weights_folder)


def _optional(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""
