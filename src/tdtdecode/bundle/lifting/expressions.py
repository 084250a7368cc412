"""Following a graph backwards: which node computes a tensor, and which tensors are constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TdtDecodeError
from ...forks import cached_property
from ..onnx_files.dependencies import import_onnx
from ..onnx_files.graph import Graph

if TYPE_CHECKING:
    import onnx

MAX_CONSTANT_BYTES = 1 << 31
"""Most bytes that a computed constant, or its inputs together, may have."""

_VIEWS = {"Identity", "Cast", "Dropout", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"}
"""Operators that change the shape or type of a tensor, but neither its values nor their order.

That holds for one utterance, one frame and one token, because all axes but one then have size 1.
"""

_CONSTANT_OPERATORS = {
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Div", "Expand", "Flatten", "Gather",
    "Identity", "Mul", "Neg", "Pow", "Reciprocal", "Reshape", "Shape", "Slice", "Split", "Sqrt", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that are computed if all their inputs are constants."""


class CannotLift(TdtDecodeError):
    """The weights of a model cannot be lifted out of its graphs; the message says why."""


class Expressions:
    """Looks up how the tensors of a graph are computed."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self._constants: dict[str, np.ndarray | None] = {}

    @cached_property
    def _producers(self) -> dict[str, tuple[onnx.NodeProto, int]]:
        nodes = self.graph.model.graph.node
        return {name: (node, i) for node in nodes for i, name in enumerate(node.output) if name}

    def producer(self, name: str) -> tuple[onnx.NodeProto | None, int]:
        """The node that computes a tensor, and the index of that output; (None, 0) for inputs and weights."""
        return self._producers.get(name, (None, 0))

    def behind_views(self, name: str) -> str:
        """The tensor that has the same values before its shape or type was changed."""
        node, _ = self.producer(name)
        while node is not None and node.op_type in _VIEWS and self.constant(name) is None:
            name = node.input[0]
            node, _ = self.producer(name)
        return name

    def source(self, name: str) -> tuple[str, onnx.NodeProto | None, int]:
        """The tensor `behind_views`, the node that computes it, and the index of that output."""
        name = self.behind_views(name)
        return name, *self.producer(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a tensor that depends on no input of the graph; None for other tensors."""
        if name not in self._constants:
            self._constants[name] = self._evaluated(name)
        return self._constants[name]

    def _evaluated(self, name: str) -> np.ndarray | None:
        if name in self.graph.initializers:
            return self.graph.array(name)
        node, output = self.producer(name)
        if node is None or node.op_type not in _CONSTANT_OPERATORS:
            return None
        inputs: dict[str, np.ndarray] = {}
        for value in filter(None, node.input):
            constant = self.constant(value)
            if constant is None:
                return None
            inputs[value] = constant
        if sum(value.nbytes for value in inputs.values()) > MAX_CONSTANT_BYTES:
            raise CannotLift(f"the constant {name} is computed from more than {MAX_CONSTANT_BYTES} bytes of constants")
        return self._run(node, inputs)[output]

    def _run(self, node: onnx.NodeProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        onnx = import_onnx()
        from onnx.reference import ReferenceEvaluator

        helper = onnx.helper
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        model = helper.make_model(
            helper.make_graph([node], "constant", declared, outputs),
            opset_imports=self.graph.model.opset_import,
            ir_version=self.graph.model.ir_version,
        )
        try:
            values = ReferenceEvaluator(model).run(None, inputs)
        except Exception as error:  # a malformed constant can make the evaluator raise anything
            raise CannotLift(f"the constant {node.output[0]} cannot be computed: {error}") from None
        return [np.asarray(value) for value in values]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    onnx = import_onnx()
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
