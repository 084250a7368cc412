"""Which tensors of a graph depend on which, and extracting the part of a graph that computes given tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ...forks import cached_property
from .dependencies import import_onnx
from .graph import Graph
from .sorting import names_read

if TYPE_CHECKING:
    import onnx


class Flow:
    """The dependencies between a graph's tensors.

    Attributes
    ----------
    producer:
        The index of the node that computes a tensor, by the tensor's name.
    """

    def __init__(self, graph: Graph):
        self._nodes = graph.model.graph.node
        self.producer = {name: i for i, node in enumerate(self._nodes) for name in node.output if name}

    @cached_property
    def _inputs(self) -> list[set[str]]:
        return [set(names_read(node)) for node in self._nodes]

    def inputs(self, i: int) -> set[str]:
        """The tensors that node i reads, including those that its subgraphs read."""
        return self._inputs[i]

    def outputs(self, i: int) -> set[str]:
        """The tensors that node i computes."""
        return {name for name in self._nodes[i].output if name}

    def reached(self, names: Iterable[str]) -> set[str]:
        """The given tensors, and all tensors that depend on them."""
        reached = set(names)
        for i in range(len(self._nodes)):
            if self.inputs(i) & reached:
                reached |= self.outputs(i)
        return reached

    def needed(self, names: Iterable[str], stop: Collection[str] = ()) -> set[int]:
        """The indices of the nodes that compute the given tensors from the graph's inputs and the tensors in `stop`."""
        needed: set[int] = set()
        pending = [name for name in names if name not in stop]
        while pending:
            i = self.producer.get(pending.pop())
            if i is not None and i not in needed:
                needed.add(i)
                pending.extend(name for name in self.inputs(i) if name not in stop)
        return needed


def extract(
    graph: Graph,
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    stop: Collection[str] = (),
) -> Graph:
    """The part of a graph that computes the given outputs.

    Parameters
    ----------
    inputs, outputs:
        Inputs and outputs of the new graph.
    stop:
        Tensors of the old graph that are inputs of the new one.
    """
    onnx = import_onnx()
    outputs = list(outputs)
    whole = graph.model
    flow = Flow(graph)
    indices = flow.needed([value.name for value in outputs], stop)
    used = {name for i in indices for name in flow.inputs(i)}
    made = onnx.helper.make_graph(
        [whole.graph.node[i] for i in sorted(indices)],
        whole.graph.name or "extracted",
        list(inputs),
        outputs,
        [tensor for tensor in whole.graph.initializer if tensor.name in used],
        sparse_initializer=[t for t in whole.graph.sparse_initializer if t.values.name in used],
    )
    made.quantization_annotation.extend(whole.graph.quantization_annotation)
    model = onnx.helper.make_model(
        made, opset_imports=whole.opset_import, functions=whole.functions, ir_version=whole.ir_version
    )
    return Graph(model, graph.file, graph.weights_folder)
