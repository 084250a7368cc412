"""A floating-point copy of a dynamically quantised graph: the same weights, but activations are not rounded.

Lifted weights are checked against this copy, but the copy itself is checked against nothing. So every scale and zero
point is traced to its origin, and anything that is not understood is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..onnx_files.dependencies import import_onnx
from ..onnx_files.graph import Graph
from ..onnx_files.sorting import names_read
from .expressions import CannotLift, Expressions

if TYPE_CHECKING:
    import onnx

_UNKNOWN = {
    "ConvInteger", "MatMulNBits", "QAttention", "QGemm", "QLinearAdd", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
}  # fmt: skip
"""Quantised operators that cannot be replaced."""


def dequantized(graph: Graph) -> Graph:
    """A copy of a quantised graph with float32 products, whose weights are ``(stored - zero point) * scale``.

    A graph that is not quantised is returned as it is. Weights behind DequantizeLinear are left as they are, since
    ONNX Runtime and `lift` both read them as floats.

    Raises
    ------
    CannotLift
        If the graph is quantised in an unknown way. The message names the operator.
    """
    if not graph.quantized:
        return graph
    return _Rewriting(graph).result()


class _Rewriting:
    def __init__(self, graph: Graph):
        self._graph = graph
        self._expressions = Expressions(graph)
        self._weights: dict[tuple[str, ...], onnx.TensorProto] = {}
        whole = graph.model.graph
        self._taken = {name for node in whole.node for name in (*node.input, *node.output)}
        self._taken.update(value.name for value in (*whole.input, *whole.output, *whole.initializer))

    def result(self) -> Graph:
        nodes = [new for node in self._graph.model.graph.node for new in self._rewritten(node)]
        return self._assembled(nodes)

    def _rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that replace a node: none for the first nodes of a chain, which is replaced at its last node."""
        if node.op_type in _UNKNOWN:
            raise CannotLift(f"{_described(node)}: no float form of this quantised operator is known")
        given = [*node.input, *[""] * 12]  # optional inputs may be left out
        if node.op_type == "DynamicQuantizeLSTM":
            return [self._lstm(node, given)]
        if node.op_type == "DynamicQuantizeMatMul":
            a, b, scale, zero, bias = given[:5]
            return self._product(node.output[0], a, (b, scale, zero), bias)
        if node.op_type == "MatMulIntegerToFloat":
            a, b, a_scale, scale, a_zero, zero, bias = given[:7]
            return self._product(node.output[0], self._float_source(a, a_scale, a_zero), (b, scale, zero), bias)
        if node.op_type == "Mul" and (integer := self._scaled_product(node)) is not None:
            product, a_scale, scale = integer
            a, b, a_zero, zero = [*product.input, "", ""][:4]
            return self._product(node.output[0], self._float_source(a, a_scale, a_zero), (b, scale, zero), "")
        return [] if node.op_type in ("MatMulInteger", "DynamicQuantizeLinear") else [node]

    def _scaled_product(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str, str] | None:
        """Match the chain MatMulInteger, Cast, Mul by both scales, from its last node, the Mul.

        Returns the MatMulInteger, and the names of the activation's scale and of the weights' scale; None if the node
        is another Mul.
        """
        for value, scales in (tuple(node.input), tuple(reversed(node.input))):
            cast, _ = self._expressions.producer(value)
            if cast is None or cast.op_type != "Cast":
                continue
            product, _ = self._expressions.producer(cast.input[0])
            both, _ = self._expressions.producer(scales)
            if product is None or product.op_type != "MatMulInteger" or both is None or both.op_type != "Mul":
                continue
            constants = [name for name in both.input if self._expressions.constant(name) is not None]
            others = [name for name in both.input if name not in constants]
            if len(constants) == len(others) == 1:
                return product, others[0], constants[0]
        return None

    def _float_source(self, name: str, scale: str, zero: str) -> str:
        """The float tensor that a quantised activation was computed from; scale and zero point must be its own."""
        node, output = self._expressions.producer(name)
        if node is None or node.op_type != "DynamicQuantizeLinear" or output != 0:
            raise CannotLift(f"the quantised activation {name} does not come from DynamicQuantizeLinear")
        _, own_scale, own_zero = node.output
        if (scale, zero) != (own_scale, own_zero):
            raise CannotLift(
                f"the quantised activation {name} is read with scale {scale} and zero point {zero or 'none'}, expected "
                f"{own_scale} and {own_zero}, which {_described(node)} computes with it"
            )
        return node.input[0]

    def _product(self, output: str, x: str, stored: tuple[str, str, str], bias: str) -> list[onnx.NodeProto]:
        """Nodes that compute the tensor `output` as x times a weight (see `_weight`) plus a bias ("" if none)."""
        onnx = import_onnx()
        weight = self._weight(stored)
        product = self._unused_name(f"{output}_product") if bias else output
        nodes = [onnx.helper.make_node("MatMul", [x, weight], [product])]
        if bias:
            nodes.append(onnx.helper.make_node("Add", [product, bias], [output]))
        return nodes

    def _lstm(self, node: onnx.NodeProto, given: list[str]) -> onnx.NodeProto:
        onnx = import_onnx()
        weights = [self._weight((given[i], given[j], given[j + 1]), lstm=True) for i, j in ((1, 8), (2, 10))]
        plain = onnx.helper.make_node("LSTM", [given[0], *weights, *given[3:8]], list(node.output), name=node.name)
        plain.attribute.extend(node.attribute)
        return plain

    def _weight(self, stored: tuple[str, str, str], lstm: bool = False) -> str:
        """The name of a float weight, given the names of its integers, scale and zero point ("" if none)."""
        key = (*stored, "lstm" if lstm else "product")
        if key not in self._weights:
            quantised, scale, zero = (self._number(name) if name else None for name in stored)
            if quantised is None or scale is None:
                raise CannotLift(f"the quantised weights {stored[0]} have no scale")
            if quantised.dtype not in (np.int8, np.uint8):
                raise CannotLift(f"the quantised weights {stored[0]} are {quantised.dtype}, expected int8 or uint8")
            # An LSTM's weights are [directions, inputs, 4H]. Each direction has its own scales.
            groups = len(quantised) if lstm else 1
            scales = _per_output(stored[1], scale, groups, quantised.shape[-1])
            zeros = np.float32(0) if zero is None else _per_output(stored[2], zero, groups, quantised.shape[-1])
            values = (quantised.astype(np.float32) - zeros) * scales
            values = np.ascontiguousarray(values.transpose(0, 2, 1) if lstm else values.reshape(quantised.shape))
            name = self._unused_name(f"{stored[0]}_float")
            self._weights[key] = import_onnx().numpy_helper.from_array(values, name)
        return self._weights[key].name

    def _number(self, name: str) -> np.ndarray:
        value = self._expressions.constant(name)
        if value is None:
            raise CannotLift(f"{name} belongs to quantised weights and is not a constant")
        return value

    def _unused_name(self, name: str) -> str:
        """A name for a new tensor: the given one, with underscores added while it is taken."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _assembled(self, nodes: list[onnx.NodeProto]) -> Graph:
        """The graph of these nodes, without those that no output needs."""
        whole = self._graph.model
        needed = {value.name for value in whole.graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(nodes):
            if needed & set(node.output):
                kept.append(node)
                needed.update(names_read(node))
        kept.reverse()
        self._check_complete(kept)
        weights = [tensor for tensor in whole.graph.initializer if tensor.name in needed]
        sparse = [tensor for tensor in whole.graph.sparse_initializer if tensor.values.name in needed]
        # Old exports list weights among the inputs. If such a weight is removed, its input must go, too.
        gone = {tensor.name for tensor in whole.graph.initializer} - needed
        helper = import_onnx().helper
        graph = helper.make_graph(
            kept,
            whole.graph.name or "float",
            [value for value in whole.graph.input if value.name not in gone],
            list(whole.graph.output),
            [*weights, *self._weights.values()],
            sparse_initializer=sparse,
        )
        model = helper.make_model(
            graph, opset_imports=whole.opset_import, functions=whole.functions, ir_version=whole.ir_version
        )
        return Graph(model, self._graph.file, self._graph.weights_folder)

    def _check_complete(self, kept: list[onnx.NodeProto]) -> None:
        """Check that no remaining node reads a quantised activation or an integer product, which are gone."""
        rewritten = {name for node in kept for name in node.output}
        for node in kept:
            for name in names_read(node):
                maker, _ = self._expressions.producer(name)
                if maker is not None and name not in rewritten:
                    raise CannotLift(
                        f"{_described(node)} reads {name} of {_described(maker)}: expected a dynamically quantised "
                        "product to be a MatMulInteger, a Cast and a Mul by both scales"
                    )


def _per_output(name: str, values: np.ndarray, groups: int, outputs: int) -> np.ndarray:
    """Scales or zero points [groups, 1, 1 or outputs], for weights [groups, inputs, outputs]."""
    if values.size not in (groups, groups * outputs):
        raise CannotLift(f"{name} holds {values.size} numbers for quantised weights: expected one, or {outputs}")
    return values.astype(np.float32).reshape(groups, 1, -1)


def _described(node: onnx.NodeProto) -> str:
    return f"{node.op_type} ({node.name or node.output[0]})"
